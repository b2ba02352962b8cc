"""Galleries and bundles from a folder of pictures, on one machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from shutil import copyfile

import numpy as np

from pocketlens._types import Float32s
from pocketlens.bundle import Tower, add_tower, check_space, seal_bundle
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import FormatError, MissingPart
from pocketlens.files import new_folder
from pocketlens.gallery import MANIFEST as GALLERY_MANIFEST
from pocketlens.gallery import Counts, Gallery, write_gallery
from pocketlens.index import CROSSOVER_ROWS
from pocketlens.items import Item
from pocketlens.model import Model
from pocketlens_export.gallery.scan import Loaded, Skipped, list_files, load_all

BATCH = 16
_SUBJECTS = [
    "dog",
    "cat",
    "child",
    "woman",
    "man",
    "car",
    "bicycle",
    "house",
    "tree",
    "flower",
    "boat",
    "train",
    "meal",
    "cup",
    "bird",
    "mountain",
]
_SETTINGS = [
    "at night",
    "in the rain",
    "on a beach",
    "in the snow",
    "from above",
    "close up",
    "in a kitchen",
    "in a street",
    "at sunset",
]


@dataclass(slots=True)
class Encoded:
    """What encoding a folder gave: vectors by row, items, and what was skipped."""

    vectors: list[Float32s] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def build_bundle(
    pictures: Path,
    out: Path,
    *,
    model: Model,
    query_model: Model,
    rescore: bool = True,
    replace: bool = False,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Counts, list[Skipped]]:
    """Encode every picture below a folder and write a bundle; return the counts and the skipped files.

    Args:
        pictures: the folder, walked recursively.
        out: the bundle folder to write; it appears complete or not at all.
        model: the gallery's encoder.
        query_model: gives the bundle its towers; a tower it lacks comes from `model`.
        rescore: keep float16 originals beside the codes.
        replace: allow `out` to exist.
        threads: threads of the encoder.
        on_progress: called with (files done, files in all).

    Raises:
        FormatError: `pictures` is not a folder, holds no readable picture, or `out` exists.
        EncoderMismatch: `query_model` is of another space.
    """
    check_space(query_model, model.manifest.space)
    paths = list_files(pictures)
    with new_folder(out, replace=replace) as folder:
        encoder = ImageEncoder(model, threads=threads)
        outcomes = _report(load_all(pictures, paths, encoder.spec), len(paths), on_progress)
        encoded = encode_pictures(outcomes, encoder)
        if not encoded.vectors:
            raise FormatError(f"{pictures}: no picture could be read, of {len(paths)} files; nothing was written")
        counts = _count(encoded, len(paths))
        (folder / "gallery").mkdir()
        write_gallery(
            folder / "gallery",
            np.stack(encoded.vectors),
            encoded.items,
            space=model.manifest.space,
            model=model.manifest.name,
            counts=counts,
            probes=_probes(query_model, model) if len(encoded.vectors) >= CROSSOVER_ROWS else None,
            rescore=rescore,
        )
        for tower, source in _towers(query_model, model):
            add_tower(folder, tower, source)
        seal_bundle(folder)
    return counts, encoded.skipped


def encode_pictures(outcomes: Iterator[Loaded | Skipped], encoder: ImageEncoder) -> Encoded:
    """Return vectors, items and skipped files; a file with the bytes of an earlier one shares its row."""
    encoded, rows, batch = Encoded(), dict[str, int](), list[Loaded]()
    for outcome in outcomes:
        if isinstance(outcome, Skipped):
            encoded.skipped.append(outcome)
            continue
        if outcome.sha256 not in rows:
            rows[outcome.sha256] = len(rows)
            batch.append(outcome)
        row, size = rows[outcome.sha256], (outcome.width, outcome.height)
        encoded.items.append(Item(outcome.id, row, outcome.id, *size, outcome.sha256, attributes={}))
        if len(batch) == BATCH:
            encoded.vectors += list(encoder.encode_pixels(np.stack([loaded.pixels for loaded in batch])))
            batch.clear()
    if batch:
        encoded.vectors += list(encoder.encode_pixels(np.stack([loaded.pixels for loaded in batch])))
    return encoded


def pack_bundle(out: Path, *, gallery: Path, text: Model | None, image: Model | None, replace: bool = False) -> None:
    """Put a bundle together from a gallery folder and the towers of up to two models.

    Raises:
        FormatError: a part is not what it should be, or `out` exists.
        EncoderMismatch: a tower is not of the gallery's space.
        MissingPart: neither tower is given.
    """
    if text is None and image is None:
        raise MissingPart("a bundle needs a text tower, an image tower or both; give --text, --image or both")
    opened = Gallery.open(gallery)  # checks every file
    opened.close()
    space = opened.manifest.space
    with new_folder(out, replace=replace) as folder:
        (folder / "gallery").mkdir()
        for name in [GALLERY_MANIFEST, *opened.manifest.files]:
            copyfile(gallery / name, folder / "gallery" / name)
        towers: Sequence[tuple[Tower, Model | None]] = (("text", text), ("image", image))
        for tower, model in towers:
            if model is not None:
                check_space(model, space)
                add_tower(folder, tower, model)
        seal_bundle(folder)


def _report(
    outcomes: Iterator[Loaded | Skipped], total: int, on_progress: Callable[[int, int], None]
) -> Iterator[Loaded | Skipped]:
    for done, outcome in enumerate(outcomes, start=1):
        yield outcome
        on_progress(done, total)


def _count(encoded: Encoded, seen: int) -> Counts:
    indexed = len(encoded.vectors)
    reasons = Counter(skipped.reason for skipped in encoded.skipped)
    return Counts(seen, indexed, duplicates=len(encoded.items) - indexed, skipped=dict(sorted(reasons.items())))


def _towers(query_model: Model, model: Model) -> list[tuple[Tower, Model]]:
    towers: list[tuple[Tower, Model]] = []
    for source in (query_model, model):
        taken = {tower for tower, _ in towers}
        if source.manifest.text is not None and source.manifest.text.tokenizer is not None and "text" not in taken:
            towers.append(("text", source))
        if source.manifest.image is not None and "image" not in taken:
            towers.append(("image", source))
    return towers


def _probes(query_model: Model, model: Model) -> Float32s | None:
    """Return encoded everyday texts to tune a graph's width on, float32 (144, dim), or None without a text tower."""
    sources = [source for tower, source in _towers(query_model, model) if tower == "text"]
    texts = [f"a photo of a {subject} {setting}" for subject, setting in product(_SUBJECTS, _SETTINGS)]
    return TextEncoder(sources[0]).encode(texts) if sources else None
