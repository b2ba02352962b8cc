"""Chooses how many partitions a query of a gallery looks through, by measured recall on text-like queries.

Text queries lie outside the pictures' distribution, and their answers in more partitions than a picture's. So the build
measures, and writes down, the least number that reaches the target.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from pocketlens._types import Float16s, Float32s, Int64s
from pocketlens.index import Index, IndexSpec
from pocketlens.rows import Rows

TARGET_RECALL = 0.98
_K = 10
_PROBES = 256
_STEP = 1.1  # times as many partitions, when codes lost what partitions had kept
_BLOCK_ROWS = 16_384
_NOISE = 3.0  # length of the noise added to a unit vector: about as hard as texts are (the script partitions)


def tune_probes(index: Index, vectors: Float32s | Float16s, queries: Float32s | None) -> IndexSpec:
    """Return the index's spec with the least number of probes whose recall@10 reaches 0.98, and that recall.

    Args:
        index: an index by partitions over `vectors`.
        vectors: float32 or float16 (rows, dim) unit vectors.
        queries: float32 (n, dim) encoded texts; None draws pictures' vectors with noise instead.
    """
    queries = (_noisy(vectors) if queries is None else queries)[:_PROBES]
    truth = exact_rows(vectors, queries, k=_K)
    ranks = np.sort(index.partition_ranks(queries, truth), axis=None)
    probes = int(ranks[ceil(TARGET_RECALL * len(ranks)) - 1]) + 1
    while True:
        found = recall(index.search(queries, k=_K, probes=probes).rows, truth)
        if found >= TARGET_RECALL or probes == index.spec.partitions:
            return replace(index.spec, probes=probes, recall=round(found, 4))
        probes = min(ceil(probes * _STEP), index.spec.partitions)


def exact_rows(vectors: Float32s | Float16s | Rows[np.float16], queries: Float32s, *, k: int) -> Int64s:
    """Return the k rows of highest inner product by exhaustive search in float32, int64 (n, k), best first.

    Goes through `vectors`, (rows, dim), in blocks, so that a memory-mapped float16 gallery is never whole in memory.
    """
    rows = np.zeros((len(queries), 0), dtype=np.int64)
    scores = np.zeros((len(queries), 0), dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = queries @ vectors[start : start + _BLOCK_ROWS].astype(np.float32).T  # (n, dim) @ (dim, block)
        scores = np.concatenate([scores, block], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        rows, scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
    return rows


def recall(found: Int64s, truth: Int64s) -> float:
    """Return the mean share of each row of `truth`, (n, k), that the same row of `found`, (n, any), holds."""
    shares = [np.isin(expected, actual).mean() for actual, expected in zip(found, truth, strict=True)]
    return float(np.mean(shares))


def _noisy(vectors: Float32s | Float16s) -> Float32s:
    generator = np.random.default_rng(0)
    rows = generator.choice(len(vectors), size=_PROBES)
    noise = generator.standard_normal((_PROBES, vectors.shape[1])).astype(np.float32)
    noise *= _NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(vectors[rows] + noise, dtype=np.float32)
