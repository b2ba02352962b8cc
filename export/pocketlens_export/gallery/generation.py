"""The next generation of a gallery: the files of the last one as they are, and a segment with what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from pocketlens._types import Bools, Float16s, Float32s, Int8s, Int64s
from pocketlens.bundle import MANIFEST as BUNDLE_MANIFEST
from pocketlens.bundle import read_bundle, seal_bundle, share_towers
from pocketlens.errors import BadQuery, Busy
from pocketlens.files import new_folder, sha256_of, share_file
from pocketlens.gallery import FORMAT, MANIFEST, VERSION, Counts, Gallery
from pocketlens.gallery_writer import versions
from pocketlens.items import Item
from pocketlens.listing import Skipped
from pocketlens.manifest import write_manifest
from pocketlens.model import FileRecord
from pocketlens.segment_files import SegmentRecord, segment_file_names, segment_folder
from pocketlens.segment_writer import SegmentWriter, write_gone
from pocketlens_export.gallery.sources.entry import is_of_its_id

_BLOCK = 500  # items


class GenerationWriter:
    """Writes a gallery's next generation into an empty folder on the same disk. A context manager.

    Rotation, statistics and attributes' types stay those of the first generation.

    Args:
        folder: an existing empty folder.
        old: the gallery's folder.
        gallery: the same, opened.
        gone: int64 (n,), numbers of items that are no more; of those that are replaced they are found.

    Attributes:
        rows: how many vectors were added.
        changed: how many items took the place of one, once it is finished.
        generation: the number of what is written.
    """

    def __init__(self, folder: Path, old: Path, gallery: Gallery, gone: Int64s) -> None:
        self._folder, self._old, self._gallery = folder, old, gallery
        self._left = np.ones(gallery.columns.count, dtype=bool) if gallery.there is None else gallery.there.copy()
        self._left[gone] = False
        self._number = len(gallery.manifest.segments)
        self._segment = segment_folder(folder, self._number)
        self._writer: SegmentWriter | None = None
        self._unread = np.zeros(gallery.columns.count, dtype=bool)
        self._stayed: Counter[str] = Counter()
        self.rows = self.changed = self._items = 0
        self.generation = gallery.manifest.generation + 1

    @property
    def stays(self) -> int:
        """How many of the gallery's items stay as they are, once it is finished."""
        return int(self._left.sum())

    def __enter__(self) -> GenerationWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.__exit__()

    def add(self, vectors: Float32s | Float16s, codes: Int8s | None = None) -> None:
        """Append rows of new and changed pictures; see `gallery_writer.GalleryWriter.add`."""
        if self._writer is None:
            manifest, rotation = self._gallery.manifest, self._gallery.index.rotation
            self._segment.mkdir()
            self._writer = SegmentWriter(self._segment, rotation, rescore=manifest.rescore, schema=manifest.attributes)
        self._writer.add(vectors, codes)
        self.rows += len(vectors)

    def skip(self, entries: Sequence[Skipped]) -> None:
        """Take note of entries that were skipped: where an item has the id of one, it stays, and counts for both."""
        own = [entry for entry in entries if is_of_its_id(entry)]
        numbers = self._gallery.items.numbers_of(entry.id for entry in own)
        for entry in own:
            number = numbers.get(entry.id)
            if number is not None and self._left[number] and not self._unread[number]:
                self._unread[number] = True
                self._stayed[entry.reason] += 1

    def finish(self, items: Iterable[Item], *, counts: Counts, probes: Float32s | None = None) -> None:
        """Write everything else.

        Args:
            items: of new and changed pictures, in any order, with their rows among those that were added.
            counts: what became of what was looked at for this generation; of them, what was skipped is kept, but for
                entries whose items stay.
            probes: float32 (n, dim) text-like queries that the number of probes is tuned on, when there are partitions.

        Raises:
            BadQuery: no item is left, or there is nothing to change.
            NotWritten, OSError: the disk is full or failing.
        """
        spec = None if self._writer is None else self._writer.finish(self._replacing(items), probes=probes)
        there = self._there_before()
        gone = np.flatnonzero(there & ~self._left)
        if spec is None and not len(gone):
            raise BadQuery(f"{self._old}: nothing is new and nothing is gone; it stays as it is")
        if spec is None and not self._left.any():
            raise BadQuery(f"{self._old}: no item is left, and a gallery needs one; it stays as it is")
        self._segment.mkdir(exist_ok=True)
        if len(gone):
            write_gone(self._segment, gone)
        for name in self._gallery.manifest.files:
            share_file(self._old / name, self._folder / name)
        skipped = Counter(counts.skipped) - self._stayed
        self._write_manifest(SegmentRecord(self.generation, len(gone), spec), dict(skipped))

    def _replacing(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items, and take those of the same ids away."""
        following = iter(items)
        while block := list(islice(following, _BLOCK)):
            numbers = list(self._gallery.items.numbers_of(item.id for item in block).values())
            self._left[numbers] = False
            self.changed += len(numbers)
            self._items += len(block)
            yield from block

    def _there_before(self) -> Bools:
        there = self._gallery.there
        return np.ones(len(self._left), dtype=bool) if there is None else there

    def _write_manifest(self, record: SegmentRecord, skipped: dict[str, int]) -> None:
        manifest = self._gallery.manifest
        names = segment_file_names(self._number, record, manifest.rescore, manifest.attributes)
        paths = {name: self._folder / name for name in names}
        files = {name: FileRecord(sha256_of(path), path.stat().st_size) for name, path in paths.items()}
        indexed = len(self._gallery.columns.rows_of(self._left)) + self.rows
        count = int(self._left.sum()) + self._items
        following = replace(
            manifest,
            generation=self.generation,
            previous={**manifest.previous, str(manifest.generation): sha256_of(self._old / MANIFEST)},
            counts=Counts(count + sum(skipped.values()), indexed, duplicates=count - indexed, skipped=skipped),
            segments=(*manifest.segments, record),
            made_with=versions(),
            files={**manifest.files, **files},
        )
        write_manifest(self._folder / MANIFEST, following, format=FORMAT, version=VERSION)


@contextmanager
def next_generation(
    bundle: Path, gallery: Gallery, gone: Int64s, *, on_sealed: Callable[[str], object] | None = None
) -> Iterator[GenerationWriter]:
    """Yield a writer of a bundle's next generation, and put that in the bundle's place when the block has finished it.

    A crash leaves the old one or the new one.

    Args:
        bundle: the folder.
        gallery: its gallery, opened.
        gone: see `GenerationWriter`.
        on_sealed: called with the hash of the new bundle.json before the new bundle is put in its place.

    Raises:
        FormatError: it is no bundle, or holds what a device added (NotWritten: the disk is full, read-only or failing).
        Busy: others kept the bundle open, or changed it meanwhile.
    """
    folder = bundle.resolve()
    before = read_bundle(folder).gallery
    with new_folder(folder, replace=True) as new:
        (new / "gallery").mkdir()
        with GenerationWriter(new / "gallery", folder / "gallery", gallery, gone) as writer:
            yield writer
        share_towers(folder, new)
        seal_bundle(new)
        if read_bundle(folder).gallery != before:
            raise Busy(f"{bundle} was changed by another process; try again")
        if on_sealed is not None:
            on_sealed(sha256_of(new / BUNDLE_MANIFEST))
