from __future__ import annotations

import pytest

from pocketlens.index import CROSSOVER_ROWS
from pocketlens.tune import TARGET_RECALL
from pocketlens_bench.measure import Options, Row, read_report
from pocketlens_bench.partitions import crossover, run


def _rows(*found: tuple[int, float, float]) -> list[Row]:
    return [
        {"rows": rows, "partitions over scan": over, "partitions recall@10": recall} for rows, over, recall in found
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(10, 2.0, 1.0), (20, 0.3, 0.99), (40, 0.2, 0.98)], 20),
        ([(10, 0.3, 0.99), (20, 0.4, 0.99), (40, 0.1, 0.99)], 40),  # one lucky size below is not enough
        ([(10, 0.3, 0.99), (20, 0.2, 0.97)], None),  # fast, but loses answers at the largest size
        ([(10, 2.0, 0.99), (20, 0.5, 0.99)], None),  # twice as fast is too little
        ([(40, 0.2, 0.99), (10, 0.3, 0.99)], 10),  # in any order
        ([], None),
    ],
)
def test_the_crossover_of_hand_made_tables(found: list[tuple[int, float, float]], expected: int | None) -> None:
    assert crossover(_rows(*found), target=0.98, above=0) == expected


def test_what_is_always_scanned_is_no_crossover() -> None:
    assert crossover(_rows((100_000, 0.2, 0.99), (200_000, 0.2, 0.99)), target=0.98) == 200_000
    assert crossover(_rows((100_000, 0.2, 0.99)), target=0.98) is None


def test_the_runtimes_crossover_is_the_measured_one() -> None:
    summary = read_report("partitions")["tables"]["Scan against the tuned number of probes"]
    assert crossover(summary, target=TARGET_RECALL - 0.01) == CROSSOVER_ROWS


def test_small_galleries_are_found_as_well_by_both() -> None:
    report = run(Options(quick=True), lambda text: None)
    summary, every = report.tables.values()
    assert [row["rows"] for row in summary] == [1_000, 2_000]
    assert all(float(row["recall@10"] or 0) >= 0.98 for row in every if row["search"] == "scan")
    assert all(float(row["partitions recall@10"] or 0) >= 0.9 for row in summary)
