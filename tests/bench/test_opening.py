from __future__ import annotations

from pocketlens_bench.measure import Options
from pocketlens_bench.opening import run


def test_small_galleries_are_opened_and_compared() -> None:
    lines: list[str] = []
    report = run(Options(quick=True), lines.append)
    first, second = report.tables["Opening a gallery"]
    assert all(float(row["p50 ms"] or 0) > 0 for row in (first, second))
    assert [bar.bar for bar in report.bars] == ["<= 0.5", "<= 0.05"]
    assert report.settings["rows"] == 2_000
    assert lines[-1] == "round 2 of 2"
