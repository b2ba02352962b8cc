"""Compacting: a new gallery of what a bundle contains now, in a new bundle that takes the place of the old one.

It has one generation and continues none: updates of the old one do not fit it any more.

The store's write lock is held from the first look to the switch, so nothing that is committed can be left behind; who
wants to add meanwhile waits, and finds the new bundle. Whoever has the old one open keeps its files.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.bundle import seal_bundle, share_towers
from pocketlens.collection import Collection
from pocketlens.contents import Contents
from pocketlens.errors import BadQuery, CorruptFile
from pocketlens.files import new_folder
from pocketlens.gallery import Counts, Gallery
from pocketlens.gallery_writer import write_gallery
from pocketlens.items import Item
from pocketlens.local import FILES, Store

_BLOCK_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compacting did: items now, how many were added or are gone, and the gallery's generation now and before."""

    items: int
    added: int
    gone: int
    generation: int
    before: int


def compact(collection: Collection, *, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Compacted:
    """Make a new gallery of what the bundle contains, with new statistics, and put it in the place of the old one.

    A crash at any moment leaves the old bundle with its additions, or the new one. Without additions, removals and
    updates it only removes what a crash left of making a store. It takes memory for all vectors as float32, twice as
    much for a gallery with partitions, and room on the disk for a second gallery.

    Args:
        collection: the opened bundle; it follows to the new one.
        on_progress: called with (steps done, steps in all); most steps are rows.

    Raises:
        BadQuery: no item is left, and a gallery needs one.
        Busy: another process was changing the bundle all the time, or kept it open.
        FormatError: the bundle cannot be written.
        CorruptFile: a file of the bundle is damaged.
    """
    folder = collection.folder.resolve()  # a link to a bundle goes on showing there
    collection.check_place()
    before = collection.now()
    manifest = before.gallery.manifest
    if not before.local.additions and not before.local.removed and not manifest.previous:
        collection.tidy()
        return Compacted(before.count, 0, 0, manifest.generation, manifest.generation)

    def write(gallery: Gallery, store: Store) -> Compacted:
        contents = Contents(gallery, store.read())
        with new_folder(folder, replace=True, dropping=FILES) as new:
            _write_bundle(contents, folder, new, on_progress)
        old = gallery.manifest.generation
        return Compacted(contents.count, len(contents.local.additions), len(contents.hidden), old + 1, old)

    compacted = collection.change(write)
    collection.now()  # follows
    return compacted


def _write_bundle(contents: Contents, old: Path, new: Path, on_progress: Callable[[int, int], None]) -> None:
    rows, items = _renumbered(contents.read_all())
    if not items:
        raise BadQuery(f"{old}: no item is left, and a gallery needs one; it stays as it is")
    steps = 2 * len(rows)  # reading a vector, and indexing it
    vectors = np.empty((len(rows), contents.gallery.manifest.space.dim), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        vectors[part] = contents.vectors(rows[part])
        on_progress(min(start + _BLOCK_ROWS, len(rows)), steps)
    _write_gallery(new / "gallery", contents.gallery, vectors, items)
    _compare(new / "gallery", vectors, items)
    share_towers(old, new)
    seal_bundle(new)
    on_progress(steps, steps)


def _write_gallery(folder: Path, old: Gallery, vectors: Float32s, items: list[Item]) -> None:
    folder.mkdir()
    counts = Counts(len(items), len(vectors), duplicates=len(items) - len(vectors), skipped={})
    manifest = old.manifest
    write_gallery(
        folder,
        vectors,
        items,
        space=manifest.space,
        model=manifest.model,
        counts=counts,
        rescore=manifest.rescore,
        generation=manifest.generation + 1,
        attributes=manifest.attributes,
    )


def _compare(folder: Path, vectors: Float32s, items: list[Item]) -> None:
    """Raise unless what was written can be read: what it was made of is gone after the switch.

    Rows may have another order, that of partitions; the items tell which.
    """
    with closing(Gallery.open(folder)) as gallery:
        written, originals = gallery.items.read_all(), gallery.index.originals
        row_of = {item.id: item.row for item in written}
        places = np.zeros(len(vectors), dtype=np.int64)
        for item in items:
            places[item.row] = row_of.get(item.id, 0)
        moved = [replace(item, row=int(places[item.row])) for item in items]
        same = originals is None or np.array_equal(originals[places], vectors.astype(np.float16))
        if not same or written != sorted(moved, key=lambda item: (item.row, item.id)):
            raise CorruptFile(folder, found="other vectors or items", expected="what was written")


def _renumbered(items: list[Item]) -> tuple[Int64s, list[Item]]:
    """Return the rows that stay, int64 (n,), and the items with their rows among these, by row and id.

    Items of equal bytes share a row, the first one's.
    """
    places: dict[int, int] = {}  # by row
    of_bytes: dict[str, int] = {}
    renumbered = []
    for item in items:
        place = places.get(item.row, of_bytes.get(item.sha256, len(places)))
        if place == len(places):
            places[item.row] = place
        of_bytes.setdefault(item.sha256, place)
        renumbered.append(replace(item, row=place))
    return np.fromiter(places, dtype=np.int64), sorted(renumbered, key=lambda item: (item.row, item.id))
