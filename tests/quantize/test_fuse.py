from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pocketlens_quantize.fuse import fuse_attention, fuse_products
from pocketlens_quantize.graph import copy_of
from pocketlens_quantize.prepare import prepare
from pocketlens_quantize.static import StaticGraph
from pocketlens_quantize.target import Target
from tests.quantize import towers
from tests.quantize.towers import HEADS, Floats, Graph, attention, operators, run

WIDTH, N, LENGTH = 16, 3, 5
X = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "l", WIDTH])]
# 7-bit weights: a sum of 8-bit ones overflows on x86-64 without VNNI.
U8 = Target("x86-64", "uint8", reduce_range=True, preset="avx2", timed_here=False)
S8 = Target("arm64", "int8", reduce_range=True, preset="arm64", timed_here=False)


def projections(rng: np.random.Generator) -> list[tuple[Floats, Floats]]:
    return [(rng.standard_normal((WIDTH, WIDTH)).astype(np.float32), rng.standard_normal(WIDTH).astype(np.float32))
            for _ in range(3)]  # fmt: skip


def by_numpy(x: Floats, weights: Sequence[tuple[Floats, Floats]], mask: Floats | float, scale: float) -> Floats:
    """Attention as the paper has it: softmax(q k' * scale + mask) v, head by head."""
    q, k, v = (
        (x @ w + b).reshape(*x.shape[:2], HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3).astype(np.float64)
        for w, b in weights
    )
    scores = q @ k.transpose(0, 1, 3, 2) * scale + mask
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = shares / shares.sum(axis=-1, keepdims=True) @ v
    return np.asarray(mixed.transpose(0, 2, 1, 3).reshape(*x.shape[:2], WIDTH), dtype=np.float32)


def some_blocked(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return an additive mask; of a row that is blocked as a whole, float32 knows no more than three digits."""
    mask = np.where(rng.random(shape) < 0.3, -1e4, 0).astype(np.float32)
    mask[..., 0] = 0
    return mask


@pytest.mark.parametrize("scale", [0.5, 0.125])
@pytest.mark.parametrize("mask", [None, (1, 1, LENGTH, LENGTH), (N, 1, LENGTH, LENGTH), (N, HEADS, LENGTH, LENGTH)])
def test_fused_attention_is_attention(mask: tuple[int, ...] | None, scale: float, rng: np.random.Generator) -> None:
    weights = projections(rng)
    added = None if mask is None else some_blocked(rng, mask)
    graph = Graph()
    name = None if added is None else graph.constant("mask", added)
    attention(graph, "y", "x", weights, name, scale)
    model = graph.model(X, out="y")
    x = rng.standard_normal((N, LENGTH, WIDTH)).astype(np.float32)
    written = run(model, {"x": x})
    assert fuse_attention(model) == 1
    assert "MultiHeadAttention" in operators(model) and "Softmax" not in operators(model)
    found = run(model, {"x": x})
    np.testing.assert_allclose(found, by_numpy(x, weights, 0.0 if added is None else added, scale), atol=1e-5)
    np.testing.assert_allclose(found, written, atol=1e-5)


@pytest.mark.parametrize("shape", [(LENGTH, LENGTH), (N, 1, 1, LENGTH), (1, 1, 1, LENGTH)])
def test_masks_of_any_shape_that_can_be_added_still_run(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    graph = Graph()
    added = some_blocked(rng, shape)
    weights = projections(rng)
    attention(graph, "y", "x", weights, graph.constant("mask", added), 0.5)
    model = graph.model(X, out="y")
    fuse_attention(model)
    x = rng.standard_normal((N, LENGTH, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(run(model, {"x": x}), by_numpy(x, weights, added, 0.5), atol=1e-5)


def test_the_text_tower_computes_the_same_with_its_attention_fused() -> None:
    model = prepare(towers.text_tower())
    fused = copy_of(model)
    assert fuse_attention(fused) == 2
    for feed in towers.text_batches(towers.text_feeds(16)):  # padded: the mask matters
        np.testing.assert_allclose(run(fused, feed), run(model, feed), atol=1e-5)


def test_scales_of_query_and_key_are_multiplied(rng: np.random.Generator) -> None:
    weights, graph = projections(rng), Graph()
    attention(graph, "y", "x", weights, None, 0.5)
    graph.constant("key.scale", np.array(0.75, np.float32))
    place = next(i for i, node in enumerate(graph.nodes) if node.output[0] == "y.scores")
    graph.nodes[place].input[1] = "key"
    graph.nodes.insert(place, helper.make_node("Mul", ["y.k.heads", "key.scale"], ["key"], name="key"))
    model = graph.model(X, out="y")
    assert fuse_attention(model) == 1
    x = rng.standard_normal((N, LENGTH, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(run(model, {"x": x}), by_numpy(x, weights, 0.0, 0.375), atol=1e-5)


def test_keys_turned_by_way_of_three_axes_are_fused(rng: np.random.Generator) -> None:
    weights, graph = projections(rng), Graph()
    attention(graph, "y", "x", weights, None, 0.5)
    changed(graph, "y.k.heads", perm=[0, 2, 1, 3])
    d = WIDTH // HEADS
    for name, shape in (("flat", [-1, LENGTH, d]), ("full", [-1, HEADS, d, LENGTH])):
        graph.constant(name, np.array(shape))
    place = next(i for i, node in enumerate(graph.nodes) if node.output[0] == "y.scores")
    graph.nodes[place].input[1] = "key"
    graph.nodes[place:place] = [
        helper.make_node("Reshape", ["y.k.heads", "flat"], ["key.flat"], name="key.flat"),
        helper.make_node("Transpose", ["key.flat"], ["key.turned"], name="key.turned", perm=[0, 2, 1]),
        helper.make_node("Reshape", ["key.turned", "full"], ["key"], name="key"),
    ]
    model = graph.model(X, out="y")
    assert fuse_attention(model) == 1
    x = rng.standard_normal((N, LENGTH, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(run(model, {"x": x}), by_numpy(x, weights, 0.0, 0.5), atol=1e-5)


def test_projections_without_a_bias_are_fused(rng: np.random.Generator) -> None:
    weights = [(weight, np.zeros(WIDTH, np.float32)) for weight, _ in projections(rng)]
    graph = Graph()
    attention(graph, "y", "x", weights, None, 0.5)
    for node in graph.nodes:  # read the product where the sum with the bias was read
        for i, name in enumerate(node.input):
            if re.fullmatch(r"y\.[qkv]", name):
                node.input[i] = f"{name}.product"
    model = graph.model(X, out="y")
    assert fuse_attention(model) == 1
    x = rng.standard_normal((N, LENGTH, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(run(model, {"x": x}), by_numpy(x, weights, 0.0, 0.5), atol=1e-5)


def changed(graph: Graph, name: str, **attributes: object) -> None:
    node = next(node for node in graph.nodes if node.output[0] == name)
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())


def _packed(graph: Graph, weights: Sequence[tuple[Floats, Floats]]) -> None:
    """One projection for all three."""
    attention(graph, "y", "x", weights, None, 0.5)
    for node in graph.nodes:
        if node.output[0] in ("y.k.split", "y.v.split"):
            node.input[0] = "y.q"


def _sequence_first(graph: Graph, weights: Sequence[tuple[Floats, Floats]]) -> None:
    """x is (l, n, width): heads attend along the first axis."""
    attention(graph, "y", "x", weights, None, 0.5)
    for name, perm in (("q.heads", [1, 2, 0, 3]), ("k.heads", [1, 2, 3, 0]), ("v.heads", [1, 2, 0, 3])):
        changed(graph, f"y.{name}", perm=perm)
    changed(graph, "y.back", perm=[2, 0, 1, 3])


def _over_heads(graph: Graph, weights: Sequence[tuple[Floats, Floats]]) -> None:
    """The heads of a token attend to each other, which has the same shapes where there are as many tokens."""
    attention(graph, "y", "x", weights, None, 0.5)
    for name, perm in (("q", [0, 1, 2, 3]), ("k", [0, 1, 3, 2]), ("v", [0, 1, 2, 3])):
        changed(graph, f"y.{name}.heads", perm=perm)


def _scaled_values(graph: Graph, weights: Sequence[tuple[Floats, Floats]]) -> None:
    attention(graph, "y", "x", weights, None, 0.5)
    graph.constant("two", np.array(2, np.float32))
    place = next(i for i, node in enumerate(graph.nodes) if node.output[0] == "y.mixed")
    graph.nodes[place].input[1] = "doubled"
    graph.nodes.insert(place, helper.make_node("Mul", ["y.v.heads", "two"], ["doubled"], name="doubled"))


def _scale_by_head(graph: Graph, weights: Sequence[tuple[Floats, Floats]]) -> None:
    attention(graph, "y", "x", weights, None, 0.5)
    graph.tensors["y.scale"] = np.arange(1, HEADS + 1, dtype=np.float32).reshape(1, HEADS, 1, 1)


def _shares_read_twice(graph: Graph, weights: Sequence[tuple[Floats, Floats]]) -> None:
    attention(graph, "inner", "x", weights, None, 0.5)
    whole = graph.add("ReduceSum", "whole", graph.add("ReduceMax", "peaks", "inner.shares", keepdims=0), keepdims=0)
    graph.add("Add", "y", "inner", whole)


def _softmax_over_queries(graph: Graph, weights: Sequence[tuple[Floats, Floats]]) -> None:
    attention(graph, "y", "x", weights, None, 0.5)
    changed(graph, "y.shares", axis=2)


@pytest.mark.parametrize(
    "form",
    [
        _packed, _sequence_first, _over_heads, _scaled_values, _scale_by_head, _shares_read_twice,
        _softmax_over_queries,
    ],
)  # fmt: skip
def test_attention_of_another_form_is_left_as_it_is(form: object, rng: np.random.Generator) -> None:
    graph = Graph()
    assert callable(form)
    form(graph, projections(rng))
    model = graph.model(X, out="y")
    feed = {"x": rng.standard_normal((N, HEADS, WIDTH)).astype(np.float32)}
    expected = run(model, feed)
    before = model.SerializeToString()
    assert fuse_attention(model) == 0
    assert model.SerializeToString() == before
    np.testing.assert_array_equal(run(model, feed), expected)


def quantized(target: Target) -> onnx.ModelProto:
    model = prepare(towers.text_tower(outlier=1))
    static = StaticGraph(model, towers.text_feeds(16), calibration="minmax", smooth=True)
    return static.quantize([node.name for node in model.graph.node if node.name.endswith("product.MatMul")], target)


@pytest.mark.parametrize("target", [U8, S8], ids=["uint8", "int8"])
def test_fused_products_compute_the_same(target: Target) -> None:
    model = quantized(target)
    fused = copy_of(model)
    assert fuse_products(fused) == 12
    made = [node for node in fused.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(made) == 12 and all(node.input[6] for node in made)  # each with its bias
    feeds = towers.text_feeds(16)
    expected = np.concatenate([run(model, feed, optimized=False) for feed in feeds])
    np.testing.assert_allclose(towers.run_all(fused, feeds), expected, atol=1e-5)


@pytest.mark.parametrize("target", [U8, S8], ids=["uint8", "int8"])
def test_products_of_fused_attention_compute_the_same(target: Target) -> None:
    model = quantized(target)
    fused = copy_of(model)
    assert (fuse_attention(fused), fuse_products(fused)) == (2, 12)
    assert not operators(fused) & {"MatMul", "Softmax"}
    batches = towers.text_batches(towers.text_feeds(16))
    expected = np.concatenate([run(model, feed, optimized=False) for feed in batches])
    assert towers.cosine(towers.run_all(fused, batches), expected).min() > 0.9999


def test_a_sum_with_another_value_is_no_bias(rng: np.random.Generator) -> None:
    graph = Graph()
    for name, value in (("step", np.float32(0.02)), ("zero", np.uint8(128)), ("wzero", np.int8(0))):
        graph.constant(name, np.array(value))
    graph.constant("codes", rng.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8))
    codes = graph.add("QuantizeLinear", "xcodes", "x", "step", "zero")
    rounded = graph.add("DequantizeLinear", "rounded", codes, "step", "zero")
    weight = graph.add("DequantizeLinear", "weight", "codes", "step", "wzero")
    graph.add("Add", "y", graph.add("MatMul", "product", rounded, weight), "x")
    model = graph.model(X, out="y")
    feed = {"x": rng.uniform(-2, 2, (N, LENGTH, WIDTH)).astype(np.float32)}
    steps = np.clip(np.rint(feed["x"] / np.float32(0.02)) + 128, 0, 255) - 128
    expected = (steps * 0.02) @ (graph.tensors["codes"] * 0.02) + feed["x"]
    assert fuse_products(model) == 1
    assert operators(model) == {"QuantizeLinear", "MatMulIntegerToFloat", "Add"}
    np.testing.assert_allclose(run(model, feed), expected, atol=1e-4)


def test_a_product_that_is_an_output_keeps_its_bias_outside() -> None:
    model = quantized(U8)
    [product] = {node.output[0] for node in model.graph.node if node.name == "layer1.down.product.MatMul"}
    model.graph.output.append(onnx.helper.make_tensor_value_info(product, TensorProto.FLOAT, None))
    fused = copy_of(model)
    assert fuse_products(fused) == 12
    [made] = [node for node in fused.graph.node if product in node.output]
    assert made.op_type == "MatMulIntegerToFloat" and not made.input[6]
    np.testing.assert_allclose(
        towers.run_all(fused, towers.text_feeds(4)), towers.run_all(model, towers.text_feeds(4)), atol=1e-5
    )


def test_a_graph_without_int8_products_is_left_as_it_is() -> None:
    model = prepare(towers.text_tower())
    before = model.SerializeToString()
    assert fuse_products(model) == 0
    assert model.SerializeToString() == before
