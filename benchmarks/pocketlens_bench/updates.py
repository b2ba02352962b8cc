"""What an update of 1 % costs: its size, what applying it writes, and the search after it; answers are the server's.

A server's gallery of synthetic vectors in lens-base's space gets 0.5 % new pictures, 0.3 % with other bytes, and loses
0.2 %. The device's is a copy of the generation before.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s
from pocketlens.apply import apply
from pocketlens.collection import Collection
from pocketlens.contents import Contents
from pocketlens.gallery import Counts, Gallery
from pocketlens.items import Item
from pocketlens.model import Model, find_model
from pocketlens.update import write_update
from pocketlens_bench import clip_shaped
from pocketlens_bench.measure import Options, Progress, Report, Row, alternate, at_most, median, ratio, significant
from pocketlens_bench.models import make_bundle
from pocketlens_export.gallery.generation import next_generation

_NEW, _CHANGED, _GONE = 0.005, 0.003, 0.002
_K = 10


def run(options: Options, progress: Progress) -> Report:
    """Return sizes and times of updates, and of searches after them."""
    sizes, rounds, steps = ((1_000, 2_000), 2, (1, 2)) if options.quick else ((10_000, 100_000), 30, (1, 10, 20))
    model = Model.open(find_model("lens-base"))
    costs: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for rows in sizes:
            progress(f"a gallery of {rows} and its update")
            server = make_bundle(Path(name) / f"server-{rows}", model, rows=rows)
            costs.append(_costs(server, Path(name) / f"device-{rows}", rows))
        searches = _searches(Path(name), rows, rounds, steps, progress)
    return Report(
        settings={"rows": list(sizes), "dim": model.manifest.space.dim, "rounds": rounds, "k": _K,
                  "new": _NEW, "changed": _CHANGED, "gone": _GONE},
        threads=1,
        tables={"An update of 1 %": costs, "Search after updates of 1 %": searches},
        bars=[
            *(at_most(f"update file over gallery, {row['rows']} rows", float(row["file %"] or 0), 3) for row in costs),
            *(at_most(f"written over gallery, {row['rows']} rows", float(row["written %"] or 0), 3) for row in costs),
            *(at_most(f"answers unlike the server's, {row['rows']} rows", int(row["other answers"] or 0), 0)
              for row in costs),
        ],
        notes=[
            "Written: files of the device's bundle that were not there before. Files were in the page cache.",
            "Apply hashes the whole new gallery before the switch; a copy reads and writes all of it.",
        ],
        packages=("numpy", "usearch"),
    )  # fmt: skip


def _costs(server: Path, device: Path, rows: int) -> Row:
    """Update the server's gallery once and the device's from it; return what it cost."""
    shutil.copytree(server, device)
    _next(server, 0, rows)
    file = device.with_suffix(".update")
    write_update(server / "gallery", file, since=1)
    before = {path.stat().st_ino for path in device.rglob("*") if path.is_file()}
    whole = sum(path.stat().st_size for path in (device / "gallery").rglob("*") if path.is_file())
    start = time.perf_counter()
    shutil.copytree(device, device.with_suffix(".copy"))
    copied_s = time.perf_counter() - start
    with closing(Collection(device)) as collection:
        start = time.perf_counter()
        apply(collection, file)
        applied_s = time.perf_counter() - start
    new = [path for path in device.rglob("*") if path.is_file() and path.stat().st_ino not in before]
    written = sum(path.stat().st_size for path in new)
    return {
        "rows": rows,
        "gallery MB": round(whole / 1e6, 1),
        "file MB": round(file.stat().st_size / 1e6, 2),
        "file %": significant(100 * file.stat().st_size / whole, 3),
        "written %": significant(100 * written / whole, 3),
        "apply over a copy": significant(applied_s / copied_s, 2),
        "other answers": _differing(server, device),
    }


def _next(bundle: Path, step: int, rows: int) -> None:
    """Write a bundle's next generation: new and changed pictures are drawn anew, those that go are among the first."""
    new, changed, gone = (round(share * rows) for share in (_NEW, _CHANGED, _GONE))
    dim = Model.open(bundle / "text").manifest.space.dim
    vectors = clip_shaped.pictures(new + changed, dim=dim, seed=step + 1)
    first = step * (changed + gone)
    ids = [f"new-{step:02}-{number:06}.jpg" for number in range(new)]
    ids += [f"{row:06}.jpg" for row in range(first, first + changed)]
    items = [
        Item(id, row, id, 640, 480, f"{10**9 + step * rows + row:064x}", {"size_bytes": 100_000})
        for row, id in enumerate(ids)
    ]
    lost = [f"{row:06}.jpg" for row in range(first + changed, first + changed + gone)]
    counts = Counts(len(items), len(items), 0, {})
    with closing(Gallery.open(bundle / "gallery")) as gallery:
        numbers = np.fromiter(gallery.items.numbers_of(lost).values(), dtype=np.int64)
        with next_generation(bundle, gallery, numbers) as writer:
            writer.add(vectors)
            writer.finish(items, counts=counts)


def _differing(server: Path, device: Path) -> int:
    """Return how many of 100 queries the device answers otherwise than the server: other ids, scores or z."""
    with ExitStack() as opened:
        contents = []
        for bundle in (server, device):
            gallery = opened.enter_context(closing(Gallery.open(bundle / "gallery")))
            contents.append(Contents(gallery))
        queries = clip_shaped.texts(100, dim=contents[0].gallery.manifest.space.dim)
        return sum(_answer(contents[0], query) != _answer(contents[1], query) for query in queries)


def _answer(contents: Contents, query: Float32s) -> list[object]:
    found = contents.nearest(query, k=_K)
    ids = [[item.id for item in contents.of_row(int(row))] for row in found.rows]
    return [ids, found.cosines.tolist(), found.z_scores.tolist()]


def _searches(work: Path, rows: int, rounds: int, steps: Sequence[int], progress: Progress) -> list[Row]:
    """Return the time of a search after some updates, over that of the same gallery before any."""
    device = work / "stepped"
    shutil.copytree(work / f"device-{rows}.copy", device)
    with ExitStack() as opened:
        galleries: dict[str, Gallery] = {}

        def keep(name: str) -> None:
            shutil.copytree(device, work / name)
            galleries[name] = opened.enter_context(closing(Gallery.open(work / name / "gallery")))

        keep("0")
        for step in range(max(steps)):
            progress(f"update {step + 1} of {max(steps)}")
            _next(device, step, rows)
            if step + 1 in steps:
                keep(str(step + 1))
        queries = clip_shaped.texts(16, dim=galleries["0"].manifest.space.dim)
        took = alternate(
            {name: partial(_search_all, gallery, queries) for name, gallery in galleries.items()}, rounds=rounds
        )
        return [
            {
                "updates": int(name),
                "segments": len(gallery.manifest.segments),
                "rows gone": gallery.index.spec.rows - len(gallery.index.rows),
                "p50 ms": round(median(took[name]) / len(queries), 3),
                "time over none": ratio(took[name], took["0"]),
            }
            for name, gallery in galleries.items()
        ]


def _search_all(gallery: Gallery, queries: Float32s) -> None:
    for query in queries:
        gallery.index.search(query[np.newaxis], k=_K)
