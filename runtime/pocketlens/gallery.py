"""The gallery folder: gallery.json beside codes, float16 originals, items and statistics. See docs/formats.md.

Opening checks the sha256 of every file before native code sees one. A gallery is immutable: writing makes a new folder.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pocketlens import __version__
from pocketlens._native import ort
from pocketlens._types import Float16s, Float32s, Int64s
from pocketlens.attributes import RECORDED, Schema, check_schema, infer_schema
from pocketlens.codes import LEAST_DEVIATION, greatest_error, make_rotation, to_codes
from pocketlens.columns import Columns, encode_columns, file_names, open_columns, write_columns
from pocketlens.errors import BadQuery, CorruptFile, FormatError
from pocketlens.files import read_arrays, sha256_of
from pocketlens.index import Index, IndexSpec, spec_for
from pocketlens.items import Item, Items, write_items
from pocketlens.manifest import read_manifest, write_manifest
from pocketlens.model import FileRecord, Space
from pocketlens.partitions import make_partitions, open_partitions
from pocketlens.stamps import check_file_once
from pocketlens.tune import tune_probes

FORMAT = "pocketlens-gallery"
VERSION = 1
MANIFEST = "gallery.json"
_CODES, _ORIGINALS, _ITEMS, _STATS = "index.usearch", "rescore.f16", "items.sqlite", "stats.npz"
_PARTITIONS = "partitions.npz"


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
        rotation, mean, covariance = _read_statistics(path / _STATS, manifest.space.dim)
        originals = _map_originals(path / _ORIGINALS, manifest) if manifest.rescore else None
        spec, dim = manifest.index, manifest.space.dim
        partitions = None
        if spec.kind == "partitions":
            partitions = open_partitions(path / _PARTITIONS, rows=spec.rows, dim=dim, count=spec.partitions)
        index = Index.open(path / _CODES, rotation, originals, spec, partitions=partitions, threads=threads)
        items = Items(path / _ITEMS)
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
    expected = set(_file_names(manifest.index, manifest.rescore, manifest.attributes))
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
    """Write a gallery into an empty folder (a temporary one, moved into place by the caller).

    Args:
        folder: an existing empty folder.
        vectors: float32 (rows, dim) unit embeddings by the heavy model. Above the crossover, codes stand in an order of
            their own, that of the partitions.
        items: every picture, with its row.
        space: the embedding space of `vectors`.
        model: the gallery encoder's name.
        counts: what became of every input.
        probes: float32 (n, dim) text-like queries that the number of probes is tuned on, when there are partitions.
        rescore: keep float16 originals, 2 * dim bytes a row, for recall@10 (codes.json).
        generation: 1, or one more than that of the gallery whose place it takes.
        attributes: types of the items' attributes, beside those that are recorded of every picture; by default what
            their values are. Values are in the form of `attributes.check_values`.

    Raises:
        BadQuery: there is no vector, or one is not finite or zero; or an attribute cannot be one.
    """
    if len(vectors) == 0:
        raise BadQuery("a gallery needs at least one picture, found none")
    schema = check_schema(_schema_of(items) if attributes is None else attributes)
    rotation = make_rotation(space.dim)
    codes, spec, partitions = to_codes(vectors, rotation), spec_for(len(vectors)), None
    if spec.kind == "partitions":
        order, partitions = make_partitions(vectors, codes, rotation, spec.partitions)
        vectors, codes, items = vectors[order], codes[order], _in_order(items, order)
        partitions.save(folder / _PARTITIONS)
        spec = replace(spec, partitions=partitions.count)
    originals: Float16s | None = vectors.astype("<f2") if rescore else None
    index = Index.build(codes, rotation, originals, spec, partitions=partitions)
    if partitions is not None:
        spec = tune_probes(index, vectors, probes)
    index.save(folder / _CODES)
    if originals is not None:
        (folder / _ORIGINALS).write_bytes(originals.data)  # NumPy's tofile does not tell when the disk is full
        spec = replace(spec, code_error=greatest_error(originals, codes, rotation))
    write_items(folder / _ITEMS, items)
    write_columns(folder, encode_columns(schema, items, len(vectors)))
    mean, covariance = _statistics(vectors)
    np.savez(folder / _STATS, rotation=rotation, mean=mean, covariance=covariance)
    names = _file_names(spec, rescore, schema)
    manifest = GalleryManifest(
        generation=generation,
        model=model,
        space=space,
        counts=counts,
        index=spec,
        rescore=rescore,
        attributes=schema,
        made_with=_versions(),
        files={name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in names},
    )
    write_manifest(folder / MANIFEST, manifest, format=FORMAT, version=VERSION)


def _file_names(spec: IndexSpec, rescore: bool, schema: Schema) -> list[str]:
    partitions = [_PARTITIONS] if spec.kind == "partitions" else []
    return [_CODES, _ITEMS, _STATS, *partitions, *([_ORIGINALS] if rescore else []), *file_names(schema)]


def _in_order(items: Sequence[Item], order: Int64s) -> list[Item]:
    """Return items whose rows are the places that their old rows have in `order`, by row and id."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    moved = [replace(item, row=int(places[item.row])) for item in items]
    return sorted(moved, key=lambda item: (item.row, item.id))


def _schema_of(items: Sequence[Item]) -> Schema:
    """Return the types of the attributes that items have, but of a recorded one its own."""
    found = infer_schema(item.attributes for item in items)
    return {name: RECORDED.get(name, kind) for name, kind in found.items()}


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


def _statistics(vectors: Float32s) -> tuple[Float32s, Float32s]:
    mean = vectors.mean(axis=0, dtype=np.float64)
    second = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), 65_536):  # float64 sums without a float64 copy of the gallery
        block = vectors[start : start + 65_536].astype(np.float64)
        second += block.T @ block
    covariance = second / len(vectors) - np.outer(mean, mean)
    return mean.astype(np.float32), covariance.astype(np.float32)


def _versions() -> dict[str, str]:
    return {
        "pocketlens": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "usearch": version("usearch"),
    }
