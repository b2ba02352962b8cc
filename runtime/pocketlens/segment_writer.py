"""Writes the files of one segment from a stream of vectors and a stream of items; see docs/formats.md.

Neither all vectors nor all items are ever held as Python objects. In memory are the segment's codes, which the index is
made of, and what `column_writer` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pocketlens._types import Float16s, Float32s, Int8s, Int64s
from pocketlens.attributes import Schema
from pocketlens.codes import greatest_error, to_codes
from pocketlens.column_writer import write_columns
from pocketlens.index import Index, IndexSpec, spec_for
from pocketlens.items import Item, stream_items, write_items
from pocketlens.partitions import Partitions, make_partitions
from pocketlens.segment_files import CODES, GONE, ITEMS, ORIGINALS, PARTITIONS
from pocketlens.tune import tune_probes

_BLOCK_ROWS = 65_536
_PLAIN_CODES = "codes.i8"  # until the index is made


class SegmentWriter:
    """Writes a segment into a folder that has none of its files. A context manager.

    Args:
        folder: an existing folder.
        rotation: float32 (dim, dim), the gallery's.
        rescore: keep float16 originals.
        schema: the whole gallery's.

    Attributes:
        rows: how many vectors were added.
    """

    def __init__(self, folder: Path, rotation: Float32s, *, rescore: bool, schema: Schema) -> None:
        self._folder = folder
        self._rotation = rotation
        self._rescore, self._schema = rescore, schema
        self._codes = (folder / _PLAIN_CODES).open("wb")
        self._originals = (folder / ORIGINALS).open("wb")
        self._error = 0.0
        self.rows = 0

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._codes.close()
        self._originals.close()

    def add(self, vectors: Float32s | Float16s, codes: Int8s | None = None) -> None:
        """Append rows; see `gallery_writer.GalleryWriter.add`."""
        codes = to_codes(np.asarray(vectors, dtype=np.float32), self._rotation) if codes is None else codes
        originals: Float16s = np.ascontiguousarray(vectors, dtype="<f2")
        self._codes.write(np.ascontiguousarray(codes).data)
        self._originals.write(originals.data)
        if self._rescore and len(codes):
            self._error = max(self._error, greatest_error(originals, codes, self._rotation))
        self.rows += len(codes)

    def finish(self, items: Iterable[Item], *, probes: Float32s | None = None) -> IndexSpec:
        """Write everything else, and return how the segment is searched.

        Args:
            items: of these rows, which begin at 0, in any order. Above the crossover rows get an order of their own,
                that of the partitions.
            probes: float32 (n, dim) text-like queries that the number of probes is tuned on, when there are partitions.

        Raises:
            NotWritten, OSError: the disk is full or failing.
        """
        self.__exit__()
        spec, places = self._write_index(probes)
        moved = items if places is None else (replace(item, row=int(places[item.row])) for item in items)
        write_items(self._folder / ITEMS, moved)
        write_columns(self._folder, self._schema, stream_items(self._folder / ITEMS))
        return replace(spec, code_error=self._error) if self._rescore else spec

    def _write_index(self, probes: Float32s | None) -> tuple[IndexSpec, Int64s | None]:
        """Write the index and what it needs; return its spec, and where each row has gone, int64 (rows,), if moved."""
        shape = (self.rows, len(self._rotation))
        codes: Int8s = np.fromfile(self._folder / _PLAIN_CODES, dtype=np.int8).reshape(shape)
        originals: Float16s = np.memmap(self._folder / ORIGINALS, dtype="<f2", mode="r", shape=shape)
        spec, places, partitions = spec_for(self.rows), None, None
        if spec.kind == "partitions":
            codes, originals, places, partitions = self._partitioned(codes, originals, spec.partitions)
            spec = replace(spec, partitions=partitions.count)
        kept = originals if self._rescore else None
        index = Index.build(codes, self._rotation, kept, spec, partitions=partitions)
        if partitions is not None:
            spec = tune_probes(index, originals, probes)
        index.save(self._folder / CODES)
        (self._folder / _PLAIN_CODES).unlink()
        if not self._rescore:
            (self._folder / ORIGINALS).unlink()
        return spec, places

    def _partitioned(self, codes: Int8s, originals: Float16s, count: int) -> tuple[Int8s, Float16s, Int64s, Partitions]:
        """Put the rows of a partition together; return codes, originals, where each row has gone, and partitions."""
        order, partitions = make_partitions(originals, codes, self._rotation, count)
        partitions.save(self._folder / PARTITIONS)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        path = self._folder / ORIGINALS
        moved = path.with_name(f"{path.name}.moved")
        with moved.open("wb") as file:
            for start in range(0, len(order), _BLOCK_ROWS):
                file.write(originals[order[start : start + _BLOCK_ROWS]].data)
        moved.replace(path)
        mapped: Float16s = np.memmap(path, dtype="<f2", mode="r", shape=originals.shape)
        return codes[order], mapped, places, partitions


def write_gone(folder: Path, numbers: Int64s) -> None:
    """Write the numbers of the items of earlier segments that a segment takes away, int64 (n,), rising."""
    (folder / GONE).write_bytes(numbers.astype("<i8").tobytes())
