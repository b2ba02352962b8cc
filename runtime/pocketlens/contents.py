"""What a bundle contains at one moment: the shipped gallery, without what was removed, and what the device added.

Added items have rows too, after the gallery's own, so that everything that works on rows sees one gallery. An added
item takes the place of a shipped one of the same id. Mean and covariance, and so z, stay those of the shipped gallery
until `compact` makes a new one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np

from pocketlens._types import Bools, Float32s, Int64s
from pocketlens.codes import to_units
from pocketlens.columns import Columns, encode_columns
from pocketlens.compose.method import Composed
from pocketlens.errors import BadQuery
from pocketlens.filter import Filter, select_items
from pocketlens.fusion import Fused, rank_fused, search_fused, top
from pocketlens.gallery import Gallery
from pocketlens.items import Item
from pocketlens.local import NOTHING, Local
from pocketlens.subset import search_among


class Contents:
    """One state of a bundle. It never changes, and may be used from several threads.

    Args:
        gallery: the opened gallery.
        local: what the device added and removed.

    Attributes:
        gallery: the shipped gallery; its statistics hold for all.
        local: as given.
        hidden: ids of the shipped items that were removed or replaced.
    """

    def __init__(self, gallery: Gallery, local: Local = NOTHING) -> None:
        self.gallery = gallery
        self.local = local
        self._first = gallery.index.spec.rows  # row of an added item
        self._added = [replace(one.item, row=self._first + place) for place, one in enumerate(local.additions.values())]
        self._row_of = {item.id: item.row for item in self._added}
        halves = [one.vector for one in local.additions.values()]
        self._vectors = (
            np.stack(halves).astype(np.float32)
            if halves
            else np.zeros((0, gallery.manifest.space.dim), dtype=np.float32)
        )
        shipped = gallery.items.numbers_of([*local.removed, *local.additions])
        self.hidden = frozenset(shipped)
        self._filtered = False
        self._places = np.arange(len(self._added))  # of the added items that may be found
        self._items = gallery.there  # which shipped ones may; None: all
        self._rows: Int64s | None = None  # theirs; None: all of the index
        if shipped:
            self._items = _without(gallery, list(shipped.values()))
            self._rows = _rows(gallery, self._items)

    @property
    def count(self) -> int:
        """How many items there are."""
        shipped = self.gallery.items.count if self._items is None else int(self._items.sum())
        return shipped + len(self._places)

    def where(self, filter: Filter) -> Contents:
        """Return the same without the items that a filter does not let through.

        Rows, and what `find` and `find_all` see, stay as they are. Searches of the result are exhaustive over its rows.
        """
        shipped = select_items(filter, self.gallery.columns)
        narrowed = copy.copy(self)
        narrowed._filtered = True
        narrowed._items = shipped if self._items is None else shipped & self._items
        narrowed._rows = self.gallery.columns.rows_of(narrowed._items)
        added = select_items(filter, self._added_columns)
        narrowed._places = self._places[added[self._places]]
        return narrowed

    def nearest(self, vector: Float32s, *, k: int) -> Fused:
        """Return the k rows nearest to a query vector, float32 (dim,), best first; equal scores in row order.

        Raises:
            BadQuery: k is no integer from 1 to 1,000.
        """
        unit = to_units(vector[np.newaxis])[0]
        rows, cosines = self._nearest_shipped(unit, k)
        if len(self._places):
            near = np.clip(self._vectors[self._places] @ unit, -1, 1)  # a float16 row is not quite of length 1
            best = top(near, k)
            rows, cosines = np.concatenate([rows, self._added_rows(best)]), np.concatenate([cosines, near[best]])
            order = top(cosines, k)
            rows, cosines = rows[order], cosines[order]
        return Fused(rows, cosines, cosines, self.gallery.z_scores(unit, cosines))

    def fused(self, composed: Composed, *, k: int) -> Fused:
        """Return the k rows that score best by what a method makes of several scores; equal scores in row order.

        Raises:
            BadQuery: k or a vector is out of range.
        """
        exhaustive = True if self._filtered else None  # candidates might miss some
        found = search_fused(self.gallery, composed, k=k, rows=self._rows, exhaustive=exhaustive)
        if not len(self._places):
            return found
        added = rank_fused(self.gallery, composed, self._vectors[self._places], k=k)
        both = [found, replace(added, rows=self._added_rows(added.rows))]
        rows, scores = (np.concatenate([each.rows for each in both]), np.concatenate([each.scores for each in both]))
        cosines, z_scores = (np.concatenate([getattr(each, name) for each in both]) for name in ("cosines", "z_scores"))
        order = top(scores, k)
        return Fused(rows[order], scores[order], cosines[order], z_scores[order])

    def vectors(self, rows: Int64s) -> Float32s:
        """Return the unit vectors of rows, float32 (n, dim)."""
        shipped = rows < self._first
        vectors = np.empty((len(rows), self.gallery.manifest.space.dim), dtype=np.float32)
        if shipped.any():
            vectors[shipped] = self.gallery.index.vectors(rows[shipped])
        vectors[~shipped] = self._vectors[rows[~shipped] - self._first]
        return vectors

    def of_row(self, row: int) -> list[Item]:
        """Return the items that share a row, by id."""
        if row >= self._first:
            return [self._added[row - self._first]]
        return self._visible(self.gallery.items.of_row(row), self.gallery.columns.of_row(row))

    def find(self, id: str) -> Item:
        """Return the item of an id.

        Raises:
            BadQuery: there is none, or `id` is no string.
        """
        if id in self._row_of:
            return self._added[self._row_of[id] - self._first]
        item = self.gallery.items.find(id)
        if id in self.hidden:
            raise BadQuery(f"the item {id!r} was removed")
        return item

    def find_all(self, ids: Iterable[str]) -> dict[str, Item]:
        """Return the items of those ids that items have."""
        ids = list(ids)
        there = self._row_of.keys() | (self.gallery.items.numbers_of(ids).keys() - self.hidden)
        return {id: self.find(id) for id in ids if id in there}

    def read_all(self) -> list[Item]:
        """Return every item, by row and id."""
        return self._visible(self.gallery.items.read_all(), slice(None)) + [
            self._added[place] for place in self._places
        ]

    @cached_property
    def _added_columns(self) -> Columns:
        items = [replace(item, row=place) for place, item in enumerate(self._added)]
        schema = self.gallery.manifest.attributes
        return Columns(schema, encode_columns(schema, items, len(items)))

    def _visible(self, items: list[Item], numbers: slice) -> list[Item]:
        """Return those of the gallery's items of these numbers that may be found."""
        if self._items is None:
            return items
        found = self._items[numbers]
        if self.gallery.there is not None:
            found = found[self.gallery.there[numbers]]
        return [item for item, is_there in zip(items, found, strict=True) if is_there]

    def _added_rows(self, best: Int64s) -> Int64s:
        return np.asarray(self._first + self._places[best])

    def _nearest_shipped(self, unit: Float32s, k: int) -> tuple[Int64s, Float32s]:
        index = self.gallery.index
        if self._rows is not None:
            return search_among(index, unit, self._rows, k=k)
        matches = index.search(unit[np.newaxis], k=k)
        count = int(matches.counts[0])
        return matches.rows[0, :count], matches.scores[0, :count]


def _without(gallery: Gallery, numbers: list[int]) -> Bools:
    """Return which of the gallery's items are left when those of these numbers are gone."""
    left = np.ones(gallery.columns.count, dtype=bool) if gallery.there is None else gallery.there.copy()
    left[numbers] = False
    return left


def _rows(gallery: Gallery, items: Bools) -> Int64s | None:
    """Return the rows that have one of these items; None for all that the index finds."""
    rows = gallery.columns.rows_of(items)
    return None if len(rows) == len(gallery.index.rows) else rows
