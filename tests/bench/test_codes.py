from __future__ import annotations

import numpy as np
import pytest

from pocketlens_bench import clip_shaped
from pocketlens_bench.codes import EXACT, OURS, RESCORED, make_searches, recalls_of, run
from pocketlens_bench.measure import Options

CAST = "USearch's own cast"


@pytest.fixture(scope="module")
def recalls() -> dict[str, tuple[float, float]]:
    vectors = clip_shaped.pictures(2_000)
    return recalls_of(make_searches(vectors), vectors, clip_shaped.texts(60))


def test_each_step_finds_more_of_the_true_top_ten(recalls: dict[str, tuple[float, float]]) -> None:
    ranked = [recalls[name][1] for name in (CAST, "rounding", OURS, RESCORED, EXACT)]
    assert ranked == sorted(ranked)


def test_the_bars_hold_on_a_small_gallery_too(recalls: dict[str, tuple[float, float]]) -> None:
    assert recalls[OURS][1] >= 0.96
    assert recalls[RESCORED][1] >= 0.995
    assert recalls[EXACT] == (1.0, 1.0)


def test_every_search_returns_ten_rows_of_each_query() -> None:
    vectors = clip_shaped.pictures(300)
    for search in make_searches(vectors).values():
        found = search(vectors[:3])
        assert found.shape == (3, 10)
        assert np.array_equal(found[:, 0], [0, 1, 2])


def test_the_script_reports_recall_beside_every_time() -> None:
    report = run(Options(quick=True), lambda text: None)
    (table,) = report.tables.values()
    assert all({"text recall@10", "p50 ms"} <= set(row) for row in table)
    assert len(report.bars) == 2
