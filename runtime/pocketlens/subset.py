"""Exact search among some of an index's rows: what a filter lets through, or what removals leave.

Few rows are scored from their originals. Of more, all codes of the index are compared with the query in one pass, at
the cost of an unfiltered search, and the originals of those rows are scored that could be among the best: a code's
score is off by no more than the code is, which the build has measured, and the query's own, which is seen here. So the
answer is that of an exhaustive search over the rows, however few or many they are, of an index by partitions too.
"""

from __future__ import annotations

import numpy as np

from pocketlens._native import numkong
from pocketlens._types import Float32s, Int8s, Int64s
from pocketlens.codes import directions, to_codes, to_units
from pocketlens.fusion import top
from pocketlens.index import Index, check_k

_SHARE = 16  # a sixteenth of the rows or fewer are scored directly: benchmarks/results/filters.json
_LEAST = 50  # rows that are scored first
_PER_HIT = 3
_ROUNDING = 1e-4  # of float32, and of kernels that take square roots by approximation, with room to spare


def search_among(index: Index, query: Float32s, rows: Int64s, *, k: int) -> tuple[Int64s, Float32s]:
    """Return the k rows nearest to a query among some, int64 (m,), best first, and their cosines, float32 (m,).

    Equal scores come in row order. Where the index has no originals, scores are those of the codes.

    Args:
        index: holds the rows.
        query: float32 (dim,), finite and not zero.
        rows: int64 (n,), rising.
        k: 1 to 1,000.

    Raises:
        BadQuery: k or the query is out of range.
    """
    check_k(k)
    unit = to_units(query[np.newaxis])  # (1, dim)
    if not len(rows):
        return rows, np.zeros(0, dtype=np.float32)
    if index.originals is None:
        scores = _code_scores(index, to_codes(unit, index.rotation), rows)
    else:
        first = max(_LEAST, _PER_HIT * k)
        if len(rows) > max(first, index.spec.rows // _SHARE):
            rows = _possible(index, unit, rows, k=k, first=first)
        scores = index.inner_products(unit, rows)[0]
    best = top(scores, k)
    return rows[best], np.clip(scores[best], -1, 1)  # a float16 row is not quite of length 1


def _possible(index: Index, unit: Float32s, rows: Int64s, *, k: int, first: int) -> Int64s:
    """Return the rows, rising, whose codes do not rule out that they are among the k nearest to a query, (1, dim)."""
    code = to_codes(unit, index.rotation)
    by_code = _code_scores(index, code, rows)
    leading = np.argpartition(by_code, len(rows) - first)[len(rows) - first :]
    scores = index.inner_products(unit, rows[leading])[0]
    least = np.partition(scores, first - k)[first - k]  # k rows reach it
    own_error = float(np.linalg.norm(unit @ index.rotation - directions(code)))
    return np.asarray(rows[by_code >= least - (index.spec.code_error + own_error + _ROUNDING)])


def _code_scores(index: Index, code: Int8s, rows: Int64s) -> Float32s:
    """Return the cosines of a query's code, int8 (1, dim), with those of rows, float32 (n,)."""
    if len(rows) <= index.spec.rows // _SHARE:
        return _cosines(index.codes[rows], code)
    cosines = np.concatenate([_cosines(codes, code) for codes in index.codes.parts])
    return np.asarray(cosines[rows])  # to copy many rows takes longer than to compare all


def _cosines(matrix: Int8s, code: Int8s) -> Float32s:
    return np.asarray(1 - np.asarray(numkong.cdist(matrix, code, "angular"), dtype=np.float32)[:, 0])
