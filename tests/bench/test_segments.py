from __future__ import annotations

from pocketlens_bench.measure import Options
from pocketlens_bench.segments import run


def test_small_indexes_are_joined_and_compared() -> None:
    report = run(Options(quick=True), lambda line: None)
    scan, partitions = report.tables["Scan"], report.tables["Partitions"]
    assert [row["segments"] for row in scan] == [row["segments"] for row in partitions] == [1, 2, 4, 8]
    assert [row["other answers"] for row in scan] == [0] * 4
    assert all(float(row["recall@10"] or 0) > 0.9 for row in (*scan, *partitions))
    assert [row["partitions"] for row in scan] == [1] * 4
    assert all(1 < int(row["probes"] or 0) <= int(row["partitions"] or 0) for row in partitions)
    assert [row["threads"] for row in report.tables["Build by threads"]] == [1, 2]
