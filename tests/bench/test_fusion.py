from __future__ import annotations

from pocketlens_bench.fusion import run
from pocketlens_bench.measure import Options


def test_small_galleries_have_the_same_answers_by_candidates() -> None:
    lines: list[str] = []
    report = run(Options(quick=True), lines.append)
    table = next(iter(report.tables.values()))
    assert [row["rows"] for row in table] == [2_000] * 8 + [4_000] * 8
    assert all(row["same top 10"] == 1.0 for row in table)
    assert all(float(row["candidates over every row"] or 0) > 0 for row in table)
    assert [bar.met for bar in report.bars] == [True]
    assert lines[0] == "2000 rows: writing the gallery"
