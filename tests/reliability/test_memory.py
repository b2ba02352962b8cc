"""Memory and open files of a process that answers for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reliability.conftest import ROOT
from tests.reliability.memory import slope

Work = Callable[..., dict[str, Any]]


def growth(bundle: Path, warm_up: int, count: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "error", "-m", "tests.reliability.memory", str(bundle), str(warm_up), str(count)]
    environment = os.environ | {"MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2_000:]
    told: dict[str, Any] = json.loads(done.stdout)
    print(told)
    return told


def test_the_slope_of_known_samples() -> None:
    noise = np.random.default_rng(1).normal(0, 30, 500)
    told = slope(np.arange(500) * 5.0 + noise)
    assert 4.8 < told["bytes_per_query"] < told["upper"] < 5.3
    assert slope(noise)["upper"] < 0.2
    assert slope(np.full(50, 7.0)) == {"bytes_per_query": 0.0, "upper": 0.0}


def test_5_000_mixed_queries_after_3_000(work: Work, plain_bundle: Path) -> None:
    """A leak of a query's vector or hit would show; what a small number of samples cannot tell is for the soak."""
    assert (
        work(bundle=plain_bundle, changes=[("add", {"new.png": (9, 99, 9)}), ("remove", ["white.png"])])["steps"] == 2
    )
    told = growth(plain_bundle, 3_000, 5_000)
    assert told["upper"] <= 256
    assert told["files"][0] == told["files"][1]


@pytest.mark.soak
def test_100_000_mixed_queries_after_10_000(work: Work, plain_bundle: Path) -> None:
    assert (
        work(bundle=plain_bundle, changes=[("add", {"new.png": (9, 99, 9)}), ("remove", ["white.png"])])["steps"] == 2
    )
    told = growth(plain_bundle, 10_000, 100_000)
    assert told["upper"] <= 64
    assert told["files"][0] == told["files"][1]
