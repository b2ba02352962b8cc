"""Galleries of given vectors, without pictures or encoders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pocketlens._types import Float32s
from pocketlens.bundle import FORMAT, VERSION, BundleManifest, add_tower, seal_bundle
from pocketlens.files import sha256_of
from pocketlens.gallery import Counts, Gallery, open_manifest
from pocketlens.gallery_writer import write_gallery
from pocketlens.items import Item
from pocketlens.manifest import manifest_bytes, write_manifest
from pocketlens.model import Model, Space


def item_of(row: int, *, id: str | None = None, width: int = 10, sha256: str | None = None) -> Item:
    """Return an item 10 pixels high, of which nothing but the row needs telling."""
    name = str(row) if id is None else id
    return Item(name, row, name, width, 10, sha256 or f"{row:064x}", {})


def gallery_of(
    folder: Path,
    vectors: Float32s,
    items: list[Item] | None = None,
    *,
    space: Space | None = None,
    rescore: bool = True,
    types: Mapping[str, str] | None = None,
) -> Gallery:
    """Write a gallery of unit vectors, float32 (rows, dim), into a new folder below `folder` and open it."""
    path = folder / "gallery"
    path.mkdir()
    items = [item_of(row) for row in range(len(vectors))] if items is None else items
    write_gallery(
        path,
        vectors,
        items,
        space=space or Space("test@" + "0" * 64, vectors.shape[1]),
        model="test",
        counts=Counts(seen=len(items), indexed=len(vectors), duplicates=len(items) - len(vectors), skipped={}),
        rescore=rescore,
        attributes=types,
    )
    return Gallery.open(path)


def towered_bundle_of(
    folder: Path, vectors: Float32s, items: list[Item] | None = None, *, model: Path, rescore: bool = True
) -> Path:
    """Make a bundle of unit vectors, float32 (rows, dim), with a model's text tower, in `folder`, and return it."""
    opened = Model.open(model)
    gallery_of(folder, vectors, items, space=opened.manifest.space, rescore=rescore).close()
    add_tower(folder, "text", opened)
    seal_bundle(folder)
    return folder


def bundle_of(
    folder: Path,
    vectors: Float32s,
    items: list[Item] | None = None,
    *,
    rescore: bool = True,
    types: Mapping[str, str] | None = None,
) -> Path:
    """Make a bundle without towers of unit vectors, float32 (rows, dim), in `folder`, and return it."""
    gallery_of(folder, vectors, items, rescore=rescore, types=types).close()
    space = open_manifest(folder / "gallery").space
    sealed = BundleManifest(space, sha256_of(folder / "gallery" / "gallery.json"), None, None, "")
    blank = manifest_bytes(sealed, format=FORMAT, version=VERSION)
    sealed = replace(sealed, self_sha256=hashlib.sha256(blank).hexdigest())
    write_manifest(folder / "bundle.json", sealed, format=FORMAT, version=VERSION)
    return folder
