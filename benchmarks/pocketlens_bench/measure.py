"""What all scripts share: timing by turns, the description of the machine, and the result that a script writes.

Runs that are compared take turns in one process, and what is reported is the median of their ratios round by round: a
slow moment of a shared machine falls on both sides of a ratio alike.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens.bench import processor

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, str | int | float | bool | None]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bar:
    """A number to hit: what it is of, the bar in words, the measured value, and whether it is met."""

    what: str
    bar: str
    measured: float
    met: bool


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line may give to scripts.

    Attributes:
        work: folder that keeps what is exported for measuring, for the next run; None uses a temporary one.
        float_model: folder of lens-base before quantization, to quantize it and compare; None leaves that out.
        bundle: what composed queries are asked of; None makes one of the sample gallery with lens-base.
        pictures: folder of the pictures that are asked with; None takes the sample gallery's.
        quick: tiny sizes, for trying a script out; such results are not written.
    """

    work: Path | None = None
    float_model: Path | None = None
    bundle: Path | None = None
    pictures: Path | None = None
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """A script's result.

    Attributes:
        settings: what was measured: sizes, seeds, rounds.
        threads: threads of everything that was timed.
        tables: by title, the rows of one table; all rows of a table have the same keys.
        bars: the numbers to hit.
        notes: what a reader must know beside the tables.
        packages: distributions whose versions matter.
    """

    settings: dict[str, Any]
    threads: int | list[int]
    tables: dict[str, list[Row]]
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    packages: Sequence[str] = ("numpy", "onnxruntime", "usearch")


def alternate(runs: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Return milliseconds by name, one per round; every other round goes through the runs backwards."""
    elapsed_ms: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-warm_up, rounds):
        names = list(runs) if number % 2 == 0 else list(runs)[::-1]
        for name in names:
            start = time.perf_counter()
            runs[name]()
            if number >= 0:
                elapsed_ms[name].append((time.perf_counter() - start) * 1e3)
    return elapsed_ms


def median(values: Sequence[float]) -> float:
    """Return the median, rounded to four significant digits."""
    return significant(float(np.median(values)))


def ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """Return the median of value over base, round by round; below 1 is faster than the base."""
    return significant(float(np.median(np.asarray(values) / np.asarray(base))), 3)


def significant(value: float, digits: int = 4) -> float:
    """Return the value rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows of two (n, dim) arrays, float64 (n,)."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    products = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.asarray(products)


def at_most(what: str, measured: float, limit: float) -> Bar:
    """Return the bar `measured <= limit`."""
    return Bar(what, f"<= {limit:g}", measured, bool(measured <= limit))


def at_least(what: str, measured: float, limit: float) -> Bar:
    """Return the bar `measured >= limit`."""
    return Bar(what, f">= {limit:g}", measured, bool(measured >= limit))


def write_report(name: str, report: Report, *, folder: Path = RESULTS) -> Path:
    """Write a script's result, with machine, versions and commit, and return the file."""
    data = asdict(report)
    packages = data.pop("packages")
    data = {
        "script": name,
        "command": f"python -m pocketlens_bench {name}",
        "commit": _commit(),
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in packages}},
        **data,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


def read_report(name: str, *, folder: Path = RESULTS) -> dict[str, Any]:
    """Return a script's written result."""
    data: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return data


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor(),
        "cores": cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_at_end": round(os.getloadavg()[0], 1),
    }


def _commit() -> str:
    """Return the commit measured, with "-dirty" after it when more than earlier results has changed since."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return (f"{commit}-dirty" if changed else commit) or "unknown"


def _git(*arguments: str) -> str:
    found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()
