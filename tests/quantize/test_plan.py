from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from pocketlens_quantize.plan import Plan, Tower
from pocketlens_quantize.session import embed, features_cosines, open_session
from pocketlens_quantize.target import Target
from tests.quantize import towers
from tests.quantize.towers import cosine, operators, run_all

VNNI = Target("x86-64-vnni", "uint8", reduce_range=False, preset="avx512_vnni", timed_here=False)
ARM = Target("arm64", "int8", reduce_range=False, preset="arm64", timed_here=False)
TEXT_PLANS = [
    Plan("float16"), Plan("int8-storage"), Plan("static", "minmax"), Plan("static", "minmax", smooth=True),
    Plan("static", "percentile", smooth=True), Plan("static", "entropy", smooth=True), Plan("dynamic"),
    Plan("weights8"), Plan("weights4"), Plan("optimum"),
]  # fmt: skip
IMAGE_PLANS = [
    Plan("float16"), Plan("int8-storage"), Plan("static", "minmax"), Plan("static", "percentile"),
    Plan("static", "entropy"), Plan("optimum"),
]  # fmt: skip
EVERY = pytest.mark.parametrize(
    ("kind", "plan"),
    [*(("text", plan) for plan in TEXT_PLANS), *(("image", plan) for plan in IMAGE_PLANS)],
    ids=lambda value: value if isinstance(value, str) else value.label,
)
Kind = Literal["text", "image"]


@pytest.fixture(scope="module", params=[VNNI, ARM], ids=lambda target: target.name)
def both(request: pytest.FixtureRequest) -> dict[str, Tower]:
    """The two towers for a target; read-only."""
    return {
        "text": Tower("text", towers.text_tower(), towers.text_feeds(32), request.param),
        "image": Tower("image", towers.image_tower(), towers.picture_feeds(32), request.param),
    }


def fresh(kind: str) -> list[dict[str, towers.Array]]:
    return towers.text_feeds(24, seed=9) if kind == "text" else towers.picture_feeds(24, seed=9)


def test_the_plans_to_begin_with(both: dict[str, Tower]) -> None:
    assert both["text"].plans() == TEXT_PLANS
    assert both["image"].plans() == IMAGE_PLANS


@EVERY
def test_every_plan_makes_a_smaller_file_that_runs(both: dict[str, Tower], kind: Kind, plan: Plan) -> None:
    tower = both[kind]
    built = tower.build(plan)
    near = cosine(run_all(built, fresh(kind)), run_all(tower.model, fresh(kind)))
    assert near.mean() > (0.85 if plan.method == "weights4" else 0.94)
    assert {node.domain for node in built.graph.node} <= {"", "com.microsoft"}
    assert "ConvInteger" not in operators(built)
    assert built.ByteSize() < (0.65 if kind == "image" or plan.method == "float16" else 0.4) * tower.model.ByteSize()
    assert {entry.domain for entry in built.opset_import} <= {"", "ai.onnx.ml", "com.microsoft"}


@pytest.mark.parametrize("plan", IMAGE_PLANS, ids=lambda plan: plan.label)
def test_a_second_output_survives_and_changes_nothing_else(both: dict[str, Tower], plan: Plan) -> None:
    plain, feeds = both["image"], fresh("image")
    seeing = Tower("image", towers.image_tower(features=True), towers.picture_feeds(32), plain.target)
    session = open_session(seeing.build(plan))
    assert [(value.name, value.type, value.shape) for value in session.get_outputs()] == [
        ("embedding", "tensor(float)", ["n", towers.DIM]),
        ("features", "tensor(float)", ["n", 4 * towers.CHANNELS, 4, 4]),
    ]
    near = features_cosines(open_session(seeing.model), session, feeds)
    assert near is not None and near.min() > 0.94
    np.testing.assert_allclose(embed(session, feeds), embed(open_session(plain.build(plan)), feeds), atol=1e-6)


@EVERY
def test_a_plan_makes_the_same_bytes_again(both: dict[str, Tower], kind: Kind, plan: Plan) -> None:
    first, second = (both[kind].build(plan).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_building_leaves_the_tower_as_it_was(both: dict[str, Tower]) -> None:
    tower = both["text"]
    before = [tower.model.SerializeToString(), tower.prepared.SerializeToString()]
    for plan in TEXT_PLANS[:-1]:
        tower.build(plan)
    assert [tower.model.SerializeToString(), tower.prepared.SerializeToString()] == before


@pytest.mark.parametrize("plan", TEXT_PLANS[1:], ids=lambda plan: plan.label)
def test_the_token_table_is_int8(both: dict[str, Tower], plan: Plan) -> None:
    built = both["text"].build(plan)
    tables = [tensor for tensor in built.graph.initializer if tensor.dims and tensor.dims[0] == towers.TOKENS]
    codes = [table for table in tables if table.dims[1] == towers.WIDTH]
    assert [table.data_type for table in codes] in ([TensorProto.INT8], [TensorProto.UINT8])
    if plan.method != "optimum":  # which gives all tokens one scale
        assert [table.data_type for table in tables if table.dims[1] == 1] == [TensorProto.FLOAT]


def test_float16_storage_holds_no_large_float32(both: dict[str, Tower]) -> None:
    for tower in both.values():
        built = tower.build(Plan("float16"))
        kept = [t for t in built.graph.initializer if t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= 1024]
        assert kept == []


def test_a_weight_beyond_float16_stays_as_it_is() -> None:
    model = towers.image_tower()
    [weight] = [tensor for tensor in model.graph.initializer if tensor.name == "end.weight"]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), "end.weight"))
    built = Tower("image", model, towers.picture_feeds(1), VNNI).build(Plan("float16"))
    kinds = {tensor.name: tensor.data_type for tensor in built.graph.initializer}
    assert kinds["end.weight"] == TensorProto.FLOAT
    assert kinds["head.weight.float16"] == kinds["down.weight.float16"] == TensorProto.FLOAT16


@pytest.mark.parametrize("plan", [Plan("static", "minmax", smooth=True), Plan("weights8"), Plan("dynamic")])
def test_attention_is_fused_where_compute_changes(both: dict[str, Tower], plan: Plan) -> None:
    kinds = [node.op_type for node in both["text"].build(plan).graph.node]
    assert kinds.count("MultiHeadAttention") == 2 and "Softmax" not in kinds


def test_exempt_products_become_eight_bit_weights_and_others_float(both: dict[str, Tower]) -> None:
    tower = both["text"]
    plan = Plan("static", "minmax", smooth=True, weights8=(tower.products[0], "head.Gemm"), floats=(tower.products[4],))
    built = tower.build(plan)
    by_name = {node.name: node.op_type for node in built.graph.node}
    assert [node.op_type for node in built.graph.node].count("MatMulNBits") == 2
    left = {*tower.products} - {*plan.weights8, *plan.floats}
    rest = [node.input[1] for node in tower.prepared.graph.node if node.name in left]
    tensors = [*built.graph.initializer, *tower.prepared.graph.initializer]
    widths = {tensor.name: tensor.dims[1] for tensor in tensors if len(tensor.dims) == 2}
    in_int8 = [node.input[1] for node in built.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert sum(widths[name] for name in in_int8) == sum(widths[name] for name in rest)
    assert by_name[tower.products[4]] == "MatMul"
    near = cosine(run_all(built, fresh("text")), run_all(tower.model, fresh("text")))
    assert near.mean() > 0.99


def test_a_tower_with_every_node_put_back_still_builds(both: dict[str, Tower]) -> None:
    for kind, plan in (("text", Plan("static", "minmax", smooth=True)), ("image", Plan("static", "minmax"))):
        tower = both[kind]
        convolutions = tuple(name for name in tower.nodes if name not in tower.products)
        built = tower.build(dataclasses.replace(plan, weights8=tower.products, floats=convolutions))
        assert cosine(run_all(built, fresh(kind)), run_all(tower.model, fresh(kind))).mean() > 0.99
        assert "QuantizeLinear" not in operators(built)


def test_more_nodes_in_float_are_nearer(both: dict[str, Tower]) -> None:
    tower = both["image"]
    expected = run_all(tower.model, fresh("image"))
    errors = []
    for count in (0, 4, len(tower.nodes)):
        built = tower.build(Plan("static", "minmax", floats=tower.nodes[:count]))
        errors.append(1 - cosine(run_all(built, fresh("image")), expected).mean())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-5


def test_labels_say_what_was_done() -> None:
    assert Plan("float16").label == "float16 storage"
    plan = Plan("static", "entropy", smooth=True, weights8=("a", "b"), floats=("c",))
    assert plan.label == "static int8, entropy, smoothed, 2 nodes 8-bit weights, 1 nodes float32"


@pytest.mark.parametrize("plan", [Plan("static", "minmax", smooth=True), Plan("weights8"), Plan("int8-storage")])
@pytest.mark.parametrize("target", [VNNI, ARM], ids=lambda target: target.name)
def test_onnxruntime_computes_what_the_file_says(target: Target, plan: Plan) -> None:
    safe = dataclasses.replace(target, reduce_range=True)  # as written, 8-bit sums overflow on x86-64 without VNNI
    built = Tower("text", towers.text_tower(), towers.text_feeds(32), safe).build(plan)
    feeds = towers.text_feeds(6, seed=9)
    as_written = np.concatenate([towers.run(built, feed, optimized=False) for feed in feeds])
    assert cosine(run_all(built, feeds), as_written).min() > 0.9999


@pytest.mark.parametrize("plan", [Plan("static", "minmax", smooth=True), Plan("weights8"), Plan("int8-storage")])
def test_a_text_does_not_depend_on_its_batch_or_padding(both: dict[str, Tower], plan: Plan) -> None:
    built, feeds = both["text"].build(plan), towers.text_feeds(48, seed=9)
    for size in (3, 8):
        batched = run_all(built, towers.text_batches(feeds, size=size))
        assert cosine(batched, run_all(built, feeds)).min() >= 0.9999
