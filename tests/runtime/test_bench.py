from __future__ import annotations

from pathlib import Path

from pocketlens.bench import measure, run_fresh, table


def test_a_bundle_is_measured_with_recall_of_the_same_run(bundle: Path) -> None:
    measured = measure(bundle, runs=5, threads=1)
    assert measured["recall_at_10"] == 1.0
    assert {"decode", "preprocess", "tokenize", "encode text", "search"} <= set(measured["latency_ms"])
    assert measured["peak_memory_mb"] > 10
    assert "cold start" in table(measured)


def test_the_peak_memory_of_a_fresh_process_is_its_own() -> None:
    ballast = bytearray(300_000_000)
    assert run_fresh("pass")[1] < 100
    assert run_fresh("ballast = bytearray(150_000_000)")[1] > 150
    assert len(ballast) == 300_000_000


def test_a_fresh_process_gets_its_arguments_and_is_timed() -> None:
    assert run_fresh("import sys, time; time.sleep(float(sys.argv[1]))", "0.2")[0] >= 200
