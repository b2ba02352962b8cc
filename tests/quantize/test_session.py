from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from pocketlens_quantize.plan import Plan, Tower
from pocketlens_quantize.prepare import prepare
from pocketlens_quantize.session import alternate, by_weighted_node, embed, node_times, open_session
from pocketlens_quantize.target import Target
from tests.quantize import towers
from tests.quantize.towers import Graph

TARGET = Target("x86-64-vnni", "uint8", reduce_range=False, preset="avx512_vnni", timed_here=False)


def test_embeddings_are_those_of_each_feed_in_order(tmp_path: Path) -> None:
    model = towers.text_tower()
    feeds = towers.text_feeds(5)
    found = embed(open_session(model), feeds)
    np.testing.assert_allclose(found, np.concatenate([towers.run(model, feed) for feed in feeds]), atol=1e-6)
    file = tmp_path / "text.onnx"
    file.write_bytes(model.SerializeToString())
    for same in (file, file.read_bytes()):
        np.testing.assert_array_equal(embed(open_session(same), feeds), found)


def test_a_batch_counts_as_its_inputs() -> None:
    feeds = towers.picture_feeds(10)
    session = open_session(towers.image_tower())
    batched = embed(session, towers.picture_batches(feeds, size=4))
    np.testing.assert_allclose(batched, embed(session, feeds), atol=1e-5)


def test_sessions_take_turns_over_all_feeds() -> None:
    order: list[tuple[str, int]] = []

    class Clock:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, outputs: None, feed: dict[str, np.ndarray]) -> None:
            order.append((self.name, int(feed["number"])))

    feeds = [{"number": np.array(number)} for number in range(3)]
    times = alternate({"one": Clock("one"), "two": Clock("two")}, feeds, rounds=4)
    assert order[:2] == [("one", 0), ("two", 0)]  # warming up, which is not counted
    assert order[2:] == [(name, turn % 3) for turn in range(4) for name in ("one", "two")]
    assert {name: found.shape for name, found in times.items()} == {"one": (4,), "two": (4,)}


def test_nodes_are_timed_by_their_names_in_the_graph() -> None:
    graph = Graph()
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    graph.add("MatMul", "embedding", graph.add("Tanh", "squeezed", "x"), graph.constant("w", weight))
    model = graph.model([helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])])
    times = node_times(model, [{"x": np.ones((2, 8), np.float32)}] * 3)
    assert {name: op_type for name, (op_type, _) in times.items()} == {
        "squeezed.Tanh": "Tanh",
        "embedding.MatMul": "MatMul",
    }
    assert all(microseconds >= 0 for _, microseconds in times.values())


def test_every_weighted_node_of_a_float_tower_is_timed() -> None:
    for model, feeds in (
        (towers.text_tower(), towers.text_feeds(3)),
        (towers.image_tower(), towers.picture_feeds(3)),
    ):
        prepared = prepare(model)
        found = by_weighted_node(prepared, node_times(model, feeds))
        missing = {node.name for node in prepared.graph.node if node.op_type in ("Conv", "Gemm")} - set(found)
        missing |= {node.name for node in prepared.graph.node if "product" in node.name} - set(found)
        assert not missing
        assert all(time >= 0 for time in found.values())


def test_every_weighted_node_of_an_int8_tower_is_timed() -> None:
    feeds = towers.picture_feeds(16)
    tower = Tower("image", towers.image_tower(), feeds, TARGET)
    found = by_weighted_node(tower.prepared, node_times(tower.build(Plan("static", "minmax")), feeds[:3]))
    assert set(found) == set(tower.nodes)
    feeds = towers.text_feeds(16)
    tower = Tower("text", towers.text_tower(), feeds, TARGET)
    for plan in (Plan("static", "minmax", smooth=True), Plan("weights8"), Plan("weights4"), Plan("dynamic")):
        found = by_weighted_node(tower.prepared, node_times(tower.build(plan), feeds[:3]))
        assert set(found) >= set(tower.products) - {"head.Gemm"}, plan.label
