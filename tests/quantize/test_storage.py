from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pocketlens_quantize.storage import large_weights, quantize_matmuls, quantize_table, store_float16, store_int8

Array = NDArray[np.float32]
VOCABULARY, WIDTH, DIM = 300, 128, 64


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, Array]:
    table = rng.standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
    table[7] *= 50  # an outlier token must not coarsen the others
    return {"table": table, "projection": rng.standard_normal((WIDTH, DIM)).astype(np.float32)}


@pytest.fixture
def model(weights: dict[str, Array]) -> onnx.ModelProto:
    """ids -> table rows -> projection, small enough to compute with numpy."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], axis=0),
        helper.make_node("MatMul", ["rows", "projection"], ["out"], name="project"),
    ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "l"])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", "l", DIM])]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tower", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


IDS = np.array([[0, 7, 299], [3, 3, 150]])


def run(model: onnx.ModelProto, ids: NDArray[np.int64] = IDS) -> Array:
    onnx.checker.check_model(model)
    result: Array = ort.InferenceSession(model.SerializeToString()).run(["out"], {"ids": ids})[0]
    return result


def cosines(found: Array, expected: Array) -> Array:
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    return np.asarray((found * expected).sum(axis=-1) / norms, dtype=np.float32)


def test_float16_storage_equals_rounding_the_weights(model: onnx.ModelProto, weights: dict[str, Array]) -> None:
    store_float16(model, large_weights(model))
    rounded = {name: value.astype(np.float16).astype(np.float32) for name, value in weights.items()}
    np.testing.assert_allclose(run(model), rounded["table"][IDS] @ rounded["projection"], rtol=1e-4, atol=1e-4)
    assert model.ByteSize() < 0.55 * 4 * (VOCABULARY * WIDTH + WIDTH * DIM)


def test_float16_storage_refuses_a_weight_that_overflows(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full((WIDTH, DIM), 7e4, np.float32), "projection"))
    with pytest.raises(ValueError, match=r"projection: a weight of 7e\+04 does not fit float16"):
        store_float16(model, ["projection"])


def test_int8_storage_errs_by_half_a_step_at_most(model: onnx.ModelProto, weights: dict[str, Array]) -> None:
    identity = np.eye(WIDTH, dtype=np.float32)
    weights["projection"][:, 0] = 0  # a slice of zeros has no scale of its own
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(weights["projection"], "projection"))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(identity, "table"))
    store_int8(model, ["projection"], axis=1)
    found = run(model, np.arange(WIDTH)[np.newaxis])[0]
    steps = np.abs(weights["projection"]).max(axis=0) / 127
    assert (np.abs(found - weights["projection"]) <= steps / 2 + 1e-6).all()


def test_table_rows_keep_their_own_scale(model: onnx.ModelProto, weights: dict[str, Array]) -> None:
    expected = run(model)
    quantize_table(model, "table")
    assert cosines(run(model), expected).min() > 0.9995
    assert "table" not in {tensor.name for tensor in model.graph.initializer}


def test_a_table_that_is_also_multiplied_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match="projection is read by MatMul project"):
        quantize_table(model, "projection")


def test_eight_bit_matmuls_are_close_and_independent_of_the_batch(model: onnx.ModelProto) -> None:
    expected = run(model)
    quantized = quantize_matmuls(model)
    assert [node.op_type for node in quantized.graph.node] == ["Gather", "MatMulNBits"]
    together = run(quantized)
    assert cosines(together, expected).min() > 0.999
    np.testing.assert_allclose(run(quantized, IDS[:1]), together[:1], atol=1e-4)


def test_only_the_named_matmuls_get_eight_bits(rng: np.random.Generator) -> None:
    weights = {name: rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in ("first", "second", "third")}
    nodes = []
    for value, name in zip(("x", "first.out", "second.out"), weights, strict=True):
        nodes.append(
            helper.make_node("MatMul", [value, name], ["out" if name == "third" else f"{name}.out"], name=name)
        )
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", WIDTH])]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "products", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for named in ([], ["second"], ["first", "third"]):
        copied = onnx.ModelProto.FromString(model.SerializeToString())
        kinds = [node.op_type for node in quantize_matmuls(copied, named).graph.node]
        assert kinds == ["MatMulNBits" if name in named else "MatMul" for name in weights]
