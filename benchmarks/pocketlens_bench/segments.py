"""One index in several segments that are searched as one: recall and time beside the whole, and builds by threads.

A scan must give the very answers of the whole. Partitions are tuned in each segment by itself, as a build does, on
texts that are not asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.codes import make_rotation, to_codes
from pocketlens.index import PARTITIONS, Index, IndexSpec
from pocketlens.partitions import make_partitions
from pocketlens.tune import exact_rows, recall, tune_probes
from pocketlens_bench import clip_shaped
from pocketlens_bench.measure import Options, Progress, Report, Row, alternate, at_least, at_most, median, ratio

_K = 10
_SEGMENTS = (1, 2, 4, 8)
_BUILT = 4  # segments, by several threads
_TUNING = 256


def run(options: Options, progress: Progress) -> Report:
    """Return recall and time of an index in several segments, of both kinds, and the time to build it by threads."""
    rows, asked, rounds = (4_000, 20, 2) if options.quick else (100_000, 300, 30)
    vectors, texts = clip_shaped.pictures(rows), clip_shaped.texts(asked + _TUNING)
    queries, tuning = texts[:asked], texts[asked:]
    truth = exact_rows(vectors.astype(np.float16), queries, k=_K)
    tables: dict[str, list[Row]] = {}
    for kind, build in (("Scan", _scan), ("Partitions", _partitioned)):
        indexes, numbers = {}, {}
        for count in _SEGMENTS:
            progress(f"{kind.lower()}, {count} segments")
            indexes[count], numbers[count] = _joined(build, vectors, count, tuning)
        tables[kind] = _compare(indexes, numbers, queries, truth, rounds)
    progress(f"building {_BUILT} segments")
    tables["Build by threads"] = _builds(vectors, tuning, 1 if options.quick else 3)
    scan, partitions = tables["Scan"], tables["Partitions"]
    return Report(
        settings={"rows": rows, "dim": clip_shaped.DIM, "queries": asked, "k": _K, "rounds": rounds},
        threads=[1, 2],
        tables=tables,
        bars=[
            at_most("scan: answers unlike the whole's", max(int(row["other answers"] or 0) for row in scan), 0),
            at_least(
                "partitions: least recall@10 over the whole's",
                round(
                    min(float(row["recall@10"] or 0) for row in partitions) / float(partitions[0]["recall@10"] or 1), 4
                ),
                0.99,
            ),
        ],
        packages=("numpy", "usearch"),
    )


def _joined(
    build: Callable[[Float32s, Float32s], tuple[Index, Int64s]], vectors: Float32s, count: int, tuning: Float32s
) -> tuple[Index, Int64s]:
    """Return an index of so many segments, and the number of each of its rows among the vectors."""
    parts = np.array_split(vectors, count)
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    built = [build(part, tuning) for part in parts]
    numbers = [order + start for (_, order), start in zip(built, starts, strict=True)]
    return Index.join([index for index, _ in built]), np.concatenate(numbers)


def _scan(vectors: Float32s, tuning: Float32s) -> tuple[Index, Int64s]:
    rotation, rows = make_rotation(vectors.shape[1]), len(vectors)
    spec = IndexSpec("exhaustive", rows, partitions=1, probes=1, recall=1.0)
    return Index.build(to_codes(vectors, rotation), rotation, vectors.astype(np.float16), spec), np.arange(rows)


def _partitioned(vectors: Float32s, tuning: Float32s) -> tuple[Index, Int64s]:
    rotation, rows = make_rotation(vectors.shape[1]), len(vectors)
    codes = to_codes(vectors, rotation)
    order, partitions = make_partitions(vectors, codes, rotation, round(PARTITIONS * sqrt(rows)))
    spec = IndexSpec("partitions", rows, partitions.count, probes=1, recall=1.0)

    def of(spec: IndexSpec) -> Index:
        return Index.build(codes[order], rotation, vectors[order].astype(np.float16), spec, partitions=partitions)

    return of(replace(spec, probes=tune_probes(of(spec), vectors[order], tuning).probes)), order


def _compare(
    indexes: dict[int, Index], numbers: dict[int, Int64s], queries: Float32s, truth: Int64s, rounds: int
) -> list[Row]:
    answers = {count: index.search(queries, k=_K) for count, index in indexes.items()}
    took = alternate({str(count): _timed(index, queries) for count, index in indexes.items()}, rounds=rounds)
    rows: list[Row] = []
    for count, index in indexes.items():
        found, whole = numbers[count][answers[count].rows], numbers[1][answers[1].rows]
        same = (found == whole).all(axis=1) & (answers[count].scores == answers[1].scores).all(axis=1)
        rows.append(
            {
                "segments": count,
                "recall@10": round(recall(found, truth), 4),
                "other answers": int((~same).sum()),
                "partitions": index.spec.partitions,
                "probes": index.spec.probes,
                "p50 ms": round(median(took[str(count)]) / len(queries[:16]), 3),
                "time over one": ratio(took[str(count)], took["1"]),
            }
        )
    return rows


def _timed(index: Index, queries: Float32s) -> Callable[[], object]:
    def search() -> Any:
        for query in queries[:16]:
            index.search(query[np.newaxis], k=_K)

    return search


def _builds(vectors: Float32s, tuning: Float32s, rounds: int) -> list[Row]:
    """Return the time to make segments by partitions side by side, over one after the other; NumPy has one thread."""
    took: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for threads, seconds in took.items():
            start = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda part: _partitioned(part, tuning), np.array_split(vectors, _BUILT)))
            seconds.append(time.perf_counter() - start)
    return [
        {"segments": _BUILT, "threads": threads, "s": round(median(all), 2), "time over one": ratio(all, took[1])}
        for threads, all in took.items()
    ]
