"""Recall and search time of int8 codes, exhaustively, against float32: what each step of making codes is worth.

USearch's own cast (trunc(127 x)), rounding, a scale per vector, a rotation before that (the codes that galleries hold)
and re-scoring of the best 50 from float16; 100,000 CLIP-shaped pictures, text-like and picture-like queries.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pocketlens._native import usearch
from pocketlens._types import Float32s, Int64s
from pocketlens.codes import make_rotation, to_codes
from pocketlens.index import Index, IndexSpec
from pocketlens.tune import exact_rows, recall
from pocketlens_bench import clip_shaped
from pocketlens_bench.measure import Options, Progress, Report, Row, alternate, at_least, median, ratio

_K = 10
_TIMED = 100
OURS = "rotation, scale per vector, rounding"
RESCORED = "the same, best 50 re-scored from float16"
EXACT = "float32, NumPy"
Search = Callable[[Float32s], Int64s]


def run(options: Options, progress: Progress) -> Report:
    """Return recall@1, recall@10 and time per query of every way to make codes."""
    rows, count = (3_000, 50) if options.quick else (100_000, 500)
    vectors = clip_shaped.pictures(rows)
    queries = {"text": clip_shaped.texts(count), "picture": clip_shaped.pictures(count, seed=1)}
    progress(f"indexing {rows} vectors five ways")
    searches = make_searches(vectors)
    progress("searching")
    recalls = {kind: recalls_of(searches, vectors, found) for kind, found in queries.items()}
    elapsed_ms = alternate(_timed(searches, queries["text"]), rounds=_TIMED)
    table: list[Row] = [
        {
            "codes": name,
            "text recall@1": recalls["text"][name][0],
            "text recall@10": recalls["text"][name][1],
            "picture recall@1": recalls["picture"][name][0],
            "picture recall@10": recalls["picture"][name][1],
            "p50 ms": median(elapsed_ms[name]),
            "time ratio to float32": ratio(elapsed_ms[name], elapsed_ms[EXACT]),
        }
        for name in searches
    ]
    return _report(table, rows, vectors.shape[1], count)


def make_searches(vectors: Float32s) -> dict[str, Search]:
    """Return by name a function from float32 (n, dim) queries to the rows of their ten nearest, int64 (n, 10)."""
    dim = vectors.shape[1]
    rotation, identity = make_rotation(dim), np.eye(dim, dtype=np.float32)
    spec = IndexSpec("exhaustive", len(vectors), partitions=1, probes=1, recall=1.0)
    codes = to_codes(vectors, rotation)
    plain = Index.build(codes, rotation, None, spec)
    rescored = Index.build(codes, rotation, vectors.astype(np.float16), spec)
    return {
        EXACT: lambda queries: exact_rows(vectors, queries, k=_K),
        "USearch's own cast": _scan(vectors, lambda queries: queries),
        "rounding": _scan(vectors, lambda queries: np.rint(127 * queries).astype(np.int8)),
        "scale per vector, rounding": _scan(vectors, lambda queries: to_codes(queries, identity)),
        OURS: lambda queries: plain.search(queries, k=_K).rows,
        RESCORED: lambda queries: rescored.search(queries, k=_K).rows,
    }


def recalls_of(searches: dict[str, Search], vectors: Float32s, queries: Float32s) -> dict[str, tuple[float, float]]:
    """Return by name (recall@1, recall@10) against exhaustive float32."""
    truth = exact_rows(vectors, queries, k=_K)
    found = {name: search(queries) for name, search in searches.items()}
    return {
        name: (round(recall(rows[:, :1], truth[:, :1]), 4), round(recall(rows, truth), 4))
        for name, rows in found.items()
    }


def _scan(vectors: Float32s, encode: Callable[[Float32s], np.ndarray]) -> Search:
    index = usearch.Index(ndim=vectors.shape[1], metric="cos", dtype="i8", connectivity=2, expansion_add=1)
    index.add(np.arange(len(vectors), dtype=np.uint64), encode(vectors), threads=1)

    def search(queries: Float32s) -> Int64s:
        codes = encode(queries)
        return np.stack([index.search(code, _K, exact=True, threads=1).keys for code in codes]).astype(np.int64)

    return search


def _timed(searches: dict[str, Search], queries: Float32s) -> dict[str, Callable[[], object]]:
    """Return by name a function that answers one query, another one at each call."""

    def one(search: Search) -> Callable[[], object]:
        waiting = iter(np.tile(queries, (_TIMED, 1)))
        return lambda: search(next(waiting)[np.newaxis])

    return {name: one(search) for name, search in searches.items()}


def _report(table: list[Row], rows: int, dim: int, count: int) -> Report:
    by_name = {str(row["codes"]): row for row in table}
    ours, rescored = (float(by_name[name]["text recall@10"] or 0) for name in (OURS, RESCORED))
    return Report(
        settings={"rows": rows, "dim": dim, "queries": count, "k": _K, "timed queries": _TIMED},
        threads=1,
        tables={"Exhaustive search": table},
        bars=[
            at_least("recall@10 of the codes, text-like queries", ours, 0.96),
            at_least("recall@10 re-scored from float16, text-like queries", rescored, 0.995),
        ],
        notes=[
            "Synthetic vectors with CLIP's statistics (clip_shaped.py), not embeddings of a trained model.",
            "Times are of one text-like query from vector to rows, its encoding as codes included.",
        ],
        packages=("numpy", "usearch"),
    )
