"""The items of a gallery's segments as one: rows and items are numbered through, and what was taken away is hidden."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pocketlens._types import Bools, Int64s
from pocketlens.errors import BadQuery
from pocketlens.items import Item, Items


class Catalogue:
    """What is known of each picture of a gallery, for showing. It may be used from several threads.

    Args:
        segments: the items of each, whose rows begin at 0.
        first: int64 (rows + 1,), the number of each row's first item, over all segments; then the number of items.
        there: bool (items,), which no later segment took away; None for all.
    """

    def __init__(self, segments: Sequence[Items], first: Int64s, there: Bools | None) -> None:
        self._segments = segments
        self._first = first
        self._there = there
        ends = np.cumsum([segment.count for segment in segments])  # items
        self._starts: list[int] = [0, *np.searchsorted(first, ends[:-1]).tolist()]  # rows

    @property
    def count(self) -> int:
        """How many items there are."""
        return int(self._first[-1] if self._there is None else self._there.sum())

    def of_row(self, row: int) -> list[Item]:
        """Return the items that share a code row, by id."""
        number = bisect_right(self._starts, row) - 1
        items = [replace(item, row=row) for item in self._segments[number].of_row(row - self._starts[number])]
        if self._there is None:
            return items
        there = self._there[self._first[row] : self._first[row + 1]]
        return [item for item, is_there in zip(items, there, strict=True) if is_there]

    def find(self, id: str) -> Item:
        """Return the item of an id.

        Raises:
            BadQuery: there is none, or `id` is no string.
        """
        for number in reversed(range(len(self._segments))):
            item = self._segments[number].find(id)
            if item is not None and (self._there is None or self._numbers(number, {id: item.row})):
                return replace(item, row=item.row + self._starts[number])
        raise BadQuery(f"no item has the id {id!r}; an id is a picture's path below the folder that was indexed")

    def numbers_of(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the numbers of those ids that items have; ids are text that UTF-8 can hold.

        Items are numbered by row, then by id, over all segments, together with those that were taken away.
        """
        ids = list(ids)
        found: dict[str, int] = {}
        for number, segment in enumerate(self._segments):
            found |= self._numbers(number, segment.rows_of(ids))
        return found

    def read_all(self) -> list[Item]:
        """Return every item, by row and id."""
        found: list[Item] = []
        for segment, start in zip(self._segments, self._starts, strict=True):
            items = segment.read_all()
            found += [replace(item, row=item.row + start) for item in items] if start else items
        if self._there is None:
            return found
        return [item for item, is_there in zip(found, self._there, strict=True) if is_there]

    def close(self) -> None:
        """Close the databases."""
        for segment in self._segments:
            segment.close()

    def _numbers(self, number: int, rows: Mapping[str, int]) -> dict[str, int]:
        """Return the numbers of those items of a segment, row by id, that are there."""
        if not rows:
            return {}
        sharing, start = self._segments[number].ids_of(set(rows.values())), self._starts[number]
        found = {id: int(self._first[row + start]) + sharing[row].index(id) for id, row in rows.items()}
        there = self._there
        return found if there is None else {id: place for id, place in found.items() if there[place]}
