"""Which of the rows that a search ranks come back: how many, how far they stand out, and whether near-duplicates do."""

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

BACKGROUND = 50  # margins are over the rows ranked second to here; a search re-scores as many anyway
_MOST = 1e6  # of a least z or margin
_MORE = 4  # times as many rows are looked at when near-duplicates leave too few


class Vectors(Protocol):
    """Gives the unit vectors of rows."""

    def vectors(self, rows: Int64s) -> Float32s:
        """Return float32 (n, dim) of int64 (n,) rows."""


@dataclass(frozen=True, slots=True)
class Selected:
    """Rows that come back, best first.

    Attributes:
        found: the rows with their figures.
        margins: float32 (m,), each row's cosine less the mean of the cosines ranked second to fiftieth.
    """

    found: Fused
    margins: Float32s


@dataclass(frozen=True, slots=True)
class Selection:
    """What a caller wants of the ranking.

    Attributes:
        k: how many hits, 1 to 1,000.
        min_z: hits whose z is lower are left out; None leaves none out.
        min_margin: hits whose margin is lower are left out; None leaves none out.
        diverse: hide rows whose picture is a near-duplicate of a better hit's; see `duplicates.NEAR`.

    Raises:
        BadQuery: a value is out of range.
    """

    k: int
    min_z: float | None = None
    min_margin: float | None = None
    diverse: bool = False

    def __post_init__(self) -> None:
        check_k(self.k)
        _check_least("min_z", self.min_z)
        _check_least("min_margin", self.min_margin)

    def among(self, index: Vectors, find: Callable[[int], Fused], *, shown: Float32s | None = None) -> Selected:
        """Return the selected rows of a ranking, best first.

        Args:
            index: holds the rows' vectors.
            find: returns the best rows, as many as asked for, 1 to 1,000.
            shown: float32 (m, dim), unit vectors of pictures whose near-duplicates are hidden too.
        """
        wanted = max(min(_MORE * self.k, MAX_K) if self.diverse else self.k, BACKGROUND)
        while True:
            found = find(wanted)
            places = distinct(index.vectors(found.rows), shown=shown) if self.diverse else np.arange(len(found.rows))
            if len(places) >= self.k or len(found.rows) < wanted or wanted == MAX_K:
                return self._clear(found, places[: self.k])
            wanted = min(_MORE * wanted, MAX_K)

    def one_more(self) -> Selection:
        """Return a selection with room for one hit more, where the limit allows it."""
        return replace(self, k=min(self.k + 1, MAX_K))

    def _clear(self, found: Fused, places: Int64s) -> Selected:
        margins = found.cosines - _background(found.cosines)
        for values, least in ((found.z_scores, self.min_z), (margins, self.min_margin)):
            if least is not None:
                places = places[values[places] >= least]
        rows = Fused(found.rows[places], found.scores[places], found.cosines[places], found.z_scores[places])
        return Selected(rows, margins[places])


def _background(cosines: Float32s) -> float:
    """Return the mean of the cosines ranked second to fiftieth; a single one stands for itself."""
    rest = cosines[1:BACKGROUND] if len(cosines) > 1 else cosines
    return float(rest.mean()) if len(rest) else 0.0


def _check_least(name: str, value: Any) -> None:
    """Raise `BadQuery` unless a value is None or a number from -1,000,000 to 1,000,000."""
    if value is None:
        return
    number = not isinstance(value, bool) and isinstance(value, numbers.Real)
    if not number or not abs(value) <= _MOST:  # NaN compares with nothing
        raise BadQuery(f"{name} is {value!r}, expected a number from -1e6 to 1e6")
