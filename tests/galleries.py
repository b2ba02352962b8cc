"""Galleries of given vectors, without pictures or encoders."""

from __future__ import annotations

from pathlib import Path

from pocketlens._types import Float32s
from pocketlens.gallery import Counts, Gallery, write_gallery
from pocketlens.items import Item
from pocketlens.model import Space


def item_of(row: int, *, id: str | None = None, width: int = 10, sha256: str | None = None) -> Item:
    """Return an item 10 pixels high, of which nothing but the row needs telling."""
    name = str(row) if id is None else id
    return Item(name, row, name, width, 10, sha256 or f"{row:064x}", {})


def gallery_of(folder: Path, vectors: Float32s, items: list[Item] | None = None, *, rescore: bool = True) -> Gallery:
    """Write a gallery of unit vectors, float32 (rows, dim), into a new folder below `folder` and open it."""
    path = folder / "gallery"
    path.mkdir()
    items = [item_of(row) for row in range(len(vectors))] if items is None else items
    write_gallery(
        path,
        vectors,
        items,
        space=Space("test@" + "0" * 64, vectors.shape[1]),
        model="test",
        counts=Counts(seen=len(items), indexed=len(vectors), duplicates=len(items) - len(vectors), skipped={}),
        rescore=rescore,
    )
    return Gallery.open(path)
