"""Search by several scores that a method fuses into one: every row of a small gallery, candidates in a large one.

Candidates are the rows nearest to each vector of the query and to a fan of weighted sums of them. What methods fuse
never falls when the score of a wanted vector rises, nor rises with that of an unwanted one, and its level sets bulge
towards the good corner; so the best rows lie on the outer edge of the cloud of scores, and each of them leads in the
direction of some weighted sum. That is the score of a weighted sum of vectors, which an index finds.
(WeiMoCIR is the exception: a small share of its score is no function of the others, but of what a row is called.)

The constants were measured: benchmarks/results/fusion.json.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.codes import LEAST_DEVIATION, to_units
from pocketlens.compose.method import Composed, Scores
from pocketlens.compose.weights import LEAST_NORM
from pocketlens.gallery import Gallery
from pocketlens.index import check_k

# Up to this many every row is scored. Candidates are no faster before 400,000 (benchmarks/results/fusion.json); but
# scoring every row reads all of rescore.f16, 100 MB here at 512 dimensions, which a small device must keep in memory.
EXHAUSTIVE_ROWS = 100_000
CANDIDATES = 400  # rows of each sum
_MOST_SINGLE = 0.5  # of the rows that are read one by one; of more, to read all is faster
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the second wanted vector in a sum
_AVOIDED = (0.0, 0.5, 1.0)  # of each unwanted vector, taken off the sum


@dataclass(frozen=True, slots=True)
class Fused:
    """The best rows of a fused search, best first.

    Attributes:
        rows: int64 (m,), at most k of them.
        scores: float32 (m,), what the method made of the row's scores; higher is nearer.
        cosines: float32 (m,), the mean of the row's cosines with the query's wanted vectors.
        z_scores: float32 (m,), the mean of its standardised cosines.
    """

    rows: Int64s
    scores: Float32s
    cosines: Float32s
    z_scores: Float32s


def search_fused(
    gallery: Gallery, composed: Composed, *, k: int, rows: Int64s | None = None, exhaustive: bool | None = None
) -> Fused:
    """Return the k rows that score best; equal scores in row order.

    Args:
        gallery: what to search.
        composed: a query with `fuse`.
        k: 1 to 1,000; fewer come back only when the gallery has fewer rows.
        rows: int64 (m,), rising: the rows that may be found; None allows all. Statistics are the whole gallery's.
        exhaustive: whether to score every such row; by default up to 100,000.

    Raises:
        BadQuery: k or a vector is out of range.
    """
    check_k(k)
    index = gallery.index
    there = index.rows
    allowed = there if rows is None else rows
    if exhaustive is None:
        exhaustive = len(allowed) <= EXHAUSTIVE_ROWS
    if not exhaustive:
        _, deviations = _statistics(gallery, composed.vectors)
        directions = fan(composed.vectors, deviations, composed.negatives)
        forbidden = len(there) - len(allowed)
        found = index.candidates(directions, max(CANDIDATES, 2 * k) + forbidden)
        allowed = found if rows is None else np.intersect1d(found, rows, assume_unique=True)
    if not len(allowed):
        nothing = np.zeros(0, dtype=np.float32)
        return Fused(allowed, nothing, nothing, nothing)
    if exhaustive and len(allowed) > _MOST_SINGLE * index.spec.rows:
        values = index.inner_products(composed.vectors)[:, allowed]
    else:
        values = index.inner_products(composed.vectors, allowed)
    ranked = _ranked(gallery, composed, values, lambda places: index.vectors(allowed[places]), k)
    return replace(ranked, rows=allowed[ranked.rows])


def rank_fused(gallery: Gallery, composed: Composed, vectors: Float32s, *, k: int) -> Fused:
    """Return the k best of unit vectors that the gallery lacks, float32 (n, dim), by their places among them.

    They are scored as the gallery's own are, by its statistics.
    """
    values = composed.vectors @ vectors.T  # (p, n)
    return _ranked(gallery, composed, values, lambda places: vectors[places], k)


def fan(vectors: Float32s, deviations: Float32s, negatives: int) -> Float32s:
    """Return the directions in which candidates are looked for, float32 (n, dim).

    Each vector counts by the deviation of its scores over the gallery, so that no score outweighs the others. Sums that
    cancel out are left out: what is wanted may be unwanted too.

    Args:
        vectors: float32 (p, dim), the last `negatives` of them unwanted.
        deviations: float32 (p,), of their scores over the gallery.
        negatives: how many are unwanted.
    """
    scaled = vectors / np.maximum(deviations, LEAST_DEVIATION)[:, np.newaxis]  # (p, dim)
    wanted, unwanted = scaled[: len(scaled) - negatives], scaled[len(scaled) - negatives :].sum(axis=0)
    sums = list(wanted)
    if len(wanted) == 2:
        sums = [(1.0 - share) * wanted[0] + share * wanted[1] for share in _SHARES]
    elif len(wanted) > 2:
        sums.append(wanted.mean(axis=0))
    amounts = _AVOIDED if negatives else (0.0,)
    directions = np.asarray([each - amount * unwanted for each in sums for amount in amounts], dtype=np.float32)
    least = LEAST_NORM * np.linalg.norm(wanted, axis=1).max()  # below it there is only rounding
    return np.asarray(directions[np.linalg.norm(directions, axis=1) > least])


def top(scores: Float32s, k: int) -> Int64s:
    """Return the places of the k highest scores, int64 (at most k,), best first; equal ones in order."""
    places = np.arange(len(scores))
    if len(scores) > k:
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")[:k]]


def _ranked(
    gallery: Gallery, composed: Composed, values: Float32s, vectors: Callable[[Int64s], Float32s], k: int
) -> Fused:
    """Return the k places that score best of n, by inner products with the query's vectors, float32 (p, n)."""
    assert composed.fuse is not None
    fused = composed.fuse(Scores(values, *_statistics(gallery, composed.vectors), vectors))
    best = top(fused, k)
    wanted = len(composed.vectors) - composed.negatives
    lengths = np.linalg.norm(composed.vectors[:wanted], axis=1, keepdims=True)
    cosines = values[:wanted, best] / lengths  # (wanted, m)
    units = to_units(composed.vectors[:wanted])
    z_scores = [gallery.z_scores(unit, each) for unit, each in zip(units, cosines, strict=True)]
    return Fused(best, fused[best], np.clip(cosines.mean(axis=0), -1, 1), np.mean(z_scores, axis=0))


def _statistics(gallery: Gallery, vectors: Float32s) -> tuple[Float32s, Float32s]:
    """Return mean and deviation of each vector's inner products with the gallery's rows, float32 (p,) each."""
    variances = ((vectors @ gallery.covariance) * vectors).sum(axis=1)  # v'Σv of each
    return vectors @ gallery.mean, np.sqrt(np.maximum(variances, 0.0))
