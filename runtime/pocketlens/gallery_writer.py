"""Writes a gallery folder from a stream of vectors and a stream of items; see docs/formats.md.

Neither all vectors nor all items are ever held as Python objects. In memory are the codes, which the index is made of,
and what `column_writer` says.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pocketlens import __version__
from pocketlens._native import ort
from pocketlens._types import Float16s, Float32s, Float64s, Int8s, Int64s
from pocketlens.attributes import RECORDED, Schema, check_schema, infer_schema
from pocketlens.codes import greatest_error, make_rotation, to_codes
from pocketlens.column_writer import write_columns
from pocketlens.errors import BadQuery
from pocketlens.files import sha256_of
from pocketlens.gallery import (
    CODES,
    FORMAT,
    ITEMS,
    MANIFEST,
    ORIGINALS,
    PARTITIONS,
    STATS,
    VERSION,
    Counts,
    GalleryManifest,
    gallery_files,
)
from pocketlens.index import Index, IndexSpec, spec_for
from pocketlens.items import Item, stream_items, write_items
from pocketlens.manifest import write_manifest
from pocketlens.model import FileRecord, Space
from pocketlens.partitions import Partitions, make_partitions
from pocketlens.tune import tune_probes

_BLOCK_ROWS = 65_536
_PLAIN_CODES = "codes.i8"  # until the index is made


class GalleryWriter:
    """Writes a gallery into an empty folder (a temporary one, moved into place by the caller). A context manager.

    Args:
        folder: an existing empty folder.
        space: the embedding space of the vectors.
        model: the gallery encoder's name.
        attributes: types of the items' attributes, beside those that are recorded of every picture.
        rescore: keep float16 originals, 2 * dim bytes a row, for recall@10 (codes.json).
        generation: 1, or one more than that of the gallery whose place it takes.
        rotation: of the codes, float32 (dim, dim), where they have been made already.

    Attributes:
        rows: how many vectors were added.

    Raises:
        BadQuery: an attribute cannot be one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        space: Space,
        model: str,
        attributes: Mapping[str, str],
        rescore: bool = True,
        generation: int = 1,
        rotation: Float32s | None = None,
    ) -> None:
        self._folder = folder
        self._space, self._model = space, model
        self._schema: Schema = check_schema(attributes)
        self._rescore, self._generation = rescore, generation
        self._rotation = make_rotation(space.dim) if rotation is None else rotation
        self._codes = (folder / _PLAIN_CODES).open("wb")
        self._originals = (folder / ORIGINALS).open("wb")
        self._sum: Float64s = np.zeros(space.dim)
        self._products: Float64s = np.zeros((space.dim, space.dim))
        self._error = 0.0
        self.rows = 0

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._codes.close()
        self._originals.close()

    def add(self, vectors: Float32s | Float16s, codes: Int8s | None = None) -> None:
        """Append rows.

        Args:
            vectors: float32 or float16 (n, dim) unit embeddings by the heavy model.
            codes: int8 (n, dim), theirs, where they have been made already.

        Raises:
            BadQuery: a vector has the wrong width, is not finite or is zero.
        """
        codes = to_codes(np.asarray(vectors, dtype=np.float32), self._rotation) if codes is None else codes
        originals: Float16s = np.ascontiguousarray(vectors, dtype="<f2")
        self._codes.write(np.ascontiguousarray(codes).data)
        self._originals.write(originals.data)
        exact = vectors.astype(np.float64)
        self._sum += exact.sum(axis=0)
        self._products += exact.T @ exact
        if self._rescore and len(codes):
            self._error = max(self._error, greatest_error(originals, codes, self._rotation))
        self.rows += len(codes)

    def finish(self, items: Iterable[Item], *, counts: Counts, probes: Float32s | None = None) -> None:
        """Write everything else.

        Args:
            items: every picture, in any order, with its row among those that were added. Above the crossover rows get
                an order of their own, that of the partitions.
            counts: what became of every input.
            probes: float32 (n, dim) text-like queries that the number of probes is tuned on, when there are partitions.

        Raises:
            BadQuery: no vector was added.
            NotWritten, OSError: the disk is full or failing.
        """
        self.__exit__()
        if self.rows == 0:
            raise BadQuery("a gallery needs at least one picture, found none")
        spec, places = self._write_index(probes)
        moved = items if places is None else (replace(item, row=int(places[item.row])) for item in items)
        write_items(self._folder / ITEMS, moved)
        write_columns(self._folder, self._schema, stream_items(self._folder / ITEMS))
        mean, covariance = self._statistics()
        np.savez(self._folder / STATS, rotation=self._rotation, mean=mean, covariance=covariance)
        self._write_manifest(replace(spec, code_error=self._error) if self._rescore else spec, counts)

    def _write_index(self, probes: Float32s | None) -> tuple[IndexSpec, Int64s | None]:
        """Write the index and what it needs; return its spec, and where each row has gone, int64 (rows,), if moved."""
        shape = (self.rows, self._space.dim)
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

    def _statistics(self) -> tuple[Float32s, Float32s]:
        mean = self._sum / self.rows
        covariance = self._products / self.rows - np.outer(mean, mean)
        return mean.astype(np.float32), covariance.astype(np.float32)

    def _write_manifest(self, spec: IndexSpec, counts: Counts) -> None:
        names = gallery_files(spec, self._rescore, self._schema)
        sizes = {name: (self._folder / name).stat().st_size for name in names}
        manifest = GalleryManifest(
            generation=self._generation,
            model=self._model,
            space=self._space,
            counts=counts,
            index=spec,
            rescore=self._rescore,
            attributes=self._schema,
            made_with=_versions(),
            files={name: FileRecord(sha256_of(self._folder / name), sizes[name]) for name in names},
        )
        write_manifest(self._folder / MANIFEST, manifest, format=FORMAT, version=VERSION)


def write_gallery(
    folder: Path,
    vectors: Float32s,
    items: Sequence[Item],
    *,
    space: Space,
    model: str,
    counts: Counts,
    probes: Float32s | None = None,
    rescore: bool = True,
    generation: int = 1,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write a gallery of vectors and items that are at hand; see `GalleryWriter` for the arguments.

    Args:
        vectors: float32 (rows, dim).
        items: every picture, with its row.
        attributes: by default what the values of the items' attributes are. Values are in the form of
            `attributes.check_values`.

    Raises:
        BadQuery: there is no vector, or one is not finite or zero; or an attribute cannot be one.
    """
    schema = _schema_of(items) if attributes is None else attributes
    with GalleryWriter(
        folder, space=space, model=model, attributes=schema, rescore=rescore, generation=generation
    ) as writer:
        for block in _blocks(vectors):
            writer.add(block)
        writer.finish(items, counts=counts, probes=probes)


def _blocks(vectors: Float32s) -> Iterator[Float32s]:
    for start in range(0, len(vectors), _BLOCK_ROWS):
        yield vectors[start : start + _BLOCK_ROWS]


def _schema_of(items: Sequence[Item]) -> Schema:
    """Return the types of the attributes that items have, but of a recorded one its own."""
    found = infer_schema(item.attributes for item in items)
    return {name: RECORDED.get(name, kind) for name, kind in found.items()}


def _versions() -> dict[str, str]:
    return {
        "pocketlens": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "usearch": version("usearch"),
    }
