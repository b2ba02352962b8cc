from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pocketlens.errors import MissingPart, Refused
from pocketlens.graph import open_exactly
from pocketlens_quantize.optimum_presets import quantize_with_optimum

Array = NDArray[np.float32]
Preset = Literal["arm64", "avx2", "avx512_vnni"]
PRESETS = get_args(Preset)
SIDE, CHANNELS, DIM = 6, 8, 16


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, Array]:
    stem = rng.standard_normal((CHANNELS, 3, 1, 1)).astype(np.float32)
    stem[0] *= 30  # with one scale for all channels this one would leave the others few steps
    projection = rng.standard_normal((CHANNELS * SIDE * SIDE, DIM)).astype(np.float32)
    return {"stem": stem, "projection": projection}


@pytest.fixture
def source(tmp_path: Path, weights: dict[str, Array]) -> Path:
    """pixels -> 1x1 convolution -> projection, small enough to compute with numpy."""
    nodes = [
        helper.make_node("Conv", ["x", "stem"], ["maps"], name="stem"),
        helper.make_node("Flatten", ["maps"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "projection"], ["y"], name="project"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", DIM])
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tower", [x], [y], initializers)
    path = tmp_path / "image.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def by_numpy(weights: dict[str, Array], x: Array) -> Array:
    maps = np.einsum("oi,nihw->nohw", weights["stem"][:, :, 0, 0], x)
    return np.asarray(maps.reshape(len(x), -1) @ weights["projection"], dtype=np.float32)


def pixels(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-1, 1, (n, 3, SIDE, SIDE)).astype(np.float32)


def run(path: Path, x: Array) -> Array:
    result: Array = open_exactly(str(path), ort.SessionOptions()).run(["y"], {"x": x})[0]
    return result


def worst_cosine(found: Array, expected: Array) -> float:
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    return float(((found * expected).sum(axis=-1) / norms).min())


def weight_types(path: Path) -> dict[str, set[int]]:
    """Return the types of the matrices and kernels that a file holds, by how many sizes they have."""
    tensors = [tensor for tensor in onnx.load(str(path)).graph.initializer if len(tensor.dims) > 1]
    return {kind: {t.data_type for t in tensors if len(t.dims) == n} for kind, n in [("kernel", 4), ("matrix", 2)]}


@pytest.mark.parametrize("preset", PRESETS)
def test_static_quantizes_every_operator_and_stays_close(
    preset: Preset, source: Path, tmp_path: Path, weights: dict[str, Array], rng: np.random.Generator
) -> None:
    out = tmp_path / "quantized.onnx"
    quantize_with_optimum(source, out=out, preset=preset, feeds=[{"x": pixels(rng, 4)} for _ in range(8)])
    x = pixels(rng, 16)
    assert 0.999 < worst_cosine(run(out, x), by_numpy(weights, x)) < 0.9999999
    expected = TensorProto.UINT8 if preset == "avx2" else TensorProto.INT8
    assert weight_types(out) == {"kernel": {expected}, "matrix": {expected}}
    graph = onnx.load(str(out)).graph
    assert {"QuantizeLinear", "DequantizeLinear"} < {node.op_type for node in graph.node}
    scales = {t.name: tuple(t.dims) for t in graph.initializer if t.name.startswith("stem") and "scale" in t.name}
    assert set(scales.values()) == {(CHANNELS,)}


@pytest.mark.parametrize("preset", PRESETS)
def test_dynamic_leaves_convolutions_alone(
    preset: Preset, source: Path, tmp_path: Path, weights: dict[str, Array], rng: np.random.Generator
) -> None:
    out = tmp_path / "quantized.onnx"
    quantize_with_optimum(source, out=out, preset=preset, feeds=None)
    x = pixels(rng, 16)
    assert 0.999 < worst_cosine(run(out, x), by_numpy(weights, x)) < 0.9999999
    operators = {node.op_type for node in onnx.load(str(out)).graph.node}
    assert "MatMulInteger" in operators and "Conv" in operators and "ConvInteger" not in operators
    expected = TensorProto.UINT8 if preset == "avx2" else TensorProto.INT8
    assert weight_types(out) == {"kernel": {TensorProto.FLOAT}, "matrix": {expected}}


def test_ranges_are_those_of_the_feeds(source: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    out = tmp_path / "quantized.onnx"
    feeds = [{"x": pixels(rng, 1) * 0.25}, {"x": np.full((1, 3, SIDE, SIDE), 4, np.float32)}]
    quantize_with_optimum(source, out=out, preset="arm64", feeds=feeds)
    scale = next(tensor for tensor in onnx.load(str(out)).graph.initializer if tensor.name == "x_scale")
    least = min(float(feed["x"].min()) for feed in feeds)
    assert numpy_helper.to_array(scale) == pytest.approx((4 - least) / 255, rel=1e-6)


def test_nothing_is_left_and_nothing_is_said(
    source: Path,
    tmp_path: Path,
    rng: np.random.Generator,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "config.json").write_text("a file that optimum would try to read, and fail")
    out = tmp_path / "out" / "quantized.onnx"
    out.parent.mkdir()
    quantize_with_optimum(source, out=out, preset="arm64", feeds=[{"x": pixels(rng, 2)}])
    quantize_with_optimum(source, out=out, preset="arm64", feeds=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "image.onnx", "out"]
    assert [path.name for path in out.parent.iterdir()] == ["quantized.onnx"]
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.records) == ("", "", [])


def test_a_missing_extra_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["optimum", *(name for name in sys.modules if name.startswith("optimum."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPart, match=r'pip install "pocketlens\[optimum\]"'):
        quantize_with_optimum(source, out=tmp_path / "quantized.onnx", preset="arm64", feeds=None)


def test_what_cannot_be_quantized_is_refused(source: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    out = tmp_path / "quantized.onnx"
    with pytest.raises(Refused, match=r"image\.onnx cannot be quantized by optimum's preset avx2: .*INVALID_ARGUMENT"):
        quantize_with_optimum(source, out=out, preset="avx2", feeds=[{"x": np.zeros((1, 3, 1, 1), np.float32)}])
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(b"not a graph")
    with pytest.raises(Refused, match=r"foreign\.onnx cannot be quantized") as caught:
        quantize_with_optimum(foreign, out=out, preset="avx2", feeds=None)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="at least one feed"):
        quantize_with_optimum(source, out=out, preset="avx2", feeds=[])
    assert not out.exists()
