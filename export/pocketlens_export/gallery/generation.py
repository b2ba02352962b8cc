"""The next generation of a gallery: the files of the last one as they are, and a segment with what changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s
from pocketlens.bundle import read_bundle, seal_bundle, share_towers
from pocketlens.errors import BadQuery
from pocketlens.files import new_folder, sha256_of, share_file
from pocketlens.gallery import FORMAT, MANIFEST, VERSION, Counts, Gallery, GalleryManifest, open_manifest
from pocketlens.gallery_writer import versions
from pocketlens.items import Item
from pocketlens.manifest import write_manifest
from pocketlens.model import FileRecord
from pocketlens.segment_files import SegmentRecord, segment_file_names, segment_folder
from pocketlens.segment_writer import SegmentWriter, write_gone


def write_next_bundle(
    bundle: Path,
    vectors: Float32s,
    items: Sequence[Item],
    *,
    gone: Iterable[str],
    skipped: dict[str, int],
    probes: Float32s | None = None,
) -> GalleryManifest:
    """Put a bundle with the next generation of its gallery in its place; return what its gallery.json says.

    A crash leaves the old one or the new one. The arguments are those of `write_generation`.

    Raises:
        BadQuery: no item is left, or there is nothing to change.
        FormatError: it is no bundle, or holds what a device added (NotWritten: the disk is full, read-only or failing).
        Busy: others kept the bundle open.
    """
    folder = bundle.resolve()
    old, sha256 = folder / "gallery", read_bundle(folder).gallery
    with closing(Gallery.open(old, manifest_sha256=sha256)) as gallery, new_folder(folder, replace=True) as new:
        (new / "gallery").mkdir()
        write_generation(new / "gallery", old, gallery, vectors, items, gone=gone, skipped=skipped, probes=probes)
        share_towers(folder, new)
        seal_bundle(new)
        return open_manifest(new / "gallery")


def write_generation(
    folder: Path,
    old: Path,
    gallery: Gallery,
    vectors: Float32s,
    items: Sequence[Item],
    *,
    gone: Iterable[str],
    skipped: dict[str, int],
    probes: Float32s | None = None,
) -> None:
    """Write a gallery's next generation into an empty folder on the same disk.

    Rotation, statistics and attributes' types stay those of the first generation.

    Args:
        folder: an existing empty folder.
        old: the gallery's folder.
        gallery: the same, opened.
        vectors: float32 (n, dim) unit vectors of new and changed pictures; n may be 0.
        items: their items, with rows from 0.
        gone: ids of items that are no more. Those that `items` replace need not be among them.
        skipped: count of what was skipped, by reason, for the manifest.
        probes: float32 (n, dim) text-like queries that the number of probes is tuned on, when there are partitions.

    Raises:
        BadQuery: no item is left, or there is nothing to change.
    """
    manifest, number = gallery.manifest, len(gallery.manifest.segments)
    numbers = gallery.items.numbers_of({*gone, *(item.id for item in items)})
    if not numbers and not items:
        raise BadQuery(f"{old}: nothing is new and nothing is gone; it stays as it is")
    if len(numbers) == gallery.items.count and not items:
        raise BadQuery(f"{old}: no item is left, and a gallery needs one; it stays as it is")
    for name in manifest.files:
        share_file(old / name, folder / name)
    segment = segment_folder(folder, number)
    segment.mkdir()
    spec = None
    if items:
        rescore, schema = manifest.rescore, manifest.attributes
        with SegmentWriter(segment, gallery.index.rotation, rescore=rescore, schema=schema) as writer:
            writer.add(vectors)
            spec = writer.finish(items, probes=probes)
    if numbers:
        write_gone(segment, np.sort(np.fromiter(numbers.values(), dtype=np.int64)))
    record = SegmentRecord(manifest.generation + 1, len(numbers), spec)
    names = segment_file_names(number, record, manifest.rescore, manifest.attributes)
    new_files = {name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in names}
    following = replace(
        manifest,
        generation=record.generation,
        previous={**manifest.previous, str(manifest.generation): sha256_of(old / MANIFEST)},
        counts=_counts(gallery, list(numbers.values()), len(vectors), len(items), skipped),
        segments=(*manifest.segments, record),
        made_with=versions(),
        files={**manifest.files, **new_files},
    )
    write_manifest(folder / MANIFEST, following, format=FORMAT, version=VERSION)


def _counts(gallery: Gallery, gone: list[int], rows: int, items: int, skipped: dict[str, int]) -> Counts:
    there = np.ones(gallery.columns.count, dtype=bool) if gallery.there is None else gallery.there.copy()
    there[gone] = False
    indexed = len(gallery.columns.rows_of(there)) + rows
    count = int(there.sum()) + items
    return Counts(count + sum(skipped.values()), indexed, duplicates=count - indexed, skipped=skipped)
