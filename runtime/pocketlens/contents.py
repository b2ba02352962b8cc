"""What a bundle contains at one moment: the shipped gallery, without what was removed, and what the device added.

Added items have rows too, after the gallery's own, so that everything that works on rows sees one gallery. An added
item takes the place of a shipped one of the same id. Mean and covariance, and so z, stay those of the shipped gallery
until `compact` makes a new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.codes import to_units
from pocketlens.compose.method import Composed
from pocketlens.errors import BadQuery
from pocketlens.fusion import Fused, rank_fused, search_fused, top
from pocketlens.gallery import Gallery
from pocketlens.index import check_k
from pocketlens.items import Item
from pocketlens.local import NOTHING, Local


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
        self._first = gallery.manifest.index.rows  # row of an added item
        self._added = [replace(one.item, row=self._first + place) for place, one in enumerate(local.additions.values())]
        self._row_of = {item.id: item.row for item in self._added}
        halves = [one.vector for one in local.additions.values()]
        self._vectors = (
            np.stack(halves).astype(np.float32)
            if halves
            else np.zeros((0, gallery.manifest.space.dim), dtype=np.float32)
        )
        shipped = gallery.items.rows_of([*local.removed, *local.additions])
        self.hidden = frozenset(shipped)
        self._rows = _allowed(gallery, shipped)

    @property
    def count(self) -> int:
        """How many items there are."""
        return self.gallery.items.count - len(self.hidden) + len(self._added)

    def nearest(self, vector: Float32s, *, k: int) -> Fused:
        """Return the k rows nearest to a query vector, float32 (dim,), best first; equal scores in row order.

        Raises:
            BadQuery: k is no integer from 1 to 1,000.
        """
        unit = to_units(vector[np.newaxis])[0]
        rows, cosines = self._nearest_shipped(unit, k)
        if len(self._vectors):
            near = np.clip(self._vectors @ unit, -1, 1)  # a float16 row is not quite of length 1
            best = top(near, k)
            rows, cosines = np.concatenate([rows, self._first + best]), np.concatenate([cosines, near[best]])
            order = top(cosines, k)
            rows, cosines = rows[order], cosines[order]
        return Fused(rows, cosines, cosines, self.gallery.z_scores(unit, cosines))

    def fused(self, composed: Composed, *, k: int) -> Fused:
        """Return the k rows that score best by what a method makes of several scores; equal scores in row order.

        Raises:
            BadQuery: k or a vector is out of range.
        """
        found = search_fused(self.gallery, composed, k=k, rows=self._rows)
        if not len(self._vectors):
            return found
        added = rank_fused(self.gallery, composed, self._vectors, k=k)
        both = [found, replace(added, rows=self._first + added.rows)]
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
        return [item for item in self.gallery.items.of_row(row) if item.id not in self.hidden]

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
        there = self._row_of.keys() | (self.gallery.items.rows_of(ids).keys() - self.hidden)
        return {id: self.find(id) for id in ids if id in there}

    def read_all(self) -> list[Item]:
        """Return every item, by row and id."""
        shipped = [item for item in self.gallery.items.read_all() if item.id not in self.hidden]
        return shipped + self._added

    def _nearest_shipped(self, unit: Float32s, k: int) -> tuple[Int64s, Float32s]:
        index = self.gallery.index
        if self._rows is None:
            matches = index.search(unit[np.newaxis], k=k)
            count = int(matches.counts[0])
            return matches.rows[0, :count], matches.scores[0, :count]
        check_k(k)
        cosines = np.clip(index.inner_products(unit[np.newaxis], self._rows)[0], -1, 1)
        best = top(cosines, k)
        return self._rows[best], cosines[best]


def _allowed(gallery: Gallery, hidden: Mapping[str, int]) -> Int64s | None:
    """Return the rows that have an item left when those of `hidden`, row by id, are gone; None for all."""
    gone = Counter(hidden.values())
    shared = gallery.items.counts_of(gone)
    empty = [row for row, count in gone.items() if count == shared[row]]
    return np.delete(np.arange(gallery.manifest.index.rows), empty) if empty else None
