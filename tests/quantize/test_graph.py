from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pocketlens_quantize.graph import (
    constants,
    consumers,
    copy_of,
    expose,
    producers,
    prune,
    quiet,
    replace_nodes,
    split_gemms,
    take_constant,
    weighted_nodes,
)
from pocketlens_quantize.prepare import prepare
from tests.quantize import towers
from tests.quantize.towers import Array, Graph, run


def float_input(*dims: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)


def gemm(rng: np.random.Generator, *, bias: bool = True, **attributes: Any) -> onnx.ModelProto:
    graph = Graph()
    shape = (5, 7) if attributes.get("transB") else (7, 5)
    inputs = [graph.constant("w", rng.standard_normal(shape).astype(np.float32))]
    inputs += [graph.constant("b", rng.standard_normal(5).astype(np.float32))] if bias else []
    graph.add("Gemm", "y", "x", *inputs, **attributes)
    return graph.model([float_input("n", 7)], out="y")


@pytest.mark.parametrize("bias", [True, False])
def test_split_gemms_compute_the_same(bias: bool, rng: np.random.Generator) -> None:
    model = prepare(gemm(rng, bias=bias, transB=1))
    split = copy_of(model)
    split_gemms(split, [node.name for node in model.graph.node])
    assert [node.op_type for node in split.graph.node] == (["MatMul", "Add"] if bias else ["MatMul"])
    assert split.graph.node[0].name == model.graph.node[0].name
    feed = {"x": rng.standard_normal((3, 7)).astype(np.float32)}
    np.testing.assert_allclose(run(split, feed), run(model, feed), atol=1e-5)


def test_gemms_that_are_not_named_stay(rng: np.random.Generator) -> None:
    model = prepare(gemm(rng))
    before = model.SerializeToString()
    split_gemms(model, ["another"])
    assert model.SerializeToString() == before


def test_weighted_nodes_are_those_with_a_constant_weight() -> None:
    names = [node.name for node in weighted_nodes(prepare(towers.text_tower()))]
    layer = ["attention.q", "attention.k", "attention.v", "out", "up", "down"]
    expected = [f"layer{number}.{part}.product.MatMul" for number in range(2) for part in layer]
    assert names == [*expected, "head.Gemm"]  # and not the two products of attention, which have no weight


def test_exposed_values_are_further_outputs() -> None:
    model = prepare(towers.image_tower())
    exposed = expose(model, ["wide", "narrow"])
    assert [value.name for value in exposed.graph.output] == ["embedding", "wide", "narrow"]
    assert [value.name for value in model.graph.output] == ["embedding"]


def test_a_taken_constant_is_gone(rng: np.random.Generator) -> None:
    model = gemm(rng)
    expected = numpy_helper.to_array(constants(model)["w"])
    np.testing.assert_array_equal(take_constant(model, "w"), expected)
    assert set(constants(model)) == {"b"}


def test_quiet_swallows_prints_and_puts_everything_back(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print("a remark")
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("onnxruntime").error("an error")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("onnxruntime").isEnabledFor(logging.ERROR)
    with pytest.warns(UserWarning, match="heard again"):
        warnings.warn("heard again", stacklevel=1)


@st.composite
def random_graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """A graph of sums whose nodes read any earlier value or constant; some of them lead nowhere."""
    graph = Graph()
    values = ["x"]
    for number in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            values.append(graph.constant(f"c{number}", np.full(2, number, np.float32)))
        parts = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
        values.append(graph.add("Sum", f"v{number}", *parts))
    out = draw(st.sampled_from([name for name in values if name.startswith("v")]))
    return graph.model([float_input(2)], out=out, dims=[2])


@given(random_graphs())
@settings(max_examples=40, deadline=None)
def test_pruning_keeps_what_is_needed_and_nothing_else(model: onnx.ModelProto) -> None:
    feed: dict[str, Array] = {"x": np.array([1.5, -2], np.float32)}
    expected = run(model, feed)
    pruned = copy_of(model)
    prune(pruned)
    onnx.checker.check_model(pruned)
    np.testing.assert_array_equal(run(pruned, feed), expected)
    readers = consumers(pruned)
    outputs = {value.name for value in pruned.graph.output}
    assert all(readers.get(name) or name in outputs for name in producers(pruned))
    assert all(name in readers for name in constants(pruned))


def test_nodes_of_the_graph_itself_can_be_what_replaces_them() -> None:
    model = towers.image_tower()
    before = [node.name for node in model.graph.node]
    replace_nodes(model, model.graph.node)
    assert [node.name for node in model.graph.node] == before
