"""What 8-bit graphs compute, on processors whose own 8-bit products overflow too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketlens import Model, find_model
from pocketlens.graph import Graph
from pocketlens.network import InversionNetwork

WIDTH, DIM = 64, 8


def dynamic_product(path: Path, weights: np.ndarray) -> Path:
    """Write x @ weights / 127 with x quantized to uint8 as it comes."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["levels", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["levels", "weights", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "step"], ["factor"]),
        helper.make_node("Mul", ["real", "factor"], ["embedding"]),
    ]
    tensors = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array(1 / 127, dtype=np.float32), "step"),
    ]
    x, embedding = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", WIDTH), ("embedding", DIM))
    )
    graph = helper.make_graph(nodes, "product", [x], [embedding], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_a_towers_8_bit_products_do_not_overflow(tmp_path: Path, sign: int) -> None:
    """255 x 127 twice is more than 16 bits hold, which is what x86-64 without VNNI adds them in."""
    path = dynamic_product(tmp_path / "image.onnx", np.full((WIDTH, DIM), sign * 127, dtype=np.int8))
    graph = Graph(path, 1, {"x": (None, WIDTH)}, {"embedding": (None, DIM)})
    found = graph.run({"x": np.ones((2, WIDTH), dtype=np.float32)}, ["embedding"])[0]
    np.testing.assert_allclose(found, np.full((2, DIM), sign * WIDTH), rtol=1e-5)


@pytest.mark.parametrize("recipe", ["lincir", "pic2word", "searle"])
def test_the_networks_that_ship_run_and_give_one_answer_alone_and_in_a_batch(
    recipe: str, rng: np.random.Generator
) -> None:
    vectors = rng.standard_normal((4, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    network = InversionNetwork(Model.open(find_model("lens-base")), recipe, threads=1)
    together = network.invert(vectors)
    alone = np.concatenate([network.invert(each) for each in vectors[:, np.newaxis]])
    cosines = (together * alone).sum(-1) / np.linalg.norm(together, axis=-1) / np.linalg.norm(alone, axis=-1)
    assert together.std(axis=0).min() > 0  # pictures differ in every number
    assert cosines.min() > 0.99
