from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pocketlens_quantize.graph import constants
from pocketlens_quantize.silent import cut_silent_channels
from tests.quantize.towers import Array, Graph, run

WIDTH = 6


def bottleneck(
    silent: Sequence[int], *, low: float = 0.0, offset: float = 0.0, shown: bool = False, clamp: str = "Clip"
) -> onnx.ModelProto:
    """Return 1x1 convolution, clamp, 3x3 depthwise, clamp, 1x1 convolution; inner channels `silent` are 0."""
    rng, graph = np.random.default_rng(3), Graph()
    weights = {
        "wide": rng.standard_normal((WIDTH, 3, 1, 1)),
        "wide_bias": rng.standard_normal(WIDTH),
        "deep": rng.standard_normal((WIDTH, 1, 3, 3)),
        "deep_bias": rng.standard_normal(WIDTH),
        "thin": rng.standard_normal((4, WIDTH, 1, 1)),
    }
    for name in ("wide", "wide_bias", "deep_bias"):
        weights[name][list(silent)] = 0
    weights["deep_bias"][list(silent)] = offset
    for name, value in weights.items():
        graph.constant(name, value.astype(np.float32))
    bounds = (
        [graph.constant("low", np.array(low, np.float32)), graph.constant("high", np.array(6, np.float32))]
        if clamp == "Clip"
        else []
    )
    graph.add("Conv", "a", "x", "wide", "wide_bias")
    graph.add(clamp, "b", "a", *bounds)
    graph.add("Conv", "c", "b", "deep", "deep_bias", group=WIDTH, pads=[1, 1, 1, 1])
    graph.add(clamp, "d", "c", *bounds)
    graph.add("Conv", "y", "d", "thin")
    model = graph.model([helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5, 5])], out="y")
    if shown:
        model.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, None))
    return model


def feed() -> dict[str, Array]:
    return {"x": np.random.default_rng(4).standard_normal((2, 3, 5, 5)).astype(np.float32)}


@given(st.sets(st.integers(0, WIDTH - 1)))
@settings(max_examples=30, deadline=None)
def test_silent_channels_go_and_every_value_stays(silent: set[int]) -> None:
    model = bottleneck(sorted(silent))
    before = run(model, feed())
    assert cut_silent_channels(model) == min(len(silent), WIDTH - 1)
    np.testing.assert_allclose(run(model, feed()), before, atol=1e-5)
    left = max(WIDTH - len(silent), 1)
    known = {name: list(tensor.dims) for name, tensor in constants(model).items()}
    assert (known["wide"], known["deep"], known["thin"]) == ([left, 3, 1, 1], [left, 1, 3, 3], [4, left, 1, 1])
    onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True)


def test_relu_keeps_zero_too() -> None:
    model = bottleneck([2], clamp="Relu")
    before = run(model, feed())
    assert cut_silent_channels(model) == 1
    np.testing.assert_allclose(run(model, feed()), before, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(bottleneck([1, 2], low=0.5), id="the clamp makes zero something else"),
        pytest.param(bottleneck([1, 2], offset=0.25), id="the depthwise convolution adds to zero"),
        pytest.param(bottleneck([1, 2], shown=True), id="the graph gives the channels as an output"),
        pytest.param(bottleneck([]), id="none is silent"),
    ],
)
def test_channels_that_matter_stay(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert cut_silent_channels(model) == 0
    assert model.SerializeToString() == before


def test_weights_that_two_convolutions_share_stay() -> None:
    model = bottleneck([1, 2])
    model.graph.node.append(helper.make_node("Conv", ["x", "wide", "wide_bias"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    assert cut_silent_channels(model) == 0
