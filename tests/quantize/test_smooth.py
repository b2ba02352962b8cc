from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketlens_quantize.graph import constants, copy_of
from pocketlens_quantize.prepare import prepare
from pocketlens_quantize.smooth import STRENGTH, branch, channel_maxima
from tests.quantize import towers
from tests.quantize.towers import Floats, Graph, run

WIDTH = 8


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, Floats]:
    return {name: rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in ("first", "second")}


@pytest.fixture
def model(weights: dict[str, Floats]) -> onnx.ModelProto:
    """A value that two products and a residual sum read."""
    graph = Graph()
    value = graph.add("Tanh", "value", "x")
    parts = [graph.add("MatMul", f"{name}.out", value, graph.constant(name, weights[name])) for name in weights]
    graph.add("Sum", "y", value, *parts)
    return graph.model(
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])], out="y", dims=["n", WIDTH]
    )


PRODUCTS = ["first.out.MatMul", "second.out.MatMul"]


@pytest.fixture
def feeds(rng: np.random.Generator) -> list[dict[str, Floats]]:
    return [{"x": rng.standard_normal((3, WIDTH)).astype(np.float32)} for _ in range(4)]


def test_maxima_are_taken_by_channel_over_all_feeds(model: onnx.ModelProto, feeds: list[dict[str, Floats]]) -> None:
    found = channel_maxima(model, ["value"], feeds)
    expected = np.abs(np.tanh(np.concatenate([feed["x"] for feed in feeds]))).max(axis=0)
    np.testing.assert_allclose(found["value"], expected, rtol=1e-5)


@pytest.mark.parametrize("smooth", [True, False])
def test_the_graph_computes_the_same(model: onnx.ModelProto, feeds: list[dict[str, Floats]], smooth: bool) -> None:
    branched = copy_of(model)
    maxima = {"value": np.array([1e3, 1, 1, 1e-3, 1, 0, 50, 1], np.float32)} if smooth else None
    branch(branched, PRODUCTS, maxima)
    onnx.checker.check_model(branched)
    for feed in feeds:
        np.testing.assert_allclose(run(branched, feed), run(model, feed), atol=1e-5)


@pytest.mark.parametrize("smooth", [True, False])
def test_only_the_products_read_the_branch(
    model: onnx.ModelProto, feeds: list[dict[str, Floats]], smooth: bool
) -> None:
    branch(model, PRODUCTS, channel_maxima(model, ["value"], feeds) if smooth else None)
    by_name = {node.name: node for node in model.graph.node}
    assert {by_name[name].input[0] for name in PRODUCTS} == {"value.branch"}
    assert by_name["y.Sum"].input[0] == "value"
    [one] = [node for node in model.graph.node if "value.branch" in node.output]
    assert one.op_type == ("Mul" if smooth else "Identity")


def test_a_product_that_is_not_named_reads_the_value_itself(
    model: onnx.ModelProto, weights: dict[str, Floats], feeds: list[dict[str, Floats]]
) -> None:
    branch(model, PRODUCTS[:1], channel_maxima(model, ["value"], feeds))
    second = next(node for node in model.graph.node if node.name == PRODUCTS[1])
    assert list(second.input) == ["value", "second"]
    np.testing.assert_array_equal(numpy_helper.to_array(constants(model)["second"]), weights["second"])


def test_scales_are_those_of_the_paper(model: onnx.ModelProto, weights: dict[str, Floats]) -> None:
    activations = np.geomspace(0.01, 100, WIDTH).astype(np.float32)
    branch(model, PRODUCTS, {"value": activations})
    largest = np.maximum(np.abs(weights["first"]).max(axis=1), np.abs(weights["second"]).max(axis=1))
    expected = activations**STRENGTH / largest ** (1 - STRENGTH)
    found = 1 / numpy_helper.to_array(constants(model)["value.smoothing"])
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-4)  # a common factor is free
    np.testing.assert_allclose(
        numpy_helper.to_array(constants(model)["first.smoothed"]), weights["first"] * found[:, np.newaxis], rtol=1e-4
    )


def test_smoothing_narrows_the_spread_of_an_outlying_channel() -> None:
    prepared = prepare(towers.text_tower(outlier=100))
    feeds = towers.text_feeds(8)
    value = "layer0.norm1"
    products = [f"layer0.attention.{part}.product.MatMul" for part in "qkv"]
    maxima = channel_maxima(prepared, [value], feeds)
    assert maxima[value].max() / np.median(maxima[value]) > 50
    branch(prepared, products, maxima)
    smoothed = channel_maxima(prepared, [f"{value}.branch"], feeds)[f"{value}.branch"]
    assert smoothed.max() / np.median(smoothed) < 10
