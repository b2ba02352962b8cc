from __future__ import annotations

from pocketlens_bench.filters import run
from pocketlens_bench.measure import Options


def test_filtered_queries_are_measured_from_none_to_all_and_answer_exactly() -> None:
    lines: list[str] = []
    report = run(Options(quick=True), lines.append)
    shares, fused, kinds = report.tables.values()
    assert (shares[0]["allowed"], shares[13]["allowed"]) == ("0.00% at random", "100.00% at random")
    assert [row["same as exhaustive"] for row in shares] == [1.0] * 18
    assert all(float(row["filtered over unfiltered"] or 0) > 0 for row in (*shares, *fused))
    assert len({row["condition"] for row in kinds}) == len(kinds) == 12
    assert [bar.bar for bar in report.bars] == ["<= 2", "<= 2", ">= 1"]
    assert lines[0] == "4000 rows: writing the gallery"
