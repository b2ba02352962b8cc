"""Generations of a bundle of pictures of one colour, as a server writes them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from pocketlens.gallery import Counts, Gallery
from pocketlens.items import Item
from pocketlens.update import write_update
from pocketlens_export.gallery import generation
from tests.reliability.changes import State, picture, sha256, vector


def next_generation(bundle: Path, changed: State, gone: list[str]) -> int:
    """Write the next generation of a bundle in its place and return its number."""
    rows = {colour: row for row, colour in enumerate(dict.fromkeys(changed.values()))}
    vectors = np.stack([vector(colour) for colour in rows]) if rows else np.zeros((0, 4), dtype=np.float32)
    items = [
        Item(id, rows[colour], id, 8, 8, sha256(colour), {"size_bytes": len(picture(colour))})
        for id, colour in sorted(changed.items(), key=lambda entry: (rows[entry[1]], entry[0]))
    ]
    counts = Counts(len(items), len(rows), len(items) - len(rows), {})
    with closing(Gallery.open(bundle / "gallery")) as gallery:
        numbers = np.array(sorted(gallery.items.numbers_of(gone).values()), dtype=np.int64)
        with generation.next_generation(bundle, gallery, numbers) as writer:
            if len(vectors):
                writer.add(vectors)
            writer.finish(items, counts=counts)
    return writer.generation


def update_of(bundle: Path, out: Path, *, since: int) -> Path:
    """Write an update file of a bundle and return it."""
    write_update(bundle / "gallery", out, since=since)
    return out
