"""Chooses the search width of a gallery's graph by measured recall on text-like queries.

Text queries lie outside the pictures' distribution, and there the width, not int8, decides what is found: at USearch's
default width a graph finds 67 % of the true top 10 among 100,000 pictures. So the build measures, and writes down, the
least width that reaches the target.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.index import Index, IndexSpec

TARGET_RECALL = 0.98
_WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
_K = 10
_PROBES = 256
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


def exact_rows(vectors: Float32s, queries: Float32s, *, k: int) -> Int64s:
    """Return the k rows of highest inner product by exhaustive float32 search, int64 (n, k), best first."""
    best = np.empty((len(queries), min(k, len(vectors))), dtype=np.int64)
    for i, query in enumerate(queries):
        scores = vectors @ query  # (rows, dim) @ (dim,)
        top = np.argpartition(-scores, best.shape[1] - 1)[: best.shape[1]]
        best[i] = top[np.argsort(-scores[top], kind="stable")]
    return best


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
