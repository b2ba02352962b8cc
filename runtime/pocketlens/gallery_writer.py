"""Writes a gallery folder from a stream of vectors and a stream of items; see docs/formats.md.

Rows go to segments of a million, each made by itself (`segment_writer`), so that memory has a bound at any size.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pocketlens import __version__
from pocketlens._native import ort
from pocketlens._types import Float16s, Float32s, Float64s, Int8s
from pocketlens.attributes import RECORDED, Schema, check_schema, infer_schema
from pocketlens.codes import make_rotation
from pocketlens.errors import BadQuery
from pocketlens.files import sha256_of
from pocketlens.gallery import FORMAT, MANIFEST, STATS, VERSION, Counts, GalleryManifest, gallery_files
from pocketlens.index import IndexSpec
from pocketlens.items import Item, stream_items, write_items
from pocketlens.manifest import write_manifest
from pocketlens.model import FileRecord, Space
from pocketlens.segment_files import SegmentRecord, segment_folder
from pocketlens.segment_writer import SegmentWriter

SEGMENT_ROWS = 1_000_000
_BLOCK_ROWS = 65_536
_ALL_ITEMS = "all.sqlite"  # until each segment has its own


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
        threads: how many segments are made at once, each with a million codes in memory. They do not change the result.

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
        threads: int = 1,
    ) -> None:
        self._folder = folder
        self._space, self._model = space, model
        self._schema: Schema = check_schema(attributes)
        self._rescore, self._generation = rescore, generation
        self._rotation = make_rotation(space.dim) if rotation is None else rotation
        self._threads = threads
        self._segments: list[SegmentWriter] = []
        self._sum: Float64s = np.zeros(space.dim)
        self._products: Float64s = np.zeros((space.dim, space.dim))
        self.rows = 0

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for segment in self._segments:
            segment.__exit__()

    def add(self, vectors: Float32s | Float16s, codes: Int8s | None = None) -> None:
        """Append rows.

        Args:
            vectors: float32 or float16 (n, dim) unit embeddings by the heavy model.
            codes: int8 (n, dim), theirs, where they have been made already.

        Raises:
            BadQuery: a vector has the wrong width, is not finite or is zero.
        """
        start = 0
        while start < len(vectors):
            segment = self._last_segment()
            part = slice(start, start + SEGMENT_ROWS - segment.rows)
            segment.add(vectors[part], None if codes is None else codes[part])
            start = part.stop
        exact = vectors.astype(np.float64)
        self._sum += exact.sum(axis=0)
        self._products += exact.T @ exact
        self.rows += len(vectors)

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
        specs = self._finish_segments(items, probes)
        mean, covariance = self._statistics()
        np.savez(self._folder / STATS, rotation=self._rotation, mean=mean, covariance=covariance)
        self._write_manifest(specs, counts)

    def _last_segment(self) -> SegmentWriter:
        if not self._segments or self._segments[-1].rows == SEGMENT_ROWS:
            folder = segment_folder(self._folder, len(self._segments))
            folder.mkdir(exist_ok=True)
            self._segments.append(SegmentWriter(folder, self._rotation, rescore=self._rescore, schema=self._schema))
        return self._segments[-1]

    def _finish_segments(self, items: Iterable[Item], probes: Float32s | None) -> list[IndexSpec]:
        if len(self._segments) == 1:
            return [self._segments[0].finish(items, probes=probes)]
        path = self._folder / _ALL_ITEMS
        write_items(path, items)

        def finish(number: int) -> IndexSpec:
            start = number * SEGMENT_ROWS
            own = stream_items(path, range(start, start + self._segments[number].rows))
            return self._segments[number].finish((replace(item, row=item.row - start) for item in own), probes=probes)

        with ThreadPoolExecutor(self._threads) as pool:
            specs = list(pool.map(finish, range(len(self._segments))))
        path.unlink()
        return specs

    def _statistics(self) -> tuple[Float32s, Float32s]:
        mean = self._sum / self.rows
        covariance = self._products / self.rows - np.outer(mean, mean)
        return mean.astype(np.float32), covariance.astype(np.float32)

    def _write_manifest(self, specs: Sequence[IndexSpec], counts: Counts) -> None:
        segments = tuple(SegmentRecord(self._generation, 0, spec) for spec in specs)
        names = gallery_files(segments, self._rescore, self._schema)
        sizes = {name: (self._folder / name).stat().st_size for name in names}
        manifest = GalleryManifest(
            generation=self._generation,
            previous={},
            model=self._model,
            space=self._space,
            counts=counts,
            segments=segments,
            rescore=self._rescore,
            attributes=self._schema,
            made_with=versions(),
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


def versions() -> dict[str, str]:
    """Return what made a gallery, by name."""
    return {
        "pocketlens": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "usearch": version("usearch"),
    }
