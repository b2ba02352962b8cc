"""Import time and installed size of every runtime dependency.

Each import runs in a new process, by turns; the time is that of the import statement alone, Python's own start left
out. Sizes are the files that a distribution installed, without compiled bytecode.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version

from pocketlens_bench.measure import Options, Progress, Report, Row, median, significant

MODULES = {
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "usearch": "usearch.index",
    "tokenizers": "tokenizers",
    "ftfy": "ftfy",
    "pillow": "PIL.Image",
    "click": "click",
}
_TIME = """
import sys, time
for name in sys.argv[1].split():
    __import__(name)
start = time.perf_counter()
__import__(sys.argv[2])
print((time.perf_counter() - start) * 1e3)
"""
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def run(options: Options, progress: Progress) -> Report:
    """Return import time alone and after NumPy, and the size alone and with what it needs, of every dependency."""
    rounds = 2 if options.quick else 11
    cases = {(name, first): [] for name in MODULES for first in ("", "numpy")}  # type: dict[tuple[str, str], list[float]]
    own: dict[str, list[float]] = {"pocketlens": [], "pocketlens.lens": []}
    for number in range(rounds + 1):
        progress(f"round {number} of {rounds}")
        found = {case: import_ms(MODULES[case[0]], after=case[1]) for case in cases}
        found_own = {name: import_ms(name) for name in own}
        if number:  # the first round fills the page cache
            for case, elapsed_ms in found.items():
                cases[case].append(elapsed_ms)
            for name, elapsed_ms in found_own.items():
                own[name].append(elapsed_ms)
    table: list[Row] = [
        {
            "package": name,
            "version": version(name),
            "import ms": median(cases[name, ""]),
            "import ms after numpy": None if name == "numpy" else median(cases[name, "numpy"]),
            "MB": size_mb({name}),
            "MB with what it needs": size_mb(closure(name)),
        }
        for name in MODULES
    ]
    total = size_mb(set[str]().union(*(closure(name) for name in MODULES)))
    return Report(
        settings={"rounds": rounds},
        threads=1,
        tables={
            "Runtime dependencies": table,
            "pocketlens itself": [{"import": name, "ms": median(values)} for name, values in own.items()],
            "All of them installed": [{"MB": total}],
        },
        notes=[
            "ftfy is imported only for texts that are not plain ASCII, click only by the command.",
            "Sizes are of this platform's wheels; packages that several need count once in the total.",
        ],
        packages=(),
    )


def import_ms(module: str, *, after: str = "") -> float:
    """Return the milliseconds that one import takes in a new process in which `after` has been imported."""
    output = subprocess.run([sys.executable, "-c", _TIME, after, module], check=True, stdout=subprocess.PIPE, text=True)
    return float(output.stdout)


def closure(name: str) -> set[str]:
    """Return the installed distributions that one needs, itself included, extras left out."""
    found, waiting = set[str](), [name]
    while waiting:
        current = waiting.pop().lower().replace("_", "-")
        if current in found:
            continue
        try:
            requirements = distribution(current).requires or []
        except PackageNotFoundError:  # needed on another platform only
            continue
        found.add(current)
        matches = (_NAME.match(requirement) for requirement in requirements if "extra ==" not in requirement)
        waiting += [match[0] for match in matches if match]
    return found


def size_mb(names: set[str]) -> float:
    """Return the installed size of distributions in MB, compiled bytecode left out."""
    total = 0
    for name in names:
        for file in distribution(name).files or []:
            path = file.locate()
            if path.suffix != ".pyc" and path.exists():  # type: ignore[attr-defined]
                total += path.stat().st_size  # type: ignore[attr-defined]
    return significant(total / 1e6, 3)
