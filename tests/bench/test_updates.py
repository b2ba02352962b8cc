from __future__ import annotations

from pocketlens_bench.measure import Options
from pocketlens_bench.updates import run


def test_small_galleries_are_updated_and_answer_as_the_servers() -> None:
    lines: list[str] = []
    report = run(Options(quick=True), lines.append)
    costs = report.tables["An update of 1 %"]
    assert [row["rows"] for row in costs] == [1_000, 2_000]
    assert [row["other answers"] for row in costs] == [0, 0]
    assert all(0 < float(row[name] or 0) < 20 for row in costs for name in ("file %", "written %"))
    searches = report.tables["Search after updates of 1 %"]
    assert [(row["updates"], row["segments"], row["rows gone"]) for row in searches] == [
        (0, 1, 0), (1, 2, 10), (2, 3, 20)
    ]  # fmt: skip
    assert lines[-1] == "update 2 of 2"
