"""The interpreter against onnxruntime and finite differences, on graphs of one operator and on whole towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pocketlens.errors import FormatError
from pocketlens.model import Model
from pocketlens_export.fit.interpreter import Interpreter
from tests.quantize.towers import CONTEXT, TOKENS, WIDTH, text_tower

Array = NDArray[Any]
CPU = torch.device("cpu")
X = np.random.default_rng(3).standard_normal((2, 3, 4)).astype(np.float32)
MATRIX = np.random.default_rng(4).standard_normal((4, 5)).astype(np.float32)
INTEGERS = np.array([[3, 1, 2], [0, 5, 4]])


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


CASES: list[tuple[str, list[Array], dict[str, Any]]] = [
    ("Add", [X, X[0]], {}),
    ("ArgMax", [X], {"axis": 1, "keepdims": 0}),
    ("Cast", [X], {"to": TensorProto.INT64}),
    ("Clip", [X, np.array(-0.5, np.float32), np.array(0.5, np.float32)], {}),
    ("Clip", [INTEGERS, np.array(2)], {}),
    ("Concat", [X, X[:, :1]], {"axis": 1}),
    ("ConstantOfShape", [ints(2, 3)], {"value": numpy_helper.from_array(np.array([2.5], np.float32))}),
    ("CumSum", [INTEGERS, np.array(1)], {}),
    ("Div", [X, X[0] + 3], {}),
    ("Div", [np.array([-7, 7]), np.array([2, 2])], {}),  # of integers: cut, not floored
    ("Equal", [INTEGERS, np.array(2)], {}),
    ("Expand", [X[:, :1], ints(2, 3, 1)], {}),
    ("Expand", [X[0, :1], ints(2, 1, 1, 4)], {}),
    ("Gather", [X, np.array([[0, -1], [2, 1]])], {"axis": 1}),
    ("Gather", [MATRIX, np.array([[0, -1], [2, 1]])], {"axis": 0}),
    ("Gather", [X, np.array(1)], {"axis": 1}),
    ("GatherElements", [X, np.array([[[0, 1, -1, 0]], [[2, 2, 0, 1]]])], {"axis": 1}),
    ("GatherND", [X, np.array([[0, 2], [1, 0]])], {}),
    ("Gelu", [X], {}),
    ("Gelu", [X], {"approximate": "tanh"}),
    ("Gemm", [X[0], MATRIX, np.ones(5, np.float32)], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", [X[0].T.copy(), MATRIX], {"transA": 1}),
    ("Gemm", [X[0], MATRIX.T.copy(), np.ones(5, np.float32)], {"transB": 1}),
    ("LayerNormalization", [X, X[0, 0], X[0, 1]], {"axis": -1, "epsilon": 1e-3}),
    ("LayerNormalization", [X, X[0], X[1]], {"axis": 1}),
    ("LpNormalization", [X], {"axis": 1, "p": 2}),
    ("MatMul", [X, MATRIX], {}),
    ("Max", [X, X[0], X[1]], {}),
    ("Min", [X, X[0]], {}),
    ("Mul", [X, X[0]], {}),
    ("Not", [X > 0], {}),
    ("Range", [np.array(2), np.array(9), np.array(3)], {}),
    ("ReduceL2", [X, ints(-1)], {"keepdims": 1}),
    ("ReduceMean", [X, ints(1)], {"keepdims": 0}),
    ("ReduceSum", [X, ints(0, 2)], {"keepdims": 0}),
    ("ReduceSum", [X], {"keepdims": 1}),
    ("ReduceSum", [X], {"noop_with_empty_axes": 1}),
    ("Reshape", [X, ints(0, -1)], {}),
    ("Reshape", [np.zeros((0, 4), np.float32), ints(2, 0)], {"allowzero": 1}),
    ("Shape", [X], {"start": 1}),
    ("Shape", [X], {"start": -2, "end": -1}),
    ("Slice", [X, ints(1), ints(2**63 - 1), ints(1)], {}),
    ("Slice", [X, ints(0, -3), ints(-1, 9), ints(1, 2), ints(1, 2)], {}),
    ("Softmax", [X], {"axis": 1}),
    ("Split", [X, ints(1, 3)], {"axis": 2}),
    ("Squeeze", [X[:, :1], ints(-2)], {}),
    ("Squeeze", [X[:1, :1]], {}),
    ("Sub", [X, X[0]], {}),
    ("Transpose", [X], {}),
    ("Transpose", [X], {"perm": [1, 0, 2]}),
    ("Unsqueeze", [X, ints(-1, 1)], {}),
    ("Where", [X > 0, X, X[0]], {}),
]


def graph(
    nodes: Sequence[onnx.NodeProto], inputs: dict[str, Array], constants: dict[str, Array] | None = None, out: str = "y"
) -> onnx.ModelProto:
    """Return a graph of nodes over inputs and constants."""
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
        for name, value in inputs.items()
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    made = helper.make_graph(list(nodes), "one", given, [onnx.ValueInfoProto(name=out)], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def by_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def by_interpreter(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in feeds.items()}
    return Interpreter(model, device=CPU).run(tensors).numpy()


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
@pytest.mark.parametrize("constant_tail", [False, True])
def test_operator(op_type: str, inputs: list[Array], attributes: dict[str, Any], constant_tail: bool) -> None:
    names = [f"x{i}" for i in range(len(inputs))]
    outputs = ["y", "z"] if op_type == "Split" else ["y"]
    node = helper.make_node(op_type, names, outputs, **attributes)
    values = dict(zip(names, inputs, strict=True))
    fixed = {name: values.pop(name) for name in names[1:]} if constant_tail else {}
    model = graph([node], values, fixed)
    expected, found = by_onnxruntime(model, values), by_interpreter(model, values)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_constants_are_folded_and_values_dropped() -> None:
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.array(2, np.float32))),
        helper.make_node("Mul", ["two", "w"], ["doubled"]),
        helper.make_node("Add", ["x", "doubled"], ["unused"]),
        helper.make_node("Mul", ["x", "doubled"], ["y"]),
    ]
    model = graph(nodes, {"x": X}, {"w": X[0]})
    interpreter = Interpreter(model, device=CPU)
    found = interpreter.run({"x": torch.from_numpy(X)}).numpy()
    np.testing.assert_allclose(found, X * (2 * X[0]), rtol=1e-6)
    assert len(interpreter._steps) == 2  # only the two that read x


@pytest.mark.parametrize("order", [["product", "b"], ["b", "product"]])
@pytest.mark.parametrize("shared", [False, True])
def test_products_take_their_offset_along(order: list[str], shared: bool) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", order, ["sum"]),
        helper.make_node("Mul", ["sum", "product" if shared else "sum"], ["y"]),
    ]
    model = graph(nodes, {"x": X}, {"w": MATRIX, "b": np.arange(5, dtype=np.float32)})
    np.testing.assert_allclose(by_interpreter(model, {"x": X}), by_onnxruntime(model, {"x": X}), rtol=1e-5, atol=1e-6)
    assert len(Interpreter(model, device=CPU)._steps) == (3 if shared else 2)


def test_unknown_operator_is_named() -> None:
    model = graph([helper.make_node("Conv", ["x", "w"], ["y"])], {"x": X}, {"w": X})
    with pytest.raises(FormatError, match="operator Conv, which"):
        Interpreter(model, device=CPU)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "message"),
    [
        ("CumSum", [X, np.array(1)], {"reverse": 1}, "reversed or exclusive CumSum"),
        ("GatherND", [X, INTEGERS], {"batch_dims": 1}, "GatherND with batch_dims"),
        ("ArgMax", [X], {"select_last_index": 1}, "ArgMax of last"),
        ("Cast", [X], {"to": TensorProto.BFLOAT16}, "Cast to ONNX type 16"),
    ],
)
def test_attributes_that_are_unknown(
    op_type: str, inputs: list[Array], attributes: dict[str, Any], message: str
) -> None:
    names = [f"x{i}" for i in range(len(inputs))]
    model = graph([helper.make_node(op_type, names, ["y"], **attributes)], dict(zip(names, inputs, strict=True)))
    with pytest.raises(FormatError, match=message):
        Interpreter(model, device=CPU)


def test_steps_below_one_are_refused() -> None:
    values = {"x": X, "starts": ints(3), "ends": ints(0), "axes": ints(1), "steps": ints(-1)}
    model = graph([helper.make_node("Slice", list(values), ["y"])], values)
    with pytest.raises(FormatError, match="step -1"):
        by_interpreter(model, values)


def test_float16_arithmetic_is_refused() -> None:
    half = X.astype(np.float16)
    model = graph([helper.make_node("Add", ["x", "w"], ["y"])], {"x": half}, {"w": half[0]})
    with pytest.raises(FormatError, match="float16"):
        Interpreter(model, device=CPU)


@pytest.mark.parametrize("name", ["tiny", "bidirectional", "tiny-bert"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_exported_towers_as_onnxruntime_runs_them(exported: Path, name: str, count: int) -> None:
    opened = Model.open(exported / name)
    spec = opened.manifest.text
    assert spec is not None
    rng = np.random.default_rng(count)
    ids = rng.integers(5, 40, (3, spec.context_length))
    ids[:, 2 : 2 + count] = -1
    ids[:, -1] = spec.end_id
    pseudo = rng.standard_normal((3, count, spec.token_dim)).astype(np.float32)
    feeds: dict[str, Array] = {"input_ids": ids, "pseudo_tokens": pseudo}
    model = onnx.load(str(exported / name / spec.file))
    np.testing.assert_allclose(by_interpreter(model, feeds), by_onnxruntime(model, feeds), atol=2e-6)


@pytest.mark.parametrize("name", ["tiny", "tiny-bert"])
def test_gradient_against_finite_differences(exported: Path, name: str) -> None:
    opened = Model.open(exported / name)
    spec = opened.manifest.text
    assert spec is not None
    model = Interpreter(onnx.load(str(exported / name / spec.file)), device=CPU)
    for key, constant in model._constants.items():  # differences need more digits than a tower has
        model._constants[key] = constant.double() if constant.is_floating_point() else constant
    ids = torch.randint(5, 40, (2, spec.context_length), generator=torch.Generator().manual_seed(0))
    ids[:, 3] = -1
    ids[:, -1] = spec.end_id
    rng = np.random.default_rng(1)
    start = torch.from_numpy(rng.standard_normal((2, 1, spec.token_dim)) * 0.1).requires_grad_()
    weight = torch.from_numpy(rng.standard_normal((2, opened.manifest.space.dim)))

    def value(tokens: torch.Tensor) -> torch.Tensor:
        return (model.run({"input_ids": ids, "pseudo_tokens": tokens}) * weight).sum()

    value(start).backward()  # type: ignore[no-untyped-call]
    assert start.grad is not None
    for _ in range(4):
        direction = torch.from_numpy(rng.standard_normal(start.shape))
        with torch.no_grad():
            slope = (value(start + 1e-5 * direction) - value(start - 1e-5 * direction)) / 2e-5
        assert float(slope) == pytest.approx(float((start.grad * direction).sum()), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", ["tiny", "bidirectional", "tiny-bert"])
def test_shapes_stay_on_the_host_of_an_accelerator(exported: Path, name: str) -> None:
    """The meta device holds no values: reading a shape from it fails, and so does mixing it with another device."""
    opened = Model.open(exported / name)
    spec = opened.manifest.text
    assert spec is not None
    meta = torch.device("meta")
    model = Interpreter(onnx.load(str(exported / name / spec.file)), device=meta)
    ids = torch.zeros((3, spec.context_length), dtype=torch.int64, device=meta)
    found = model.run({"input_ids": ids, "pseudo_tokens": torch.zeros((3, 2, spec.token_dim), device=meta)})
    assert found.device == meta and found.shape == (3, opened.manifest.space.dim)


def test_tower_written_by_hand() -> None:
    """A tower whose pseudo-tokens are added, with a padding mask of infinities."""
    model = text_tower(outlier=3)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, TOKENS, (4, CONTEXT))
    ids[:2, 9:] = 0
    feeds: dict[str, Array] = {"input_ids": ids, "pseudo_tokens": rng.standard_normal((4, 2, WIDTH)).astype(np.float32)}
    np.testing.assert_allclose(by_interpreter(model, feeds), by_onnxruntime(model, feeds), atol=1e-5)
