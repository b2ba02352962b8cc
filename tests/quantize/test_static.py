from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketlens_quantize import static
from pocketlens_quantize.graph import constants, consumers, copy_of, producers, weighted_nodes
from pocketlens_quantize.prepare import prepare
from pocketlens_quantize.static import Calibration, StaticGraph, keep_float, read_pixels_directly
from pocketlens_quantize.target import Target
from tests.quantize import towers
from tests.quantize.towers import CHANNELS, Array, Graph, cosine, operators, run, run_all

VNNI = Target("x86-64-vnni", "uint8", reduce_range=False, preset="avx512_vnni", timed_here=False)
ANY_X86 = Target("x86-64", "uint8", reduce_range=True, preset="avx2", timed_here=False)
ARM = Target("arm64", "int8", reduce_range=False, preset="arm64", timed_here=False)
TARGETS = pytest.mark.parametrize("target", [VNNI, ANY_X86, ARM], ids=lambda target: target.name)


@pytest.fixture(scope="module")
def image() -> onnx.ModelProto:
    """The prepared image tower; read-only."""
    return prepare(towers.image_tower())


@pytest.fixture(scope="module")
def image_static(image: onnx.ModelProto) -> StaticGraph:
    return StaticGraph(image, towers.picture_feeds(32), calibration="minmax", smooth=False)


@pytest.fixture(scope="module")
def text() -> onnx.ModelProto:
    """The prepared text tower; read-only."""
    return prepare(towers.text_tower())


@pytest.fixture(scope="module")
def text_static(text: onnx.ModelProto) -> StaticGraph:
    return StaticGraph(text, towers.text_feeds(32), calibration="minmax", smooth=True)


def names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in weighted_nodes(model)]


def int8_weights(model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return codes and scales of the weights of more than one axis, by the name of what is dequantized."""
    known = constants(model)
    return {
        node.output[0]: (numpy_helper.to_array(known[node.input[0]]), numpy_helper.to_array(known[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in known and len(known[node.input[0]].dims) > 1
    }


@TARGETS
def test_an_int8_image_tower_is_near_float(image: onnx.ModelProto, image_static: StaticGraph, target: Target) -> None:
    quantized = image_static.quantize(names(image), target)
    onnx.checker.check_model(quantized)
    fresh = towers.picture_feeds(32, seed=9)
    near = cosine(run_all(quantized, fresh), run_all(image, fresh))
    assert 0.97 < near.mean() < 0.9999  # and something was rounded


@TARGETS
def test_an_int8_text_tower_is_near_float(text: onnx.ModelProto, text_static: StaticGraph, target: Target) -> None:
    quantized = text_static.quantize(names(text), target)
    onnx.checker.check_model(quantized)
    fresh = towers.text_feeds(32, seed=9)
    near = cosine(run_all(quantized, fresh), run_all(text, fresh))
    assert 0.98 < near.mean() < 0.9999


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_every_calibration_makes_a_tower_that_is_near(text: onnx.ModelProto, calibration: Calibration) -> None:
    graph = StaticGraph(text, towers.text_feeds(32), calibration=calibration, smooth=True)
    fresh = towers.text_feeds(32, seed=9)
    assert cosine(run_all(graph.quantize(names(text), VNNI), fresh), run_all(text, fresh)).mean() > 0.98


def test_calibrations_differ(image: onnx.ModelProto) -> None:
    feeds = towers.picture_feeds(32)
    written = {
        StaticGraph(image, feeds, calibration=calibration, smooth=False)
        .quantize(names(image), VNNI)
        .SerializeToString()
        for calibration in ("minmax", "percentile")
    }
    assert len(written) == 2


def test_smoothing_pays_where_a_channel_is_an_outlier(text: onnx.ModelProto, text_static: StaticGraph) -> None:
    plain = StaticGraph(text, towers.text_feeds(32), calibration="minmax", smooth=False)
    fresh = towers.text_feeds(32, seed=9)
    expected = run_all(text, fresh)
    errors = [
        1 - cosine(run_all(graph.quantize(names(text), VNNI), fresh), expected).mean() for graph in (text_static, plain)
    ]
    assert errors[0] < errors[1] / 4


@TARGETS
def test_a_text_does_not_depend_on_its_batch_or_padding(
    text: onnx.ModelProto, text_static: StaticGraph, target: Target
) -> None:
    quantized = text_static.quantize(names(text), target)
    feeds = towers.text_feeds(24, seed=9)
    alone, batched = run_all(quantized, feeds), run_all(quantized, towers.text_batches(feeds))
    assert cosine(batched, alone).min() >= 0.9999


def test_a_picture_does_not_depend_on_its_batch(image: onnx.ModelProto, image_static: StaticGraph) -> None:
    quantized = image_static.quantize(names(image), VNNI)
    feeds = towers.picture_feeds(16, seed=9)
    alone, batched = run_all(quantized, feeds), run_all(quantized, towers.picture_batches(feeds))
    np.testing.assert_allclose(batched, alone, atol=1e-6)


@pytest.mark.parametrize(("target", "kind"), [(VNNI, np.uint8), (ANY_X86, np.uint8), (ARM, np.int8)])
def test_activations_have_the_type_of_the_target(
    text: onnx.ModelProto, text_static: StaticGraph, target: Target, kind: type
) -> None:
    quantized = text_static.quantize(names(text), target)
    known = constants(quantized)
    zeros = [numpy_helper.to_array(known[n.input[2]]) for n in quantized.graph.node if n.op_type == "QuantizeLinear"]
    assert zeros and {zero.dtype for zero in zeros} == {np.dtype(kind)}


@TARGETS
def test_weights_are_int8_with_a_scale_per_output_channel(
    image: onnx.ModelProto, image_static: StaticGraph, target: Target
) -> None:
    quantized = image_static.quantize(names(image), target)
    found, makers, most = int8_weights(quantized), producers(quantized), 64 if target.reduce_range else 127
    originals = {node.name: numpy_helper.to_array(constants(image)[node.input[1]]) for node in weighted_nodes(image)}
    products = [node for node in quantized.graph.node if node.name in originals]
    assert len(products) == len(found) == len(originals) == 7
    for node in products:
        weight, axis = originals[node.name], 1 if node.op_type == "Gemm" else 0
        codes, scales = found[makers[node.input[1]].output[0]]
        assert codes.dtype == np.int8 and scales.shape == (weight.shape[axis],)
        others = tuple(other for other in range(weight.ndim) if other != axis)
        assert (np.abs(codes.astype(int)).max(axis=others) == most).all()  # the largest of each channel is at the end
        shape = [-1 if other == axis else 1 for other in range(weight.ndim)]
        np.testing.assert_allclose(codes * scales.reshape(shape), weight, atol=float(scales.max()) * 0.51)


def test_what_is_not_named_stays_as_it_was(text: onnx.ModelProto, text_static: StaticGraph) -> None:
    chosen = names(text)[:4]
    quantized = text_static.quantize(chosen, VNNI)
    before, after = ({node.name: node for node in model.graph.node} for model in (text, quantized))
    for name in names(text)[4:]:
        assert list(after[name].input) == list(before[name].input)
        weight = before[name].input[1]
        kept, original = (numpy_helper.to_array(constants(model)[weight]) for model in (quantized, text))
        np.testing.assert_array_equal(kept, original)
    assert len(int8_weights(quantized)) == len(chosen)


def test_quantizing_nothing_computes_what_float_does(text: onnx.ModelProto, text_static: StaticGraph) -> None:
    feeds = towers.text_feeds(8, seed=9)
    np.testing.assert_allclose(run_all(text_static.quantize([], VNNI), feeds), run_all(text, feeds), atol=1e-5)


def test_the_clamps_behind_int8_convolutions_become_ranges(image: onnx.ModelProto, image_static: StaticGraph) -> None:
    assert "Clip" in operators(image)
    quantized = image_static.quantize(names(image), VNNI)
    assert "Clip" not in operators(quantized)
    without = [name for name in names(image) if name != "deep.sums.Conv"]
    kept = [node.name for node in image_static.quantize(without, VNNI).graph.node if node.op_type == "Clip"]
    assert kept == ["deep.Clip"]


@TARGETS
def test_reading_pixels_directly_computes_the_same(
    image: onnx.ModelProto, image_static: StaticGraph, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = image_static.quantize(names(image), target)
    monkeypatch.setattr(static, "read_pixels_directly", lambda model: False)
    indirect = image_static.quantize(names(image), target)
    assert "Cast" in operators(indirect) and "Cast" not in operators(direct)
    assert len(direct.graph.node) <= len(indirect.graph.node) - 4  # the cast, factor, shift and rounding of pixels
    feeds = towers.picture_feeds(24, seed=9)
    assert cosine(run_all(direct, feeds), run_all(indirect, feeds)).min() > 0.9999
    changed = copy_of(indirect)
    assert read_pixels_directly(changed)
    assert cosine(run_all(changed, feeds), run_all(indirect, feeds)).min() > 0.9999


@pytest.mark.parametrize("unequal", [["scale"], ["shift"], ["scale", "shift"]])
def test_pixels_that_are_scaled_by_channel_cannot_be_read_directly(unequal: list[str]) -> None:
    model = prepare(towers.image_tower())
    for tensor in model.graph.initializer:
        if tensor.name in unequal:
            changed = numpy_helper.to_array(tensor) * np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    quantized = StaticGraph(model, towers.picture_feeds(16), calibration="minmax", smooth=False).quantize(
        names(model), VNNI
    )
    assert "Cast" in operators(quantized)
    before = quantized.SerializeToString()
    assert not read_pixels_directly(quantized)
    assert quantized.SerializeToString() == before


def test_a_graph_without_pixels_is_left_alone(text: onnx.ModelProto, text_static: StaticGraph) -> None:
    quantized = text_static.quantize(names(text), VNNI)
    before = quantized.SerializeToString()
    assert not read_pixels_directly(quantized)
    assert quantized.SerializeToString() == before


@pytest.mark.parametrize("node", ["deep.sums.Conv", "wide.Conv"])
def test_a_float_node_behind_int8_ones_stays_float(
    image: onnx.ModelProto, image_static: StaticGraph, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = towers.picture_feeds(16, seed=9)
    mixed = image_static.quantize([name for name in names(image) if name != node], VNNI)
    as_written = np.concatenate([run(mixed, feed, optimized=False) for feed in feeds])
    errors = [1 - cosine(run_all(mixed, feeds), as_written).min()]
    monkeypatch.setattr(static, "keep_float", lambda model: None)
    careless = image_static.quantize([name for name in names(image) if name != node], VNNI)
    as_written = np.concatenate([run(careless, feed, optimized=False) for feed in feeds])
    errors.append(1 - cosine(run_all(careless, feeds), as_written).min())
    assert errors[0] < 1e-3 and errors[1] > 1e-2  # should onnxruntime stop rounding it, keep_float can go


def test_a_float_gemm_between_int8_values_computes_what_is_written(rng: np.random.Generator) -> None:
    graph = Graph()
    graph.constant("step", np.array(0.05, np.float32))
    graph.constant("zero", np.array(128, np.uint8))

    def rounded(out: str, value: str) -> str:
        return graph.add("DequantizeLinear", out, graph.add("QuantizeLinear", f"{out}.codes", value, "step", "zero"),
                         "step", "zero")  # fmt: skip

    weight = (rng.standard_normal((16, 8)) * np.geomspace(0.01, 0.5, 8)).astype(np.float32)  # columns differ in size
    graph.constant("weight", weight)
    graph.constant("bias", np.zeros(8, np.float32))
    rounded("y", graph.add("Gemm", "sums", rounded("value", "x"), "weight", "bias"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])
    model = graph.model([x], out="y", dims=["n", 8])
    feed = {"x": rng.uniform(-3, 3, (64, 16)).astype(np.float32)}

    def steps(value: Array) -> Array:
        return np.clip(np.rint(value / np.float32(0.05)), -128, 127)

    expected = steps((steps(feed["x"]) * np.float32(0.05)) @ weight)
    careless = (steps(run(model, feed)) != expected).mean()
    keep_float(model)
    assert (steps(run(model, feed)) != expected).mean() < 0.01 < careless


def test_depthwise_weights_are_told_their_channels(image: onnx.ModelProto, image_static: StaticGraph) -> None:
    mixed = image_static.quantize([name for name in names(image) if name != "deep.sums.Conv"], VNNI)
    deep = next(node for node in mixed.graph.node if node.name == "deep.sums.Conv")
    scale = constants(mixed)[producers(mixed)[deep.input[0]].input[1]]
    assert list(scale.dims) == [CHANNELS]
    assert all(len(readers) for readers in consumers(mixed).values())
