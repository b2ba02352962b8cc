"""Pictures that are there more than once: the same bytes, or nearly the same vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.errors import BadQuery
from pocketlens.items import Item

if TYPE_CHECKING:  # contents leads here by way of selection
    from pocketlens.contents import Contents

# Pictures at this cosine or above count as near-duplicates. With lens-base, of 209 sample pictures stored again as JPEG
# of quality 70 all reach it, of quality 50 95 %, at half the size 68 %; of 87,153 pairs of different pictures, 3 do
# (benchmarks/results/near_duplicates.json).
NEAR = 0.97
_BLOCK_ROWS = 1_024


@dataclass(frozen=True, slots=True)
class Copy:
    """A picture that a group could do without.

    Attributes:
        item: the picture.
        cosine: to the picture that is kept, -1 to 1.
        exact: whether its file has the same bytes as the kept one's.
    """

    item: Item
    cosine: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that are nearly one.

    Attributes:
        keep: the largest of them in pixels, the first by id among equals.
        copies: the others: exact ones first, then by falling cosine, then by id. Each is near `keep`; two copies may be
            less near to one another.
    """

    keep: Item
    copies: tuple[Copy, ...]


def distinct(vectors: Float32s, *, shown: Float32s | None = None, near: float = NEAR) -> Int64s:
    """Return the places of the vectors that are near no vector kept before them, int64 (m,), rising.

    Args:
        vectors: float32 (n, dim), unit vectors, best first.
        shown: float32 (s, dim), unit vectors that count as kept from the start.
        near: cosine from which two are near.
    """
    hidden = np.zeros(len(vectors), dtype=bool)
    if shown is not None:
        hidden |= (vectors @ shown.T >= near).any(axis=1)
    cosines = vectors @ vectors.T  # (n, n)
    kept = []
    for place in range(len(vectors)):
        if not hidden[place]:
            kept.append(place)
            hidden |= cosines[place] >= near
    return np.asarray(kept, dtype=np.int64)


def find_exact(items: Sequence[Item]) -> list[Group]:
    """Return the groups of items whose files have the same sha256, by the kept item's id."""
    by_content: dict[str, list[Item]] = {}
    for item in sorted(items, key=_worth):
        by_content.setdefault(item.sha256, []).append(item)
    alike = [found for found in by_content.values() if len(found) > 1]
    groups = [Group(keep, tuple(Copy(item, 1.0, True) for item in others)) for keep, *others in alike]
    return sorted(groups, key=lambda group: group.keep.id)


def find_duplicates(
    contents: Contents, *, near: float = NEAR, on_progress: Callable[[int, int], None] | None = None
) -> list[Group]:
    """Return the groups of exact and near duplicates, by the kept item's id.

    Pictures are taken largest first. One that is near to some kept picture joins the nearest of these; any other is
    kept. So each copy is near to what is kept of its group: chains of small changes do not add up. Work grows with
    the square of the rows, memory with their number: vectors are compared block by block.

    Args:
        contents: what a bundle contains.
        near: cosine from which pictures count as near, above 0 and at most 1. Vectors are stored as float16, so near 1
            the last 0.0005 are noise; exact copies are always found.
        on_progress: called with the pairs of rows that are compared, and their number in all.

    Raises:
        BadQuery: `near` is out of range.
    """
    check_near(near)
    items = sorted(contents.read_all(), key=_worth)
    order = np.asarray(list(dict.fromkeys(item.row for item in items)), dtype=np.int64)  # rows, best first
    keepers, cosines = _assign(contents, order, near, on_progress or (lambda done, total: None))
    kept_row = dict(zip(order.tolist(), order[keepers].tolist(), strict=True))
    cosine_of = dict(zip(order.tolist(), cosines.tolist(), strict=True))
    members: dict[int, list[Item]] = {}
    for item in items:
        members.setdefault(kept_row[item.row], []).append(item)
    groups = [_group(found, cosine_of) for found in members.values() if len(found) > 1]
    return sorted(groups, key=lambda group: group.keep.id)


def check_near(near: Any) -> None:
    """Raise `BadQuery` unless `near` is a number above 0 and at most 1."""
    if not isinstance(near, (int, float)) or isinstance(near, bool) or not 0 < near <= 1:
        raise BadQuery(f"near is {near!r}, expected a cosine above 0 and at most 1")


def _worth(item: Item) -> tuple[int, str]:
    return (-item.width * item.height, item.id)


def _group(items: Sequence[Item], cosine_of: dict[int, float]) -> Group:
    keep, *others = items
    copies = [
        Copy(item, cosine_of[item.row] if item.sha256 != keep.sha256 else 1.0, item.sha256 == keep.sha256)
        for item in others
    ]
    return Group(keep, tuple(sorted(copies, key=lambda copy: (not copy.exact, -copy.cosine, copy.item.id))))


def _assign(
    contents: Contents, order: Int64s, near: float, on_progress: Callable[[int, int], None]
) -> tuple[Int64s, Float32s]:
    """Return for each place of `order` the place that is kept for it, int64 (n,), and their cosine, float32 (n,)."""
    keepers = np.arange(len(order))
    cosines = np.ones(len(order), dtype=np.float32)
    kept = np.zeros(0, dtype=np.int64)  # places
    total = len(order) * (len(order) + 1) // 2
    for start in range(0, len(order), _BLOCK_ROWS):
        places = np.arange(start, min(start + _BLOCK_ROWS, len(order)))
        vectors = contents.vectors(order[places])
        best, nearest = np.full(len(places), -2.0, dtype=np.float32), places.copy()
        for first in range(0, len(kept), _BLOCK_ROWS):
            block = kept[first : first + _BLOCK_ROWS]
            _improve(best, nearest, vectors @ contents.vectors(order[block]).T, block)
        _settle(vectors @ vectors.T, places, best, nearest, near)
        keepers[places], cosines[places] = nearest, best
        kept = np.concatenate([kept, places[nearest == places]])
        done = int(places[-1]) + 1
        on_progress(done * (done + 1) // 2, total)
    return keepers, cosines


def _improve(best: Float32s, nearest: Int64s, products: Float32s, block: Int64s) -> None:
    """Take over where a place of `block` is nearer; products is float32 (len(best), len(block))."""
    places = products.argmax(axis=1)
    values = products[np.arange(len(products)), places]
    better = values > best
    best[better], nearest[better] = values[better], block[places[better]]


def _settle(products: Float32s, places: Int64s, best: Float32s, nearest: Int64s, near: float) -> None:
    """Keep a block's places in turn, or give them to the nearest that is kept; products is float32 (block, block)."""
    for number, place in enumerate(places):
        if best[number] >= near:
            continue
        nearest[number], best[number] = place, 1.0
        later = slice(number + 1, None)
        better = products[number, later] > best[later]
        best[later][better], nearest[later][better] = products[number, later][better], place
