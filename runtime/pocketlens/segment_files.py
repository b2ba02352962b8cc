"""The files of one segment of a gallery: the first one's stand in the gallery's folder, others in folders by number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens._types import Float16s, Float32s, Int64s
from pocketlens.attributes import Schema
from pocketlens.columns import Columns, file_names, open_columns
from pocketlens.errors import FormatError
from pocketlens.index import Index, IndexSpec
from pocketlens.items import Items
from pocketlens.partitions import open_partitions

CODES, ORIGINALS, ITEMS = "index.usearch", "rescore.f16", "items.sqlite"
PARTITIONS, GONE = "partitions.npz", "gone.i64"


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What gallery.json says of a segment.

    Attributes:
        generation: that brought it.
        gone: how many items of earlier segments it took away.
        index: its codes; None where it only takes away.
    """

    generation: int
    gone: int
    index: IndexSpec | None


@dataclass(frozen=True, slots=True)
class SegmentParts:
    """An opened segment."""

    index: Index
    items: Items
    columns: Columns


def segment_folder(gallery: Path, number: int) -> Path:
    """Return where the files of a gallery's n-th segment stand, from 0."""
    return gallery / str(number) if number else gallery


def segment_file_names(number: int, record: SegmentRecord, rescore: bool, schema: Schema) -> list[str]:
    """Return the files of a gallery's n-th segment, relative to the gallery."""
    names = [GONE] if record.gone else []
    if record.index is not None:
        partitions = [PARTITIONS] if record.index.kind == "partitions" else []
        names += [CODES, ITEMS, *partitions, *([ORIGINALS] if rescore else []), *file_names(schema)]
    return [f"{number}/{name}" if number else name for name in names]


def open_segment_files(
    folder: Path, spec: IndexSpec, *, rotation: Float32s, rescore: bool, schema: Schema, threads: int
) -> SegmentParts:
    """Open the files of a segment, whose hashes the caller has checked.

    Raises:
        FormatError: a file is not what it should be.
    """
    dim = len(rotation)
    originals = _map_originals(folder / ORIGINALS, spec.rows, dim) if rescore else None
    partitions = None
    if spec.kind == "partitions":
        partitions = open_partitions(folder / PARTITIONS, rows=spec.rows, dim=dim, count=spec.partitions)
    index = Index.open(folder / CODES, rotation, originals, spec, partitions=partitions, threads=threads)
    items = Items(folder / ITEMS)
    try:
        return SegmentParts(index, items, open_columns(folder, schema, rows=spec.rows, items=items.count))
    except FormatError:
        items.close()
        raise


def read_gone(folder: Path, count: int, *, items: int) -> Int64s:
    """Return the numbers of the items that a segment took away, int64 (n,), rising; the caller has checked the hash.

    Args:
        folder: the segment's.
        count: how many there are.
        items: how many items the earlier segments have.

    Raises:
        FormatError: there are others than expected.
    """
    path = folder / GONE
    size_bytes = path.stat().st_size
    if size_bytes != 8 * count:
        raise FormatError(f"{path} has {size_bytes} bytes, expected {8 * count} for {count} items")
    numbers = np.fromfile(path, dtype="<i8")
    if numbers[0] < 0 or numbers[-1] >= items or (np.diff(numbers) < 1).any():
        raise FormatError(f"{path} does not rise within the {items} items of earlier segments")
    return numbers


def _map_originals(path: Path, rows: int, dim: int) -> Float16s:
    found = path.stat().st_size
    if found != 2 * rows * dim:
        raise FormatError(f"{path} has {found} bytes, expected {2 * rows * dim} for {rows} x {dim} float16")
    return np.memmap(path, dtype="<f2", mode="r", shape=(rows, dim))
