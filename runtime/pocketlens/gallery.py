"""The gallery folder: gallery.json beside codes, float16 originals, items and statistics. See docs/formats.md.

Opening checks the sha256 of every file before native code sees one. A gallery is immutable: writing makes a new folder
(`gallery_writer`). A generation may continue an earlier one: it has that one's segments as they are, and one more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from pocketlens._types import Bools, Float32s
from pocketlens.attributes import Schema, check_schema
from pocketlens.catalogue import Catalogue
from pocketlens.codes import LEAST_DEVIATION
from pocketlens.columns import Columns
from pocketlens.errors import BadQuery, CorruptFile, FormatError
from pocketlens.files import read_arrays, sha256_of
from pocketlens.index import Index, IndexSpec
from pocketlens.manifest import read_manifest
from pocketlens.model import FileRecord, Space
from pocketlens.segment import joint_spec
from pocketlens.segment_files import (
    SegmentParts,
    SegmentRecord,
    open_segment_files,
    read_gone,
    segment_file_names,
    segment_folder,
)
from pocketlens.stamps import check_file_once

FORMAT = "pocketlens-gallery"
VERSION = 1
MANIFEST = "gallery.json"
STATS = "stats.npz"


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of every input: seen = indexed + duplicates + the sum of skipped (a count by reason)."""

    seen: int
    indexed: int
    duplicates: int
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True)
class GalleryManifest:
    """gallery.json.

    Attributes:
        generation: number of this state of the gallery.
        previous: sha256 of gallery.json of the generations that this one continues, by number, the oldest first.
        model: name of the gallery encoder.
        space: of the vectors.
        counts: what became of every input.
        segments: what the index consists of; rows and items are numbered through them.
        rescore: whether each has a rescore.f16.
        attributes: types of what is known of the items, in the order of the columns.
        made_with: versions of what made this generation.
        files: every other file.
    """

    generation: int
    previous: dict[str, str]
    model: str
    space: Space
    counts: Counts
    segments: tuple[SegmentRecord, ...]
    rescore: bool
    attributes: Schema
    made_with: dict[str, str]
    files: dict[str, FileRecord]

    @property
    def index(self) -> IndexSpec:
        """What holds of the codes of all segments together."""
        return joint_spec([segment.index for segment in self.segments if segment.index is not None])


class Gallery:
    """An opened, verified gallery folder.

    Attributes:
        manifest: its parsed gallery.json.
        index: searches the codes.
        items: what is known of each picture, for showing.
        columns: what is known of each picture, for filtering; also of those that later segments took away.
        there: bool (items,), which were not taken away; None for all.
        mean, covariance: of the vectors, float32 (dim,) and (dim, dim), as of the first of the generations.
    """

    def __init__(
        self,
        manifest: GalleryManifest,
        index: Index,
        items: Catalogue,
        columns: Columns,
        there: Bools | None,
        mean: Float32s,
        covariance: Float32s,
    ) -> None:
        self.manifest = manifest
        self.index = index
        self.items = items
        self.columns = columns
        self.there = there
        self.mean = mean
        self.covariance = covariance

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        manifest_sha256: str | None = None,
        threads: int = 1,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Gallery:
        """Open a folder after checking every file's hash, once since the machine started.

        Args:
            path: the gallery folder.
            manifest_sha256: what gallery.json must hash to, when a bundle vouches for it.
            threads: threads of one search.
            on_progress: called with (bytes checked, bytes in all).

        Raises:
            FormatError: not a gallery of a known version, or a field is wrong.
            CorruptFile: a file differs from its record.
        """
        manifest = open_manifest(path, manifest_sha256=manifest_sha256)
        done, total = 0, sum(record.size_bytes for record in manifest.files.values())
        for name, record in manifest.files.items():
            check_file_once(path / name, sha256=record.sha256, size_bytes=record.size_bytes)
            done += record.size_bytes
            on_progress(done, total)
        rotation, mean, covariance = _read_statistics(path / STATS, manifest.space.dim)
        with ExitStack() as opened:  # what was opened is closed again when something is wrong
            parts: list[SegmentParts] = []
            counts = []  # of items, by segment
            for number, segment in enumerate(manifest.segments):
                if segment.index is not None:
                    parts.append(
                        _open_segment(segment_folder(path, number), segment.index, rotation, manifest, threads)
                    )
                    opened.callback(parts[-1].items.close)
                counts.append(0 if segment.index is None else parts[-1].items.count)
            there = _there(path, manifest, counts)
            opened.pop_all()
        columns = Columns.join([part.columns for part in parts])
        index = Index.join([part.index for part in parts], None if there is None else columns.rows_without(there))
        items = Catalogue([part.items for part in parts], columns.first, there)
        return cls(manifest, index, items, columns, there, mean, covariance)

    def z_scores(self, query: Float32s, cosines: Float32s) -> Float32s:
        """Return how many standard deviations each cosine lies above this query's mean over the gallery.

        Mean and variance of a linear score have closed forms: q·μ and qᵀΣq.

        Args:
            query: float32 (dim,), a unit vector.
            cosines: float32 (n,).
        """
        deviation = float(np.sqrt(max(float(query @ self.covariance @ query), LEAST_DEVIATION**2)))
        return np.asarray((cosines - query @ self.mean) / deviation, dtype=np.float32)

    def sample(self, count: int) -> Float32s:
        """Return the vectors of `count` rows drawn with a fixed seed, float32 (count, dim)."""
        return self.index.vectors(np.random.default_rng(0).choice(self.index.rows, size=count))

    def close(self) -> None:
        """Close the item database. The mapped files are released with the object."""
        self.items.close()


def open_manifest(path: Path, *, manifest_sha256: str | None = None) -> GalleryManifest:
    """Return the parsed gallery.json of a folder; see `Gallery.open` for the errors."""
    manifest_path = path / MANIFEST
    if manifest_sha256 is not None and manifest_path.is_file() and sha256_of(manifest_path) != manifest_sha256:
        raise CorruptFile(manifest_path, found="another sha256", expected=f"sha256 {manifest_sha256[:16]}…")
    manifest = read_manifest(manifest_path, GalleryManifest, format=FORMAT, version=VERSION)
    _check_attributes(manifest_path, manifest.attributes)
    _check_generations(manifest_path, manifest)
    for number, segment in enumerate(manifest.segments):
        if segment.index is not None:
            _check_spec(f"{manifest_path}: segment {number}", segment.index, manifest.space.dim)
    expected = set(gallery_files(manifest.segments, manifest.rescore, manifest.attributes))
    if set(manifest.files) != expected:
        raise FormatError(f"{manifest_path}: files are {sorted(manifest.files)}, expected {sorted(expected)}")
    return manifest


def gallery_files(segments: Sequence[SegmentRecord], rescore: bool, schema: Schema) -> list[str]:
    """Return the files of a gallery beside its manifest."""
    names = [segment_file_names(number, segment, rescore, schema) for number, segment in enumerate(segments)]
    return [STATS, *chain.from_iterable(names)]


def _open_segment(
    folder: Path, spec: IndexSpec, rotation: Float32s, manifest: GalleryManifest, threads: int
) -> SegmentParts:
    rescore, schema = manifest.rescore, manifest.attributes
    return open_segment_files(folder, spec, rotation=rotation, rescore=rescore, schema=schema, threads=threads)


def _there(path: Path, manifest: GalleryManifest, items: Sequence[int]) -> Bools | None:
    """Return which items of all segments, given how many each has, no later one took away; None for all."""
    there = np.ones(sum(items), dtype=bool)
    for number, segment in enumerate(manifest.segments):
        if segment.gone:
            folder = segment_folder(path, number)
            there[read_gone(folder, segment.gone, items=sum(items[:number]))] = False
    if there.sum() != len(there) - sum(segment.gone for segment in manifest.segments):
        raise FormatError(f"{path}: an item was taken away twice")
    return None if there.all() else there


def _check_generations(path: Path, manifest: GalleryManifest) -> None:
    """Raise `FormatError` unless segments and the generations that a gallery continues go together."""
    first = manifest.generation - len(manifest.previous)
    if list(manifest.previous) != [str(number) for number in range(first, manifest.generation)] or first < 1:
        raise FormatError(
            f"{path}: generation {manifest.generation} continues {', '.join(manifest.previous) or 'none'}"
        )
    found = [segment.generation for segment in manifest.segments]
    if not found or found[0] != first or found != sorted(found) or found[-1] != manifest.generation:
        raise FormatError(f"{path}: segments are of generations {found}, expected {first} to {manifest.generation}")
    if manifest.segments[0].index is None or any(segment.gone < 0 for segment in manifest.segments):
        raise FormatError(f"{path}: the first segment has no index, or one took away a negative number of items")


def _check_spec(where: str, spec: IndexSpec, dim: int) -> None:
    if spec.rows < 1 or dim < 1:
        raise FormatError(f"{where}: {spec.rows} rows of {dim} dimensions, expected some")
    if not 1 <= spec.probes <= spec.partitions:
        raise FormatError(
            f"{where}: {spec.probes} probes of {spec.partitions} partitions, expected 1 to {spec.partitions}"
        )
    if not 0 <= spec.code_error <= 2:
        raise FormatError(f"{where}: code_error is {spec.code_error}, expected 0 to 2")


def _check_attributes(path: Path, schema: Schema) -> None:
    """Raise `FormatError` unless these are the attributes that `check_schema` would give, in its order."""
    try:
        expected = list(check_schema(schema))
    except BadQuery as error:
        raise FormatError(f"{path}: {error}") from error
    if list(schema) != expected:
        raise FormatError(f"{path}: attributes are {', '.join(schema) or 'none'}, expected {', '.join(expected)}")


def _read_statistics(path: Path, dim: int) -> tuple[Float32s, Float32s, Float32s]:
    arrays = read_arrays(path, _SHAPES)
    for name, axes in _SHAPES.items():
        array, shape = arrays[name], (dim,) * axes
        if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
            found = f"{array.dtype} {array.shape}"
            raise FormatError(f"{path}: {name} is {found}, expected finite float32 {shape}")
    return arrays["rotation"], arrays["mean"], arrays["covariance"]


_SHAPES = {"rotation": 2, "mean": 1, "covariance": 2}  # axes, each of the space's width
