"""Chooses the search width of a gallery's graph by measured recall on text-like queries.

Text queries lie outside the pictures' distribution, and there the width, not int8, decides what is found (figures:
benchmarks/results/crossover.json). So the build measures, and writes down, the least width that reaches the target.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pocketlens._types import Float16s, Float32s, Int64s
from pocketlens.index import Index, IndexSpec

TARGET_RECALL = 0.98
_WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
_K = 10
_PROBES = 256
_BLOCK_ROWS = 16_384
_NOISE = 1.5  # length of the noise added to a unit vector; harder than pictures, easier than texts: crossover.json


def tune_graph(index: Index, vectors: Float32s, probes: Float32s | None) -> IndexSpec:
    """Return the index's spec with the least width whose recall@10 reaches 0.98, or the widest, and that recall.

    Args:
        index: a graph index over `vectors`.
        vectors: float32 (rows, dim) unit vectors.
        probes: float32 (n, dim) encoded texts; None draws pictures' vectors with noise instead.
    """
    if probes is None:
        probes = _noisy(vectors)
    truth = exact_rows(vectors, probes[:_PROBES], k=_K)
    spec = index.spec
    for width in _WIDTHS:
        found = index.search(probes[:_PROBES], k=_K, expansion_search=width).rows
        spec = replace(spec, expansion_search=width, recall=round(recall(found, truth), 4))
        if spec.recall >= TARGET_RECALL:
            break
    return spec


def exact_rows(vectors: Float32s | Float16s, queries: Float32s, *, k: int) -> Int64s:
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


def _noisy(vectors: Float32s) -> Float32s:
    generator = np.random.default_rng(0)
    rows = generator.choice(len(vectors), size=_PROBES)
    noise = generator.standard_normal((_PROBES, vectors.shape[1])).astype(np.float32)
    noise *= _NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(vectors[rows] + noise, dtype=np.float32)
