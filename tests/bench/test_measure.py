from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlens_bench.measure import (
    Bar,
    Report,
    alternate,
    at_least,
    at_most,
    cosines,
    median,
    ratio,
    read_report,
    significant,
    write_report,
)


def test_runs_take_turns_and_the_order_is_reversed_every_other_round() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    elapsed_ms = alternate(runs, rounds=3, warm_up=1)
    assert "".join(calls) == "cba" + "abc" + "cba" + "abc"
    assert {name: len(values) for name, values in elapsed_ms.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    assert ratio([1.0, 30.0, 3.0], [2.0, 40.0, 3.0]) == 0.75  # of 0.5, 0.75 and 1, not 3 over 3
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([1.0, 2.0]) == 1.5


def test_rounding_keeps_significant_digits() -> None:
    assert significant(1234.5678) == 1235.0
    assert significant(0.00123456) == 0.001235
    assert significant(0.99999876, 8) == 0.99999876


def test_cosines_are_of_pairs_of_rows() -> None:
    left = np.array([[1, 0], [1, 1]], dtype=np.float32)
    right = np.array([[0, 2], [3, 3]], dtype=np.float32)
    assert cosines(left, right) == pytest.approx([0.0, 1.0])


def test_bars_hold_at_their_limit() -> None:
    assert at_most("x", 0.1, 0.1) == Bar("x", "<= 0.1", 0.1, True)
    assert not at_most("x", 0.11, 0.1).met
    assert at_least("x", 0.96, 0.96).met
    assert not at_least("x", 0.95, 0.96).met


def test_a_result_tells_machine_versions_and_commit_but_no_host_and_no_path(tmp_path: Path) -> None:
    report = Report(settings={"k": 10}, threads=1, tables={"t": [{"a": 1}]}, packages=("numpy",))
    path = write_report("codes", report, folder=tmp_path)
    found = read_report("codes", folder=tmp_path)
    assert found["command"] == "python -m pocketlens_bench codes"
    assert found["versions"]["numpy"] == np.__version__
    assert set(found["machine"]) == {"processor", "cores", "memory_gb", "system", "load_average_at_end"}
    assert found["commit"]
    assert found["tables"] == {"t": [{"a": 1}]}
    assert str(Path.home()) not in path.read_text()


def test_a_result_cannot_hold_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report("codes", Report({}, 1, {"t": [{"a": float("nan")}]}), folder=tmp_path)
