"""From how many rows on partitions answer text-like queries so much sooner than a scan of all codes that they pay.

Partitions lose a little recall that a scan keeps, so they must take at most a third of its time; and galleries of
100,000 rows are always scanned, for a recall@10 of 0.995 and filters at no more than twice a query's time (see index,
filters). Both are the runtime's own index, codes and float16 re-scoring included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from pocketlens._types import Float32s
from pocketlens.codes import make_rotation, to_codes
from pocketlens.index import CROSSOVER_ROWS, PARTITIONS, Index, IndexSpec
from pocketlens.partitions import make_partitions
from pocketlens.tune import TARGET_RECALL, exact_rows, recall, tune_probes
from pocketlens_bench import clip_shaped
from pocketlens_bench.measure import Bar, Options, Progress, Report, Row, alternate, median, ratio

_K = 10
_SIZES = (25_000, 50_000, 100_000, 200_000, 400_000)
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)  # of the partitions
_TIMED = 60
LARGEST = 1 / 3  # share of a scan's time
SCANNED = 100_000  # rows that are always scanned


@dataclass(frozen=True, slots=True)
class _Size:
    vectors: Float32s  # in the order of partitions
    scan: Index
    partitioned: Index
    build_s: float


def run(options: Options, progress: Progress) -> Report:
    """Return, for each size, time and recall of the scan and of partitions at several probes, and the crossover."""
    sizes, count = ((1_000, 2_000), 20) if options.quick else (_SIZES, 300)
    texts = clip_shaped.texts(count + 256)
    every, summary = list[Row](), list[Row]()
    for rows in sizes:
        progress(f"{rows} rows")
        size = _make(clip_shaped.pictures(rows))
        found, chosen = _at_size(size, texts[:count], texts[count:])
        every += found
        summary.append(chosen)
    return _report(every, summary, count)


def crossover(summary: Sequence[Row], *, target: float, above: int = SCANNED) -> int | None:
    """Return the least measured number of rows above some from which on partitions reach the target and pay."""
    least = None
    for row in sorted(summary, key=lambda row: int(row["rows"] or 0), reverse=True):
        pays = float(row["partitions over scan"] or np.inf) <= LARGEST
        rows = int(row["rows"] or 0)
        if rows <= above or not pays or float(row["partitions recall@10"] or 0) < target:
            return least
        least = rows
    return least


def _make(vectors: Float32s) -> _Size:
    rows, rotation = len(vectors), make_rotation(vectors.shape[1])
    codes = to_codes(vectors, rotation)
    start = time.perf_counter()
    order, partitions = make_partitions(vectors, codes, rotation, round(PARTITIONS * sqrt(rows)))
    seconds = time.perf_counter() - start
    vectors, codes = vectors[order], codes[order]
    originals = vectors.astype(np.float16)
    count = partitions.count
    spec = IndexSpec("partitions", rows, partitions=count, probes=count, recall=1.0)
    whole = IndexSpec("exhaustive", rows, partitions=1, probes=1, recall=1.0)
    scan = Index.build(codes, rotation, originals, whole)
    return _Size(vectors, scan, Index.build(codes, rotation, originals, spec, partitions=partitions), seconds)


def _at_size(size: _Size, queries: Float32s, probes: Float32s) -> tuple[list[Row], Row]:
    truth, spec = exact_rows(size.vectors, queries, k=_K), size.partitioned.spec
    tuned = tune_probes(size.partitioned, size.vectors, probes).probes
    noise = tune_probes(size.partitioned, size.vectors, None).probes
    numbers = sorted({tuned, *(max(1, round(share * spec.partitions)) for share in _SHARES)})
    searches = {"scan": _search(size.scan, None)}
    searches |= {f"{number} probes": _search(size.partitioned, number) for number in numbers}
    recalls = {name: round(recall(search(queries), truth), 4) for name, search in searches.items()}
    elapsed_ms = alternate(_timed(searches, queries), rounds=_TIMED)
    found: list[Row] = [
        {
            "rows": spec.rows,
            "partitions": spec.partitions,
            "search": name,
            "recall@10": recalls[name],
            "p50 ms": median(elapsed_ms[name]),
            "time over scan": ratio(elapsed_ms[name], elapsed_ms["scan"]),
        }
        for name in searches
    ]
    scan, chosen = found[0], next(row for row in found if row["search"] == f"{tuned} probes")
    return found, {
        "rows": spec.rows,
        "scan recall@10": scan["recall@10"],
        "scan p50 ms": scan["p50 ms"],
        "partitions recall@10": chosen["recall@10"],
        "partitions p50 ms": chosen["p50 ms"],
        "partitions over scan": chosen["time over scan"],
        "partitions": spec.partitions,
        "probes tuned on texts": tuned,
        "probes tuned on noise": noise,
        "build s": round(size.build_s, 1),
    }


def _search(index: Index, probes: int | None) -> Callable[[Float32s], Any]:
    return lambda queries: index.search(queries, k=_K, probes=probes).rows


def _timed(searches: dict[str, Callable[[Float32s], Any]], queries: Float32s) -> dict[str, Callable[[], object]]:
    def one(search: Callable[[Float32s], Any]) -> Callable[[], object]:
        waiting = iter(np.tile(queries, (_TIMED, 1)))
        return lambda: search(next(waiting)[np.newaxis])

    return {name: one(search) for name, search in searches.items()}


def _report(every: list[Row], summary: list[Row], count: int) -> Report:
    found = crossover(summary, target=TARGET_RECALL - 0.01)
    bar = Bar("rows from which on a gallery gets partitions", f"= {CROSSOVER_ROWS}, the runtime's", found or 0,
              found == CROSSOVER_ROWS)  # fmt: skip
    settings = {"dim": clip_shaped.DIM, "queries": count, "timed queries": _TIMED, "k": _K}
    return Report(
        settings={**settings, "target recall": TARGET_RECALL, "share of a scan's time": round(LARGEST, 3)},
        threads=1,
        tables={"Scan against the tuned number of probes": summary, "All probes": every},
        bars=[bar],
        notes=[
            "The number of probes is tuned on 256 texts other than the queries, as a build does, or on noisy pictures "
            "where it has no texts; on the queries the recall may come out a point lower than the target.",
            "Graphs stand beside a scan of 100,000 rows in the script index.",
            "Build seconds are of one thread on a shared machine; a scan needs no build.",
            "Synthetic vectors with CLIP's statistics (clip_shaped.py), not embeddings of a trained model.",
        ],
        packages=("numpy", "usearch", "numkong"),
    )
