"""The gallery folder: gallery.json beside codes, float16 originals, items and statistics. See docs/formats.md.

Opening checks the sha256 of every file before native code sees one. A gallery is immutable: writing makes a new folder
(`gallery_writer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens._types import Float16s, Float32s
from pocketlens.attributes import Schema, check_schema
from pocketlens.codes import LEAST_DEVIATION
from pocketlens.columns import Columns, file_names, open_columns
from pocketlens.errors import BadQuery, CorruptFile, FormatError
from pocketlens.files import read_arrays, sha256_of
from pocketlens.index import Index, IndexSpec
from pocketlens.items import Items
from pocketlens.manifest import read_manifest
from pocketlens.model import FileRecord, Space
from pocketlens.partitions import open_partitions
from pocketlens.stamps import check_file_once

FORMAT = "pocketlens-gallery"
VERSION = 1
MANIFEST = "gallery.json"
CODES, ORIGINALS, ITEMS, STATS = "index.usearch", "rescore.f16", "items.sqlite", "stats.npz"
PARTITIONS = "partitions.npz"


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

    `model` names the gallery encoder, `rescore` tells whether rescore.f16 is there, and `attributes` has the types of
    what is known of the items, in the order of the columns.
    """

    generation: int
    model: str
    space: Space
    counts: Counts
    index: IndexSpec
    rescore: bool
    attributes: Schema
    made_with: dict[str, str]
    files: dict[str, FileRecord]


class Gallery:
    """An opened, verified gallery folder.

    Attributes:
        manifest: its parsed gallery.json.
        index: searches the codes.
        items: what is known of each picture, for showing.
        columns: what is known of each picture, for filtering.
        mean, covariance: of the vectors, float32 (dim,) and (dim, dim).
    """

    def __init__(
        self,
        manifest: GalleryManifest,
        index: Index,
        items: Items,
        columns: Columns,
        mean: Float32s,
        covariance: Float32s,
    ) -> None:
        self.manifest = manifest
        self.index = index
        self.items = items
        self.columns = columns
        self.mean = mean
        self.covariance = covariance

    @classmethod
    def open(cls, path: Path, *, manifest_sha256: str | None = None, threads: int = 1) -> Gallery:
        """Open a folder after checking every file's hash, once since the machine started.

        Args:
            path: the gallery folder.
            manifest_sha256: what gallery.json must hash to, when a bundle vouches for it.
            threads: threads of one search.

        Raises:
            FormatError: not a gallery of a known version, or a field is wrong.
            CorruptFile: a file differs from its record.
        """
        manifest = open_manifest(path, manifest_sha256=manifest_sha256)
        for name, record in manifest.files.items():
            check_file_once(path / name, sha256=record.sha256, size_bytes=record.size_bytes)
        rotation, mean, covariance = _read_statistics(path / STATS, manifest.space.dim)
        originals = _map_originals(path / ORIGINALS, manifest) if manifest.rescore else None
        spec, dim = manifest.index, manifest.space.dim
        partitions = None
        if spec.kind == "partitions":
            partitions = open_partitions(path / PARTITIONS, rows=spec.rows, dim=dim, count=spec.partitions)
        index = Index.open(path / CODES, rotation, originals, spec, partitions=partitions, threads=threads)
        items = Items(path / ITEMS)
        try:
            columns = open_columns(path, manifest.attributes, rows=spec.rows, items=items.count)
        except FormatError:
            items.close()
            raise
        return cls(manifest, index, items, columns, mean, covariance)

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
        rows = np.random.default_rng(0).integers(0, self.manifest.index.rows, size=count)
        return self.index.vectors(rows)

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
    expected = set(gallery_files(manifest.index, manifest.rescore, manifest.attributes))
    if manifest.index.rows < 1 or manifest.space.dim < 1:
        raise FormatError(
            f"{manifest_path}: {manifest.index.rows} rows of {manifest.space.dim} dimensions, expected some"
        )
    probes, partitions = manifest.index.probes, manifest.index.partitions
    if not 1 <= probes <= partitions:
        raise FormatError(f"{manifest_path}: {probes} probes of {partitions} partitions, expected 1 to {partitions}")
    if set(manifest.files) != expected:
        raise FormatError(f"{manifest_path}: files are {sorted(manifest.files)}, expected {sorted(expected)}")
    if not 0 <= manifest.index.code_error <= 2:
        raise FormatError(f"{manifest_path}: index.code_error is {manifest.index.code_error}, expected 0 to 2")
    return manifest


def gallery_files(spec: IndexSpec, rescore: bool, schema: Schema) -> list[str]:
    """Return the files of a gallery beside its manifest."""
    partitions = [PARTITIONS] if spec.kind == "partitions" else []
    return [CODES, ITEMS, STATS, *partitions, *([ORIGINALS] if rescore else []), *file_names(schema)]


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


def _map_originals(path: Path, manifest: GalleryManifest) -> Float16s:
    rows, dim, found = manifest.index.rows, manifest.space.dim, path.stat().st_size
    if found != 2 * rows * dim:
        raise FormatError(f"{path} has {found} bytes, expected {2 * rows * dim} for {rows} x {dim} float16")
    return np.memmap(path, dtype="<f2", mode="r", shape=(rows, dim))
