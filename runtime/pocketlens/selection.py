"""Which of the rows that a search ranks come back: how many, from which z on, and whether near-duplicates do."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.duplicates import distinct
from pocketlens.errors import BadQuery
from pocketlens.fusion import Fused
from pocketlens.index import MAX_K, check_k

_MOST_Z = 1e6
_MORE = 4  # times as many rows are looked at when near-duplicates leave too few


class Vectors(Protocol):
    """Gives the unit vectors of rows."""

    def vectors(self, rows: Int64s) -> Float32s:
        """Return float32 (n, dim) of int64 (n,) rows."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a caller wants of the ranking.

    Attributes:
        k: how many hits, 1 to 1,000.
        min_z: hits whose z is lower are left out; None leaves none out.
        diverse: hide rows whose picture is a near-duplicate of a better hit's; see `duplicates.NEAR`.

    Raises:
        BadQuery: a value is out of range.
    """

    k: int
    min_z: float | None = None
    diverse: bool = False

    def __post_init__(self) -> None:
        check_k(self.k)
        check_min_z(self.min_z)

    def among(self, index: Vectors, find: Callable[[int], Fused], *, shown: Float32s | None = None) -> Fused:
        """Return the selected rows of a ranking, best first.

        Args:
            index: holds the rows' vectors.
            find: returns the best rows, as many as asked for, 1 to 1,000.
            shown: float32 (m, dim), unit vectors of pictures whose near-duplicates are hidden too.
        """
        if not self.diverse:
            return self._clear(find(self.k))
        wanted = min(_MORE * self.k, MAX_K)
        while True:
            found = find(wanted)
            kept = distinct(index.vectors(found.rows), shown=shown)[: self.k]
            if len(kept) == self.k or len(found.rows) < wanted or wanted == MAX_K:
                return self._clear(_taken(found, kept))
            wanted = min(_MORE * wanted, MAX_K)

    def one_more(self) -> Selection:
        """Return a selection with room for one hit more, where the limit allows it."""
        return replace(self, k=min(self.k + 1, MAX_K))

    def _clear(self, found: Fused) -> Fused:
        if self.min_z is None:
            return found
        return _taken(found, np.flatnonzero(found.z_scores >= self.min_z))


def check_min_z(value: Any) -> None:
    """Raise `BadQuery` unless `value` is None or a number of standard deviations, from -1,000,000 to 1,000,000."""
    if value is None:
        return
    number = not isinstance(value, bool) and isinstance(value, numbers.Real)
    if not number or not abs(value) <= _MOST_Z:  # NaN compares with nothing
        raise BadQuery(f"min_z is {value!r}, expected a number from -1e6 to 1e6")


def _taken(found: Fused, places: Int64s) -> Fused:
    return Fused(found.rows[places], found.scores[places], found.cosines[places], found.z_scores[places])
