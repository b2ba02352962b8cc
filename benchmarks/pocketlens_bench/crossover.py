"""From how many rows on a tuned graph answers text-like queries faster than scanning all codes, and at what recall.

Both are the runtime's own index, codes and float16 re-scoring included. USearch inserts in order on one thread, so one
graph that grows passes through the very graphs that a build of each size would make.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pocketlens._native import usearch
from pocketlens._types import Float16s, Float32s, Int8s
from pocketlens.codes import make_rotation, to_codes
from pocketlens.index import CROSSOVER_ROWS, Index, IndexSpec
from pocketlens.tune import TARGET_RECALL, exact_rows, recall, tune_graph
from pocketlens_bench import clip_shaped
from pocketlens_bench.measure import Bar, Options, Progress, Report, Row, alternate, median, ratio

_K = 10
_SIZES = (10_000, 25_000, 50_000, 100_000, 200_000, 400_000)
_WIDTHS = (256, 512, 1024, 2048)
_TIMED = 60
_GRAPH = IndexSpec("graph", 0, connectivity=32, expansion_add=256, expansion_search=512, recall=0.0)
_SCAN = IndexSpec("exhaustive", 0, connectivity=2, expansion_add=1, expansion_search=0, recall=1.0)


@dataclass(frozen=True, slots=True)
class _Data:
    vectors: Float32s
    originals: Float16s
    codes: Int8s
    rotation: Float32s
    queries: Float32s
    probes: Float32s  # what the build tunes on; other texts than the queries


def run(options: Options, progress: Progress) -> Report:
    """Return, for each size, time and recall of the scan and of the graph at several widths, and the crossover."""
    sizes, count = ((1_000, 2_000), 20) if options.quick else (_SIZES, 300)
    data = _make(sizes[-1], count)
    growing = usearch.Index(
        ndim=data.codes.shape[1], metric="cos", dtype="i8",
        connectivity=_GRAPH.connectivity, expansion_add=_GRAPH.expansion_add,
    )  # fmt: skip
    widths, summary, seconds = list[Row](), list[Row](), 0.0
    for before, rows in zip((0, *sizes), sizes, strict=False):
        start = time.perf_counter()
        growing.add(np.arange(before, rows, dtype=np.uint64), data.codes[before:rows], threads=1)
        seconds += time.perf_counter() - start
        progress(f"{rows} rows: graph built in {seconds:.0f} s; searching")
        found, chosen = _at_size(growing, data, rows)
        widths += found
        summary.append({**_summary(found), **chosen, "build s": round(seconds, 1)})
    return _report(widths, summary, data, count)


def crossover(summary: Sequence[Row], *, target: float) -> int | None:
    """Return the least number of rows from which on the graph reaches the target and is faster at every larger size."""
    least = None
    for row in sorted(summary, key=lambda row: int(row["rows"] or 0), reverse=True):
        faster = float(row["graph over scan"] or np.inf) < 1 and float(row["graph recall@10"] or 0) >= target
        if not faster:
            return least
        least = int(row["rows"] or 0)
    return least


def _make(rows: int, count: int) -> _Data:
    vectors = clip_shaped.pictures(rows)
    rotation = make_rotation(vectors.shape[1])
    texts = clip_shaped.texts(count + 256)
    return _Data(
        vectors, vectors.astype(np.float16), to_codes(vectors, rotation), rotation, texts[:count], texts[count:]
    )


def _at_size(growing: Any, data: _Data, rows: int) -> tuple[list[Row], Row]:
    vectors, originals = data.vectors[:rows], data.originals[:rows]
    truth = exact_rows(vectors, data.queries, k=_K)
    scan = Index.build(data.codes[:rows], data.rotation, originals, replace(_SCAN, rows=rows))
    graph = Index(growing, data.rotation, originals, replace(_GRAPH, rows=rows))
    chosen: Row = {
        "width tuned on texts": tune_graph(graph, vectors, data.probes).expansion_search,
        "width tuned on noise": tune_graph(graph, vectors, None).expansion_search,
    }
    searches = {"scan": _search(scan, None)}
    searches |= {f"graph, width {width}": _search(graph, width) for width in _WIDTHS}
    recalls = {name: round(recall(search(data.queries), truth), 4) for name, search in searches.items()}
    elapsed_ms = alternate(_timed(searches, data.queries), rounds=_TIMED)
    found: list[Row] = [
        {
            "rows": rows,
            "search": name,
            "recall@10": recalls[name],
            "p50 ms": median(elapsed_ms[name]),
            "time over scan": ratio(elapsed_ms[name], elapsed_ms["scan"]),
        }
        for name in searches
    ]
    return found, chosen


def _search(index: Index, width: int | None) -> Callable[[Float32s], Any]:
    return lambda queries: index.search(queries, k=_K, expansion_search=width).rows


def _timed(searches: dict[str, Callable[[Float32s], Any]], queries: Float32s) -> dict[str, Callable[[], object]]:
    def one(search: Callable[[Float32s], Any]) -> Callable[[], object]:
        waiting = iter(np.tile(queries, (_TIMED, 1)))
        return lambda: search(next(waiting)[np.newaxis])

    return {name: one(search) for name, search in searches.items()}


def _summary(found: Sequence[Row]) -> Row:
    """Return the scan beside the least width that reaches the target, or the widest when none does."""
    scan, graphs = found[0], found[1:]
    good = [row for row in graphs if float(row["recall@10"] or 0) >= TARGET_RECALL]
    graph = good[0] if good else graphs[-1]
    return {
        "rows": scan["rows"],
        "scan recall@10": scan["recall@10"],
        "scan p50 ms": scan["p50 ms"],
        "graph recall@10": graph["recall@10"],
        "graph p50 ms": graph["p50 ms"],
        "graph over scan": graph["time over scan"],
        "width": int(str(graph["search"]).rpartition(" ")[2]),
    }


def _report(widths: list[Row], summary: list[Row], data: _Data, count: int) -> Report:
    found = crossover(summary, target=TARGET_RECALL)
    dim = data.vectors.shape[1]
    bar = Bar(
        "rows from which on a gallery gets a graph",
        f"= {CROSSOVER_ROWS}, the runtime's",
        found or 0,
        found == CROSSOVER_ROWS,
    )
    return Report(
        settings={"dim": dim, "queries": count, "timed queries": _TIMED, "k": _K, "target recall": TARGET_RECALL},
        threads=1,
        tables={"Scan against the least width that reaches the target": summary, "All widths": widths},
        bars=[bar],
        notes=[
            f"Graph: connectivity {_GRAPH.connectivity}, expansion_add {_GRAPH.expansion_add}; both re-score from "
            "float16. A build tunes the width on 256 texts other than the queries, or on noisy pictures without texts.",
            "Build seconds are of one thread on a shared machine; a scan needs no build.",
            "Synthetic vectors with CLIP's statistics (clip_shaped.py), not embeddings of a trained model.",
        ],
        packages=("numpy", "usearch"),
    )
