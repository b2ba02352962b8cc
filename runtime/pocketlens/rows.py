"""Rows of several arrays, such as files that are mapped, numbered through and read as those of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Int64s

T = TypeVar("T", bound=np.generic)


class Rows(Generic[T]):
    """The rows of some arrays, (n, width) each.

    Attributes:
        parts: the arrays.
        starts: int64 (parts,), the number of the first row of each.
    """

    def __init__(self, parts: Sequence[NDArray[T]]) -> None:
        self.parts = parts
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self.starts: Int64s = np.concatenate([[0], ends[:-1]])
        self._count = int(ends[-1])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice | Int64s) -> NDArray[T]:
        """Return rows by their numbers, int64 (m,), or in a stretch: of one array alone without a copy."""
        if len(self.parts) == 1:
            return self.parts[0][rows]
        if isinstance(rows, slice):
            return self._stretch(*rows.indices(self._count))
        places = np.searchsorted(self.starts, rows, side="right") - 1
        found = np.empty((len(rows), *self.parts[0].shape[1:]), dtype=self.parts[0].dtype)
        for number in np.unique(places):
            here = places == number
            found[here] = self.parts[number][rows[here] - self.starts[number]]
        return found

    def _stretch(self, first: int, stop: int, step: int) -> NDArray[T]:
        assert step == 1
        bounds = zip(self.parts, self.starts.tolist(), strict=True)
        cut = [part[max(first - start, 0) : max(stop - start, 0)] for part, start in bounds]
        cut = [part for part in cut if len(part)] or cut[:1]
        return cut[0] if len(cut) == 1 else np.concatenate(cut)
