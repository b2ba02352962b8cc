from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pocketlens_quantize import metrics
from pocketlens_quantize.plan import Plan, Tower
from pocketlens_quantize.target import Target
from pocketlens_quantize.trial import Steering, Trial, Trials
from tests.quantize import towers
from tests.quantize.towers import cosine, run_all

UNTIMED = Target("x86-64-vnni", "uint8", reduce_range=False, preset="avx512_vnni", timed_here=False)
TIMED = Target("x86-64", "uint8", reduce_range=True, preset="avx2", timed_here=True)
PLAN = Plan("static", "minmax", smooth=True)
FEEDS = towers.text_feeds(32)
STEERING = Steering(FEEDS, towers.text_batches(FEEDS), gallery=None)


@pytest.fixture(scope="module")
def text() -> Tower:
    """A text tower; read-only."""
    return Tower("text", towers.text_tower(), FEEDS, UNTIMED)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def trials_of(tower: Tower, memory: Path, steering: Steering = STEERING) -> Trials:
    return Trials(tower, steering, memory=memory, target=tower.target)


def only_remembering(memory: Path, *, steering: Steering = STEERING, target: Target = UNTIMED) -> Trials:
    """Return trials of the same tower, which can be neither built nor run any more."""
    tower = Tower("text", towers.text_tower(), FEEDS, target)
    trials = trials_of(tower, memory, steering)
    tower.model, tower.prepared = onnx.ModelProto(), onnx.ModelProto()
    return trials


def test_a_trial_holds_what_the_plan_came_to(text: Tower, memory: Path) -> None:
    trial = trials_of(text, memory).run(PLAN)
    built = text.build(PLAN)
    expected, found = run_all(text.model, FEEDS), run_all(built, FEEDS)
    near = np.sort(cosine(found, expected))
    assert (trial.plan, trial.failed, trial.latency_ratio) == (PLAN, None, None)
    assert trial.size_bytes == len(built.SerializeToString())
    assert trial.cosine_mean == pytest.approx(near.mean(), abs=1e-5)
    assert trial.cosine_min == pytest.approx(near[0], abs=1e-5)
    assert trial.cosine_p1 == pytest.approx(near[0] + 0.31 * (near[1] - near[0]), abs=1e-5)  # rank 0.01 * 31
    shared = []
    for row in range(len(FEEDS)):
        tops = [np.argsort(-np.delete(side @ expected.T, row, axis=1)[row])[:10] for side in (expected, found)]
        shared.append(len(set(tops[0]) & set(tops[1])) / 10)
    assert trial.agreement_at_10 == pytest.approx(np.mean(shared), abs=0.01)
    batched = run_all(built, towers.text_batches(FEEDS))
    assert trial.same_in_batch == pytest.approx(cosine(batched, found).min(), abs=1e-5)


def test_a_gallery_of_pictures_is_asked_when_there_is_one(text: Tower, memory: Path, rng: np.random.Generator) -> None:
    gallery = rng.standard_normal((40, towers.DIM)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    steering = Steering(FEEDS, towers.text_batches(FEEDS), gallery)
    trial = trials_of(text, memory, steering).run(PLAN)
    expected, found = (run_all(model, FEEDS) @ gallery.T for model in (text.model, text.build(PLAN)))
    assert trial.agreement_at_10 == pytest.approx(metrics.agreement(expected, found, 10), abs=0.01)


def test_a_timed_target_has_a_latency(memory: Path) -> None:
    tower = Tower("image", towers.image_tower(), towers.picture_feeds(8), TIMED)
    feeds = towers.picture_feeds(12)
    steering = Steering(feeds, towers.picture_batches(feeds), gallery=None)
    ratio = trials_of(tower, memory, steering).run(Plan("float16")).latency_ratio
    assert ratio is not None and ratio > 0


def test_what_depends_on_its_batch_is_seen(text: Tower, memory: Path) -> None:
    trials = trials_of(text, memory)
    assert trials.run(Plan("dynamic")).same_in_batch < 0.99 < 0.9999 < trials.run(PLAN).same_in_batch


def test_a_plan_is_remembered_and_not_tried_again(text: Tower, memory: Path) -> None:
    first = trials_of(text, memory)
    plans = [PLAN, Plan("float16"), Plan("static", "minmax", smooth=True, floats=text.nodes[:2])]
    expected = [first.run(plan) for plan in plans]
    error = first.error_alone(PLAN, text.nodes[0])
    again = only_remembering(memory)
    assert [again.run(plan) for plan in plans] == expected
    assert again.error_alone(PLAN, text.nodes[0]) == error
    assert again.run(Plan("weights8")).failed is not None  # which was not tried before: so it cannot be built


def test_what_was_measured_under_other_conditions_is_not_taken(text: Tower, memory: Path) -> None:
    plan = Plan("float16")
    expected = trials_of(text, memory).run(plan)
    gallery = np.eye(towers.DIM, dtype=np.float32)
    for steering in (
        Steering(FEEDS[1:], STEERING.batches, None),
        Steering(FEEDS, STEERING.batches[1:], None),
        Steering(FEEDS, STEERING.batches, gallery),
    ):
        assert only_remembering(memory, steering=steering).run(plan).failed is not None
    assert only_remembering(memory, target=TIMED).run(plan).failed is not None
    assert only_remembering(memory).run(plan) == expected
    assert len(list(memory.iterdir())) == 1  # failed trials are not remembered


def test_what_was_measured_of_another_tower_is_not_taken(text: Tower, memory: Path) -> None:
    plan = Plan("float16")
    found = trials_of(text, memory).run(plan)
    other = Tower("text", towers.text_tower(seed=1), FEEDS, UNTIMED)
    assert trials_of(other, memory).run(plan) != found


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"3", b'{"conditions": "%s"}', b'{"conditions": "%s", "trials": 7}',
     b'{"conditions": "%s", "trials": []}', b'{"trials": {}}'],
)  # fmt: skip
def test_a_damaged_memory_is_no_memory(text: Tower, memory: Path, damage: bytes) -> None:
    expected = trials_of(text, memory).run(Plan("float16"))
    [file] = memory.iterdir()
    file.write_bytes(damage.replace(b"%s", json.loads(file.read_text())["conditions"].encode()))
    assert only_remembering(memory).run(Plan("float16")).failed is not None
    file.write_bytes(damage)
    assert trials_of(text, memory).run(Plan("float16")) == expected
    assert only_remembering(memory).run(Plan("float16")) == expected


def test_a_memory_that_was_meant_for_other_conditions_is_not_believed(text: Tower, memory: Path) -> None:
    plan = Plan("float16")
    trials_of(text, memory).run(plan)
    [file] = memory.iterdir()
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"conditions": "f" * 64}))
    assert only_remembering(memory).run(plan).failed is not None


def test_a_plan_that_cannot_be_built_is_one_failed_trial(memory: Path) -> None:
    trial = only_remembering(memory).run(PLAN)
    assert trial == Trial(PLAN, failed=trial.failed)
    assert trial.failed and "\n" not in trial.failed
    assert not memory.exists()  # what was missing may be there next time


def test_a_node_that_cannot_be_built_alone_is_the_worst(memory: Path) -> None:
    tower = Tower("text", towers.text_tower(), FEEDS, UNTIMED)
    tower.prepared = onnx.ModelProto()
    assert trials_of(tower, memory).error_alone(PLAN, tower.nodes[0]) == float("inf")
    assert not memory.exists()


def test_a_plan_whose_embeddings_are_not_finite_fails(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = Tower("text", towers.text_tower(), FEEDS, UNTIMED)
    broken = towers.text_tower()
    [bias] = [tensor for tensor in broken.graph.initializer if tensor.name == "head.bias"]
    bias.CopyFrom(numpy_helper.from_array(np.full(towers.DIM, np.nan, np.float32), "head.bias"))
    monkeypatch.setattr(tower, "build", lambda plan: broken)
    assert trials_of(tower, memory).run(PLAN) == Trial(PLAN, failed="an embedding is not finite")


def test_a_race_is_remembered(text: Tower, memory: Path) -> None:
    plans = [Plan("float16"), PLAN]
    ratios = trials_of(text, memory).race(plans)
    assert len(ratios) == 2 and min(ratios) > 0
    assert only_remembering(memory).race(plans) == ratios


def test_the_error_of_a_node_alone_is_that_of_a_tower_with_this_node_in_int8(memory: Path) -> None:
    feeds = towers.picture_feeds(32)
    tower = Tower("image", towers.image_tower(outlier=300), feeds, UNTIMED)
    trials = trials_of(tower, memory, Steering(feeds, [], None))
    plan = Plan("static", "minmax")
    errors = {node: trials.error_alone(plan, node) for node in tower.nodes}
    for node in ("stem.sums.Conv", "narrow.Conv"):
        others = tuple(name for name in tower.nodes if name != node)
        built = tower.build(Plan("static", "minmax", floats=others))
        near = cosine(run_all(built, feeds[:24]), run_all(tower.model, feeds[:24]))
        assert errors[node] == pytest.approx(1 - near.mean(), abs=1e-5)
    assert set(sorted(errors, key=lambda node: -errors[node])[:2]) == {"wide.Conv", "narrow.Conv"}
