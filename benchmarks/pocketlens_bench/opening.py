"""What it costs to open a gallery: the first time since the machine started, when every file is hashed, and after it.

Each open is a process of its own, with the files in the page cache; the time is that of `Gallery.open` alone, after the
imports. First and second take turns; before a first one, what is remembered of checked files is forgotten.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pocketlens.gallery import Counts
from pocketlens.gallery_writer import write_gallery
from pocketlens.items import Item
from pocketlens.model import Model, Space, find_model
from pocketlens_bench import clip_shaped
from pocketlens_bench.measure import Options, Progress, Report, Row, at_most, median, ratio
from pocketlens_bench.models import make_bundle

_SETTLED_S = 2.5  # younger files are not remembered
_OPEN = """
import sys, time
from pathlib import Path
from pocketlens.gallery import Gallery
start = time.perf_counter()
Gallery.open(Path(sys.argv[1]))
print((time.perf_counter() - start) * 1e3)
"""
_SEARCH = [sys.executable, "-m", "pocketlens", "search"]


def run(options: Options, progress: Progress) -> Report:
    """Return the times of first and second opens, and the second's share of a whole `pocketlens search`."""
    rows, rounds = (2_000, 2) if options.quick else (100_000, 15)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        progress(f"writing a gallery of {rows} x {clip_shaped.DIM}")
        _write_gallery(folder / "gallery", rows)
        progress("writing a bundle of as many items with lens-base")
        bundle = make_bundle(folder / "bundle", Model.open(find_model("lens-base")), rows=rows)
        time.sleep(_SETTLED_S)
        found = _measure(folder / "gallery", bundle, folder / "run", rounds, progress)
        sizes = sum(path.stat().st_size for path in (folder / "gallery").iterdir())
    first, second = ratio(found["first"], found["search"]), ratio(found["second"], found["search"])
    table: list[Row] = [
        {
            "open": "first since the start: every file hashed",
            "p50 ms": median(found["first"]),
            "share of search": first,
        },
        {"open": "second: files known", "p50 ms": median(found["second"]), "share of search": second},
    ]
    return Report(
        settings={"rows": rows, "dim": clip_shaped.DIM, "rounds": rounds, "gallery_mb": round(sizes / 1e6, 1)},
        threads=1,
        tables={"Opening a gallery": table, "In the same rounds": [_search_row(found)]},
        bars=[
            at_most("second open over first", ratio(found["second"], found["first"]), 0.5),
            at_most("second open over `pocketlens search` from start to end", second, 0.05),
        ],
        notes=[
            "Files are in the page cache; from a card the first open also waits for its reads of the whole gallery."
        ],
        packages=("numpy", "usearch"),
    )


def _measure(gallery: Path, bundle: Path, runtime: Path, rounds: int, progress: Progress) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"first": [], "second": [], "search": []}
    for number in range(rounds + 1):
        progress(f"round {number} of {rounds}")
        place = runtime / str(number)
        place.mkdir(parents=True, mode=0o700)
        environment = os.environ | {"XDG_RUNTIME_DIR": str(place)}
        took = [_opened_ms(gallery, environment) for _ in range(2)]
        search = [_searched_ms(bundle, environment) for _ in range(2)][1]  # the first makes the bundle known
        if number:  # the round before fills the page cache
            for name, value in zip(found, (*took, search), strict=True):
                found[name].append(value)
    return found


def _opened_ms(gallery: Path, environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", _OPEN, str(gallery)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def _searched_ms(bundle: Path, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([*_SEARCH, str(bundle), "a red bicycle"], check=True, stdout=subprocess.DEVNULL, env=environment)
    return (time.perf_counter() - start) * 1e3


def _search_row(found: dict[str, list[float]]) -> Row:
    return {
        "what": "pocketlens search, files known, lens-base's text tower, as many items",
        "p50 ms": median(found["search"]),
    }


def _write_gallery(folder: Path, rows: int) -> None:
    folder.mkdir()
    items = [Item(f"{row:06}.jpg", row, f"{row:06}.jpg", 640, 480, f"{row:064x}", {}) for row in range(rows)]
    space, counts = Space("clip-shaped@" + "0" * 64, clip_shaped.DIM), Counts(rows, rows, 0, {})
    write_gallery(folder, clip_shaped.pictures(rows), items, space=space, model="clip-shaped", counts=counts)
