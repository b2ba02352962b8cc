"""Bundles from Python: of pictures, or of parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

from pocketlens.bundle import MANIFEST as BUNDLE_MANIFEST
from pocketlens.bundle import Tower, add_tower, check_space, seal_bundle
from pocketlens.errors import FormatError, MissingPart
from pocketlens.files import new_folder
from pocketlens.gallery import MANIFEST as GALLERY_MANIFEST
from pocketlens.gallery import Counts, Gallery
from pocketlens.listing import Skipped
from pocketlens.model import Model
from pocketlens_export.gallery.indexing import index_pictures
from pocketlens_export.gallery.progress import Watch
from pocketlens_export.gallery.request import Request


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
    """Encode every picture of a folder, or of another source, and write a bundle; `index_pictures` can do more.

    Args:
        pictures: a folder, walked recursively, a tar archive, a Parquet file or a list of paths.
        on_progress: called with (entries done, entries in all).

    Returns:
        The counts, and the first 100 skipped files of each reason.

    Raises:
        FormatError: `pictures` is no source, holds no readable picture, or `out` exists.
        EncoderMismatch: `query_model` is of another space.
        BadQuery: a format is unknown, attributes are given for a picture that is not there, or one cannot be one;
            MissingPart: this installation cannot decode the format.
    """
    request = Request(
        [pictures], out, model, query_model, rescore=rescore, replace=replace, formats=formats,
        attributes=attributes or {}, types=types or {}, threads=threads,
    )  # fmt: skip
    done = index_pictures(request, Watch(on_entry=on_progress))
    return done.counts, [skipped for examples in done.examples.values() for skipped in examples]


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
            (folder / "gallery" / name).parent.mkdir(parents=True, exist_ok=True)
            copyfile(gallery / name, folder / "gallery" / name)
        towers: Sequence[tuple[Tower, Model | None]] = (("text", text), ("image", image))
        for tower, model in towers:
            if model is not None:
                check_space(model, space)
                add_tower(folder, tower, model)
        seal_bundle(folder)
