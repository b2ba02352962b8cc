"""`info` and `verify`: what a folder says of itself, and whether that is true."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens import bundle, gallery, model
from pocketlens._types import Float32s
from pocketlens.attributes import Schema, canonical
from pocketlens.codes import to_units
from pocketlens.collection import read_local
from pocketlens.columns import encode_columns
from pocketlens.encoder import ImageEncoder, TextEncoder, TextGraph
from pocketlens.errors import BadQuery, CorruptFile, FormatError
from pocketlens.files import check_file, read_arrays
from pocketlens.ingredients import open_concepts
from pocketlens.items import Items
from pocketlens.local import NAME as LOCAL
from pocketlens.local import NOTHING
from pocketlens.network import InversionNetwork
from pocketlens.segment_files import ITEMS, segment_folder


def describe(path: Path) -> dict[str, Any]:
    """Return what a model, gallery or bundle folder says of itself, as plain JSON values, kind first.

    Of a bundle that a device has changed, `local` tells how much it added, by encoder, and how many it removed.

    Raises:
        FormatError: the folder is none of the three, or its manifest is wrong.
    """
    kind = kind_of(path)
    if kind == "model":
        return {"kind": kind, **dataclasses.asdict(model.Model.open(path).manifest)}
    if kind == "gallery":
        return {"kind": kind, **dataclasses.asdict(gallery.open_manifest(path))}
    manifest = bundle.read_bundle(path)
    parts = [name for name in ("gallery", "text", "image") if getattr(manifest, name) is not None]
    described: dict[str, Any] = {"kind": kind, **dataclasses.asdict(manifest)}
    return {**described, **{part: describe(path / part) for part in parts}, **_describe_local(path)}


def tower_manifest(path: Path, tower: bundle.Tower) -> model.ModelManifest | None:
    """Return what a bundle's tower, or a model folder, says of itself; None for a bundle without that tower.

    Raises:
        FormatError: the folder is neither, or its manifest is wrong (CorruptFile: it differs from its record).
    """
    kind = kind_of(path)
    if kind == "gallery":
        raise FormatError(f"{path} is a gallery, expected a bundle or a model folder")
    if kind == "model":
        return model.Model.open(path).manifest
    manifest = bundle.read_bundle(path)
    sha256 = manifest.text if tower == "text" else manifest.image
    return None if sha256 is None else model.Model.open(path / tower, manifest_sha256=sha256).manifest


def missing_towers(path: Path) -> dict[str, str]:
    """Return what a bundle lacks to encode a query's parts, by their kind, "image" or "text".

    A model folder lacks nothing: a bundle may take its other tower from another.

    Raises:
        FormatError: as `tower_manifest`.
    """
    text = tower_manifest(path, "text")
    if kind_of(path) == "model":
        return {}
    manifest = bundle.read_bundle(path)
    lacks = {} if manifest.image is not None else {"image": "an image tower: pocketlens pack --image MODEL"}
    if text is None:
        return {**lacks, "text": "a text tower: pocketlens pack --text MODEL"}
    return lacks if text.can_read else {**lacks, "text": "a tokenizer, without which no text can be encoded"}


def kind_of(path: Path) -> str:
    """Return "model", "gallery" or "bundle" by the manifest that lies in the folder.

    Raises:
        FormatError: the folder does not exist or holds none of the manifests.
    """
    if not path.is_dir():
        raise FormatError(f"{path} is not a folder; expected a model, gallery or bundle folder")
    for kind, name in (("bundle", bundle.MANIFEST), ("gallery", gallery.MANIFEST), ("model", model.MANIFEST)):
        if (path / name).is_file():
            return kind
    raise FormatError(f"{path} holds none of bundle.json, gallery.json and model.json; not a pocketlens folder")


def verify(path: Path) -> list[str]:
    """Check a folder against its manifests, replay golden values, and return one line per thing that was checked.

    Raises:
        FormatError: something is missing or not what its manifest says (CorruptFile: bytes differ).
    """
    kind = kind_of(path)
    if kind == "gallery":
        return _verify_gallery(path, None)
    if kind == "model":
        return _verify_model(model.Model.open(path))
    manifest = bundle.read_bundle(path)
    lines = [f"{path / bundle.MANIFEST}: its own hash is right"]
    lines += _verify_gallery(path / "gallery", manifest.gallery)
    for tower, sha256 in (("text", manifest.text), ("image", manifest.image)):
        if sha256 is not None:
            opened = model.Model.open(path / tower, manifest_sha256=sha256)
            bundle.check_space(opened, manifest.space)
            lines += _verify_model(opened)
    local = read_local(path)
    if local != NOTHING:
        added, removed = len(local.additions), len(local.removed)
        lines.append(f"{path / LOCAL}: {added} additions and {removed} removals have their checksums")
    return lines


def _describe_local(path: Path) -> dict[str, Any]:
    local = read_local(path)
    if local == NOTHING:
        return {}
    encoders = Counter(addition.item.encoder for addition in local.additions.values())
    removed = len(local.removed)
    return {"local": {"added": len(local.additions), "removed": removed, "encoders": dict(sorted(encoders.items()))}}


def _verify_gallery(path: Path, sha256: str | None) -> list[str]:
    for name, record in gallery.open_manifest(path, manifest_sha256=sha256).files.items():  # whatever a stamp says
        check_file(path / name, sha256=record.sha256, size_bytes=record.size_bytes)
    opened = gallery.Gallery.open(path, manifest_sha256=sha256)
    with closing(opened):
        found, rows = opened.items.read_all(), opened.index.rows
    counts, items = opened.manifest.counts, len(found)
    accounted = counts.indexed + counts.duplicates + sum(counts.skipped.values())
    for count, expected, what in (
        (accounted, counts.seen, "indexed + duplicates + skipped"),
        (items, counts.indexed + counts.duplicates, "items"),
        (len(rows), counts.indexed, "code rows"),
        (len({item.id for item in found}), items, "different ids"),
    ):
        if count != expected:
            raise FormatError(f"{path / gallery.MANIFEST}: {what} is {count}, expected {expected}")
    for number, segment in enumerate(opened.manifest.segments):
        if segment.index is not None:
            _verify_items(segment_folder(path, number), opened.manifest.attributes, segment.index.rows)
    return [f"{path}: {len(opened.manifest.files)} files, {items} items on {counts.indexed} rows"]


def _verify_items(folder: Path, schema: Schema, rows: int) -> None:
    """Raise `FormatError` unless a segment's items have its rows, and its columns hold what items.sqlite does."""
    with closing(Items(folder / ITEMS)) as opened:
        path, items = opened.path, opened.read_all()
    there, expected_rows = {item.row for item in items}, set(range(rows))
    for wrong, what in ((there - expected_rows, "an item, but no code"), (expected_rows - there, "no item")):
        if wrong:
            raise FormatError(f"{path}: row {min(wrong)} has {what}; the index has {rows} rows")
    for item in items:
        try:
            kept = {name: canonical(name, schema[name], value, of=item.id) for name, value in item.attributes.items()}
        except (BadQuery, KeyError) as error:
            raise FormatError(f"{path}: {item.id!r} does not fit the schema: {error}") from error
        if kept != item.attributes:
            raise FormatError(f"{path}: {item.id!r} has attributes in another form than they are kept in")
    for name, content in encode_columns(schema, items, rows).items():
        if content.tobytes() != (folder / name).read_bytes():
            raise FormatError(f"{folder / name} does not hold what items.sqlite says")


def _verify_model(opened: model.Model) -> list[str]:
    manifest = opened.manifest
    for name, record in manifest.files.items():
        check_file(opened.path / name, sha256=record.sha256, size_bytes=record.size_bytes)
    lines = [f"{opened.path}: {len(manifest.files)} files have their sizes and hashes"]
    if manifest.text is not None:
        lines.append(_replay_text(opened, manifest.text))
    if manifest.image is not None:
        lines.append(_replay_image(opened, manifest.image))
    lines += [_try_inversion(opened, recipe) for recipe in manifest.inversion]
    if manifest.concepts is not None:
        lines.append(_check_concepts(opened, manifest.concepts))
    return lines


def _try_inversion(opened: model.Model, recipe: str) -> str:
    """Run a network on one picture's worth of noise: there are no reference values, for training does not leave any."""
    network = InversionNetwork(opened, recipe)
    given = np.random.default_rng(0).standard_normal((1, *network.input_shape)).astype(np.float32)
    embedded = network.spec.input == "embedding"
    found = network.invert(to_units(given) if embedded else given)
    if not np.isfinite(found).all():
        of = "a unit vector" if embedded else "random features"
        raise FormatError(f"{opened.path / network.spec.file} gives NaN or infinity for {of}")
    learnt = "" if embedded else f" from features of {network.spec.features_id}"
    return f"{opened.path}: inversion network {recipe} gives {network.spec.tokens} pseudo-token(s){learnt}"


def _check_concepts(opened: model.Model, spec: model.Vocabulary) -> str:
    concepts = open_concepts(opened)
    if len(concepts.names) != spec.count:
        raise FormatError(f"{opened.path / spec.file} holds {len(concepts.names)} names, expected {spec.count}")
    return f"{opened.path}: {spec.count} names"


def _replay_image(opened: model.Model, spec: model.PictureSpec) -> str:
    encoder = ImageEncoder(opened)
    golden = _read_golden(opened, "image", ["pixels", "image_embedding"])
    pixels = golden["pixels"]
    _check_array(opened, golden, "pixels", "uint8", (len(pixels), spec.side, spec.side, 3))
    _check_array(opened, golden, "image_embedding", "float32", (len(pixels), encoder.dim))
    found = np.stack([encoder.encode_pixels(picture[np.newaxis])[0] for picture in pixels])
    return _compare(opened.path, "picture", found, golden["image_embedding"], _bounds(golden, "image"))


def _replay_text(opened: model.Model, spec: model.TextSpec) -> str:
    names = ["text_ids", "text_embedding"]
    names += [] if spec.tokenizer is None else ["text_utf8", "text_offsets"]
    golden = _read_golden(opened, "text", names)
    count = len(golden["text_ids"])
    _check_array(opened, golden, "text_ids", "int64", (count, spec.context_length))
    _check_array(opened, golden, "text_embedding", "float32", (count, opened.manifest.space.dim))
    if spec.tokenizer is None:
        graph = TextGraph(opened)
        found = np.stack([graph.encode_ids(ids[np.newaxis])[0] for ids in golden["text_ids"]])
        compared = _compare(opened.path, "text", found, golden["text_embedding"], _bounds(golden, "text"))
        return compared + "; there is no tokenizer"
    encoder = TextEncoder(opened)
    texts = _golden_texts(opened, golden)
    for text, expected in zip(texts, golden["text_ids"], strict=True):
        ids = encoder.tokenizer.ids([text])[0]
        if ids != expected[: len(ids)].tolist() or (expected[len(ids) :] != spec.pad_id).any():
            raise FormatError(f"{opened.path}: the tokenizer gives other ids than the reference for {text[:40]!r}")
    found = np.stack([encoder.encode([text])[0] for text in texts])  # one by one, as a device does
    return _compare(opened.path, "text", found, golden["text_embedding"], _bounds(golden, "text"))


def _golden_texts(opened: model.Model, golden: dict[str, Any]) -> list[str]:
    offsets = golden["text_offsets"]
    _check_array(opened, golden, "text_offsets", "int64", (len(golden["text_ids"]) + 1,))
    _check_array(opened, golden, "text_utf8", "uint8", (int(offsets[-1]),))
    try:
        return [golden["text_utf8"][start:stop].tobytes().decode() for start, stop in itertools.pairwise(offsets)]
    except UnicodeDecodeError as error:
        raise FormatError(f"{opened.path / model.GOLDEN}: text_utf8 is not UTF-8: {error}") from error


def _read_golden(opened: model.Model, tower: str, names: list[str]) -> dict[str, Any]:
    bounds = [f"{tower}_min_cosine", f"{tower}_max_abs"]
    golden = read_arrays(opened.file(model.GOLDEN), [*names, *bounds])
    for name in bounds:
        _check_array(opened, golden, name, "float32", ())
    for name in names:
        if golden[name].shape[:1] in ((), (0,)):
            raise FormatError(f"{opened.path / model.GOLDEN}: {name} is empty, expected at least one row")
    return golden


def _check_array(opened: model.Model, golden: dict[str, Any], name: str, dtype: str, shape: tuple[int, ...]) -> None:
    array = golden[name]
    if array.dtype != dtype or array.shape != shape:
        found = f"{array.dtype} {array.shape}"
        raise FormatError(f"{opened.path / model.GOLDEN}: {name} is {found}, expected {dtype} {shape}")


def _bounds(golden: dict[str, Any], tower: str) -> tuple[float, float]:
    return float(golden[f"{tower}_min_cosine"]), float(golden[f"{tower}_max_abs"])


def _compare(path: Path, what: str, found: Float32s, expected: Float32s, bounds: tuple[float, float]) -> str:
    cosine = float((found * expected).sum(axis=1).min())
    largest = float(np.abs(found - expected).max())
    floor, ceiling = bounds
    if not (cosine >= floor and largest <= ceiling):
        raise CorruptFile(
            path,
            found=f"golden {what} embeddings at cosine {cosine:.6f}, max abs {largest:.2g}",
            expected=f"cosine >= {floor:.6f}, max abs <= {ceiling:.2g}",
        )
    return f"{path}: {len(found)} golden {what}s replayed, least cosine {cosine:.6f}, max abs {largest:.2g}"
