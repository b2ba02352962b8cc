"""A protocol's pictures: which items of the gallery they are, where their files lie, and their vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pocketlens._types import Float32s, Uint8s
from pocketlens.compose import FeatureMap
from pocketlens.decoders import SERVER
from pocketlens.encoder import ImageEncoder
from pocketlens.errors import BadImage, FormatError
from pocketlens.items import Item
from pocketlens.picture import decode, preprocess
from pocketlens_bench.protocols.genecis import dilate
from pocketlens_bench.protocols.task import Box, Task, View

_BATCH = 16


def locate(task: Task, items: Iterable[Item]) -> dict[str, Item]:
    """Return the gallery's item of every picture of a task that it has, by the picture's name.

    An item is a picture when its id is one of the picture's paths, or ends with one after a slash: a folder above or
    below the protocol's own may have been indexed.

    Raises:
        FormatError: a picture is at two places of the gallery.
    """
    by_name: dict[str, list[Item]] = {}
    for item in items:
        by_name.setdefault(item.id.rpartition("/")[2], []).append(item)
    found = {name: _item_of(view, by_name) for name, view in task.views.items()}
    return {name: item for name, item in found.items() if item is not None}


def _item_of(view: View, by_name: dict[str, list[Item]]) -> Item | None:
    for file in view.files:
        found = by_name.get(file.rpartition("/")[2], [])
        ends = [item for item in found if item.id == file or item.id.endswith(f"/{file}")]
        exact = [item for item in ends if item.id == file] or ends
        if len(exact) > 1:
            raise FormatError(f"the gallery has {file} twice: {exact[0].id} and {exact[1].id}; index one folder of it")
        if exact:
            return exact[0]
    return None


class PictureFiles:
    """Finds and encodes a task's pictures.

    Args:
        task: whose pictures.
        located: the gallery's item by a picture's name.
        folders: where the pictures' paths may begin.
    """

    def __init__(self, task: Task, located: dict[str, Item], folders: Sequence[Path]) -> None:
        self._task = task
        self._located = located
        self._folders = folders

    def find(self, name: str) -> Path | None:
        """Return a picture's file, or None when there is none."""
        item = self._located.get(name)
        files = (*([item.uri] if item else []), *self._task.views[name].files)
        paths = (folder / file for folder in self._folders for file in files)
        return next((path for path in paths if path.is_file()), None)

    def encode(
        self, names: Sequence[str], encoder: ImageEncoder, on_progress: Callable[[int], None]
    ) -> tuple[dict[str, Float32s], dict[str, str]]:
        """Return vectors by name, and a reason by name for the pictures that have none.

        `on_progress` is called with the number of pictures that are done.
        """
        vectors: dict[str, Float32s] = {}
        reasons: dict[str, str] = {}
        for start in range(0, len(names), _BATCH):
            batch: dict[str, Uint8s] = {}
            for name in names[start : start + _BATCH]:
                try:
                    batch[name] = self._pixels(name, encoder)
                except BadImage as error:
                    reasons[name] = error.detail
            if batch:
                vectors.update(zip(batch, encoder.encode_pixels(np.stack(list(batch.values()))), strict=True))
            on_progress(min(start + _BATCH, len(names)))
        return vectors, reasons

    def see(self, name: str, encoder: ImageEncoder) -> FeatureMap:
        """Return a picture's features. Raises BadImage when there is no file or it cannot be decoded."""
        return FeatureMap(encoder.encode_features(self._pixels(name, encoder)[np.newaxis])[1][0])

    def _pixels(self, name: str, encoder: ImageEncoder) -> Uint8s:
        path, box = self.find(name), self._task.views[name].box
        if path is None:
            raise BadImage(name, "unreadable", "no file")
        picture = decode(path, limits=SERVER)
        return preprocess(picture if box is None else crop_square(picture, box), encoder.spec)


def crop_square(picture: Image.Image, box: Box) -> Image.Image:
    """Return GeneCIS's view of an instance: its dilated box, in the middle of a black square.

    Raises:
        BadImage: the box lies outside of the picture.
    """
    left, top, right, bottom = (round(edge) for edge in dilate(box, picture.width, picture.height))
    if left >= right or top >= bottom:
        raise BadImage(
            str(box), "damaged", f"the box lies outside of the picture's {picture.width}x{picture.height} pixels"
        )
    cropped = picture.crop((left, top, right, bottom))
    side = max(cropped.size)
    square = Image.new("RGB", (side, side))
    square.paste(cropped, ((side - cropped.width) // 2, (side - cropped.height) // 2))
    return square
