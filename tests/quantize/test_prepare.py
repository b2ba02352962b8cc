from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from pocketlens_quantize.graph import constants
from pocketlens_quantize.prepare import prepare
from tests.quantize import towers
from tests.quantize.test_graph import float_input, gemm
from tests.quantize.towers import Graph, run


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
