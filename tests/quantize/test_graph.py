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
    prepare,
    producers,
    prune,
    quiet,
    replace_nodes,
    split_gemms,
    take_constant,
    weighted_nodes,
)
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


@pytest.mark.parametrize("seed", [0, 3])
def test_preparing_the_text_tower_keeps_what_it_computes(seed: int) -> None:
    model = towers.text_tower(seed=seed)
    batches = towers.text_batches(towers.text_feeds(16, seed=seed))
    for feed in batches:
        np.testing.assert_allclose(run(prepare(model), feed), run(model, feed), atol=1e-5)


def test_preparing_the_image_tower_keeps_what_it_computes() -> None:
    model = towers.image_tower()
    feeds = towers.picture_feeds(8)
    np.testing.assert_allclose(towers.run_all(prepare(model), feeds), towers.run_all(model, feeds), atol=1e-5)


def test_preparing_leaves_the_model_itself_alone() -> None:
    model = towers.text_tower()
    before = model.SerializeToString()
    prepare(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    "attributes", [{}, {"transB": 1}, {"alpha": 0.5}, {"beta": 3.0}, {"transB": 1, "alpha": 2.0, "beta": 0.25}]
)
def test_gemms_get_weights_by_column_and_no_factors(attributes: dict[str, Any], rng: np.random.Generator) -> None:
    model = gemm(rng, **attributes)
    prepared = prepare(model)
    [node] = prepared.graph.node
    assert (node.op_type, len(node.attribute)) == ("Gemm", 0)
    assert list(constants(prepared)[node.input[1]].dims) == [7, 5]
    feed = {"x": rng.standard_normal((3, 7)).astype(np.float32)}
    np.testing.assert_allclose(run(prepared, feed), run(model, feed), atol=1e-5)


def test_a_turned_factor_is_left_as_it_is(rng: np.random.Generator) -> None:
    graph = Graph()
    graph.add("Gemm", "y", "x", graph.constant("w", rng.standard_normal((7, 5)).astype(np.float32)), transA=1)
    model = graph.model([float_input(7, "n")], out="y")
    feed = {"x": rng.standard_normal((7, 3)).astype(np.float32)}
    np.testing.assert_allclose(run(prepare(model), feed), run(model, feed), atol=1e-5)


@pytest.mark.parametrize("lowest", [-np.inf, np.finfo(np.float32).min])
def test_masks_are_made_finite_and_mask_as_before(lowest: float, rng: np.random.Generator) -> None:
    graph = Graph()
    mask = np.triu(np.full((6, 6), lowest, np.float32), 1)
    graph.constant("mask", mask)
    graph.add("Softmax", "y", graph.add("Add", "masked", "x", "mask"), axis=-1)
    model = graph.model([float_input("n", 6, 6)], out="y")
    prepared = prepare(model)
    [found] = [numpy_helper.to_array(tensor) for tensor in prepared.graph.initializer]
    assert np.isfinite(found).all() and (found[mask == 0] == 0).all()
    feed = {"x": 50 * rng.standard_normal((2, 6, 6)).astype(np.float32)}
    np.testing.assert_array_equal(run(prepared, feed), run(model, feed))


def test_small_negative_weights_are_no_mask(rng: np.random.Generator) -> None:
    graph = Graph()
    weight = np.array([-1e9, -2e4, -1, 0, 3], np.float32)
    graph.add("Mul", "y", "x", graph.constant("w", weight))
    prepared = prepare(graph.model([float_input("n", 5)], out="y"))
    [found] = [numpy_helper.to_array(tensor) for tensor in prepared.graph.initializer]
    np.testing.assert_array_equal(found, weight)


def test_a_prepared_tower_imports_only_the_operators_that_it_uses() -> None:
    prepared = prepare(towers.text_tower())
    assert {entry.domain for entry in prepared.opset_import} == {""}


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
