"""Galleries and bundles from a folder of pictures, on one machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np

from pocketlens._types import Float32s
from pocketlens.attributes import RECORDED, Schema, check_schema, check_values, infer_schema, record
from pocketlens.bundle import MANIFEST as BUNDLE_MANIFEST
from pocketlens.bundle import Tower, add_tower, check_space, seal_bundle
from pocketlens.decoders import SERVER, Limits, with_formats
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import BadQuery, FormatError, MissingPart
from pocketlens.files import new_folder
from pocketlens.gallery import MANIFEST as GALLERY_MANIFEST
from pocketlens.gallery import Counts, Gallery
from pocketlens.gallery_writer import write_gallery
from pocketlens.index import CROSSOVER_ROWS
from pocketlens.items import Item
from pocketlens.model import Model
from pocketlens_export.gallery.scan import Loaded, Skipped, list_files, load_all

BATCH = 16
_SUBJECTS = ("dog", "cat", "child", "woman", "man", "car", "bicycle", "house", "tree", "flower", "boat", "train",
             "meal", "cup", "bird", "mountain")  # fmt: skip
_SETTINGS = ("at night", "in the rain", "on a beach", "in the snow", "from above", "close up", "in a kitchen",
             "in a street", "at sunset")  # fmt: skip


@dataclass(slots=True)
class Encoded:
    """What encoding a folder gave: vectors by row, items, and what was skipped."""

    vectors: list[Float32s] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def counts(self) -> Counts:
        """Return what became of every file."""
        indexed, items, skipped = len(self.vectors), len(self.items), len(self.skipped)
        reasons = dict(sorted(Counter(entry.reason for entry in self.skipped).items()))
        return Counts(items + skipped, indexed, duplicates=items - indexed, skipped=reasons)


def build_bundle(
    pictures: Path,
    out: Path,
    *,
    model: Model,
    query_model: Model,
    rescore: bool = True,
    replace: bool = False,
    formats: Sequence[str] = (),
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    types: Mapping[str, str] | None = None,
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
        formats: picture formats to read beside JPEG, PNG and WebP: gif, bmp, tiff, avif, heic.
        attributes: what filters may ask for beside what is recorded of every picture, by id: the path below `pictures`,
            with forward slashes. Values are texts, ints, floats, dates and times, or lists of tags.
        types: of attributes by name: text, integer, real, time or tags; those left out follow from the values. What is
            named here may be given on the device, though no picture has it yet.
        threads: threads of the encoder.
        on_progress: called with (files done, files in all).

    Raises:
        FormatError: `pictures` is not a folder, holds no readable picture, or `out` exists.
        EncoderMismatch: `query_model` is of another space.
        BadQuery: a format is unknown, attributes are given for a picture that is not there, or one cannot be one;
            MissingPart: this installation cannot decode the format.
    """
    limits = with_formats(SERVER, formats)
    check_space(query_model, model.manifest.space)
    schema, given = _read_attributes(pictures, attributes or {}, types or {})
    with new_folder(out, replace=replace) as folder:
        encoder = ImageEncoder(model, threads=threads)
        encoded = encode_pictures(pictures, encoder, on_progress, limits=limits, attributes=given)
        counts = encoded.counts()
        (folder / "gallery").mkdir()
        write_gallery(
            folder / "gallery",
            np.stack(encoded.vectors),
            encoded.items,
            space=model.manifest.space,
            model=model.manifest.name,
            counts=counts,
            probes=_probes(query_model, model) if counts.indexed >= CROSSOVER_ROWS else None,
            rescore=rescore,
            attributes=schema,
        )
        for tower, source in _towers(query_model, model):
            add_tower(folder, tower, source)
        seal_bundle(folder)
    return counts, encoded.skipped


def encode_pictures(
    folder: Path,
    encoder: ImageEncoder,
    on_progress: Callable[[int, int], None],
    *,
    limits: Limits = SERVER,
    attributes: Mapping[str, dict[str, Any]] | None = None,
) -> Encoded:
    """Encode every picture below a folder; a file with the bytes of an earlier one shares its row.

    Attributes, by id, are in the form of `attributes.check_values`; what the files say is recorded beside them.

    Raises:
        FormatError: `folder` is not a folder, or holds no readable picture.
    """
    paths = list_files(folder)
    outcomes = load_all(folder, paths, encoder.spec, limits=limits)
    encoded = _encode(_report(outcomes, len(paths), on_progress), encoder, attributes or {})
    if not encoded.vectors:
        raise FormatError(f"{folder}: no picture could be read, of {len(paths)} files; nothing was written")
    return encoded


def _encode(
    outcomes: Iterator[Loaded | Skipped], encoder: ImageEncoder, attributes: Mapping[str, dict[str, Any]]
) -> Encoded:
    encoded, rows, batch = Encoded(), dict[str, int](), list[Loaded]()
    for outcome in outcomes:
        if isinstance(outcome, Skipped):
            encoded.skipped.append(outcome)
            continue
        if outcome.sha256 not in rows:
            rows[outcome.sha256] = len(rows)
            batch.append(outcome)
        row, size = rows[outcome.sha256], (outcome.width, outcome.height)
        values = record(attributes.get(outcome.id, {}), size_bytes=outcome.size_bytes, taken=outcome.taken)
        encoded.items.append(Item(outcome.id, row, outcome.id, *size, outcome.sha256, values))
        if len(batch) == BATCH:
            encoded.vectors += list(encoder.encode_pixels(np.stack([loaded.pixels for loaded in batch])))
            batch.clear()
    if batch:
        encoded.vectors += list(encoder.encode_pixels(np.stack([loaded.pixels for loaded in batch])))
    return encoded


def _read_attributes(
    folder: Path, attributes: Mapping[str, Mapping[str, Any]], types: Mapping[str, str]
) -> tuple[Schema, dict[str, dict[str, Any]]]:
    """Return the whole schema and the values by id, checked before anything is encoded."""
    inferred = {name: RECORDED.get(name, kind) for name, kind in infer_schema(attributes.values()).items()}
    schema = check_schema({**inferred, **types})
    given = {id: check_values(schema, values, of=id) for id, values in attributes.items()}
    there = {path.relative_to(folder).as_posix() for path in list_files(folder)} if given else set()
    if strange := sorted(given.keys() - there):
        raise BadQuery(f"attributes are given for {strange[0]!r}, which is not among the pictures")
    return schema, given


def pack_bundle(out: Path, *, gallery: Path, text: Model | None, image: Model | None, replace: bool = False) -> None:
    """Put a bundle together from a gallery folder and the towers of up to two models.

    Raises:
        FormatError: a part is not what it should be, or `out` exists.
        EncoderMismatch: a tower is not of the gallery's space.
        MissingPart: neither tower is given.
    """
    if text is None and image is None:
        raise MissingPart("a bundle needs a text tower, an image tower or both; give --text, --image or both")
    if (gallery / BUNDLE_MANIFEST).is_file():
        raise FormatError(f"{gallery} is a bundle, expected a gallery: give {gallery / 'gallery'}")
    opened = Gallery.open(gallery)  # checks every file
    opened.close()
    space = opened.manifest.space
    with new_folder(out, replace=replace) as folder:
        (folder / "gallery").mkdir()
        for name in [GALLERY_MANIFEST, *opened.manifest.files]:
            (folder / "gallery" / name).parent.mkdir(exist_ok=True)
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


def _towers(query_model: Model, model: Model) -> list[tuple[Tower, Model]]:
    """Return where each tower comes from: the query model if it has it, but a text tower that can take texts first."""
    sources = (query_model, model)
    texts = [source for source in sources if source.manifest.text is not None]
    texts.sort(key=lambda source: not source.manifest.can_read)
    images = [source for source in sources if source.manifest.image is not None]
    towers: list[tuple[Tower, Model]] = [("text", source) for source in texts[:1]]
    return [*towers, *(("image", source) for source in images[:1])]


def _probes(query_model: Model, model: Model) -> Float32s | None:
    """Return encoded everyday texts to tune a search on, float32 (144, dim); None when none can be encoded."""
    for tower, source in _towers(query_model, model):
        if tower == "text" and source.manifest.can_read:
            return TextEncoder(source).encode([f"a photo of a {a} {b}" for a, b in product(_SUBJECTS, _SETTINGS)])
    return None
