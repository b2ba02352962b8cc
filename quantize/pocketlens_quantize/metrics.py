"""How far an encoder's answers are from another's: cosines, shared hits, labelled recall. numpy alone, exact search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketlens._types import Float32s


def cosines(expected: Float32s, found: Float32s) -> Float32s:
    """Return the cosine of each pair of unit rows, float32 (n,)."""
    products: Float32s = (expected * found).sum(axis=1)
    return products


def scores(queries: Float32s, gallery: Float32s, *, leave_own_out: bool) -> Float32s:
    """Return cosines (n, rows) of queries with a gallery; `leave_own_out` hides row i from query i."""
    found: Float32s = queries @ gallery.T
    if leave_own_out:
        np.fill_diagonal(found, -np.inf)
    return found


def agreement(expected: Float32s, found: Float32s, k: int) -> float:
    """Return the mean share of the k best of `expected` (n, rows) that are among the k best of `found`."""
    pairs = zip(_best(expected, k), _best(found, k), strict=True)
    return float(np.mean([np.isin(ours, theirs).mean() for ours, theirs in pairs]))


def recall(found: Float32s, labels: Sequence[Sequence[int]], k: int) -> float:
    """Return the share of labelled queries with one of their rows among the k best; NaN when no query has labels."""
    best = _best(found, k)
    hits = [bool(np.isin(rows, best[i]).any()) for i, rows in enumerate(labels) if rows]
    return float(np.mean(hits)) if hits else float("nan")


def _best(found: Float32s, k: int) -> np.ndarray:
    return np.argsort(-found, axis=1, kind="stable")[:, : min(k, found.shape[1])]
