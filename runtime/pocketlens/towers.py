"""The towers of an opened bundle, each opened when first asked for, and what composed queries are made with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

import numpy as np

from pocketlens._types import Float32s
from pocketlens.additions import Tower
from pocketlens.bundle import check_space
from pocketlens.decoders import Limits
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import MissingPart
from pocketlens.gallery import Gallery
from pocketlens.ingredients import Ingredients
from pocketlens.model import Model
from pocketlens.parts import Part
from pocketlens.picture import Picture


class Towers:
    """Both towers of a bundle. They may be used from several threads.

    Args:
        text, image: the model folders, or None.
        threads: of an encoder; by default the usable cores, at most 4.
        limits: of pictures.
        check: raises when the bundle may not be used any more.
        before_opening: raises when the files of the bundle are no longer where they were.
    """

    def __init__(
        self,
        text: Model | None,
        image: Model | None,
        *,
        threads: int | None,
        limits: Limits,
        check: Callable[[], None],
        before_opening: Callable[[], None],
    ) -> None:
        self.models = {"text": text, "image": image}
        self.text_encoder: TextEncoder | None = None
        self.image_encoder: ImageEncoder | None = None
        self.kit: tuple[Gallery, Ingredients] | None = None
        self.lock = threading.Lock()
        self._threads, self._limits = threads, limits
        self._check, self._before_opening = check, before_opening

    def text(self) -> TextEncoder:
        """Return the text encoder."""
        self._check()  # a fork, which may have got the lock locked, does not come to it
        with self.lock:
            self._check()
            if self.text_encoder is None:
                self._before_opening()
                self.text_encoder = TextEncoder(self.model("text"), threads=self._threads)
            return self.text_encoder

    def image(self) -> ImageEncoder:
        """Return the image encoder."""
        self._check()
        with self.lock:
            self._check()
            if self.image_encoder is None:
                self._before_opening()
                self.image_encoder = ImageEncoder(self.model("image"), threads=self._threads, limits=self._limits)
            return self.image_encoder

    def model(self, tower: Literal["text", "image"]) -> Model:
        """Return a tower's model folder.

        Raises:
            MissingPart: the bundle has none.
        """
        model = self.models[tower]
        if model is None:
            raise MissingPart(f"this bundle has no {tower} tower, so it cannot answer {tower} queries")
        return model

    def has(self, tower: Literal["text", "image"]) -> bool:
        """Return whether texts can be encoded (which takes a tokenizer too), or pictures."""
        model = self.models[tower]
        return model is not None and (tower == "image" or model.manifest.can_read)

    def encode(self, part: Part) -> Float32s:
        """Return the unit vector, float32 (dim,), of a part of a query."""
        if part.kind == "text":
            assert isinstance(part.value, str)
            return np.asarray(self.text().encode([part.value])[0])
        return self.encode_picture(part.value)

    def encode_picture(self, picture: Picture) -> Float32s:
        """Return the unit vector, float32 (dim,), of a picture."""
        return np.asarray(self.image().encode([picture])[0])

    def see_picture(self, picture: Picture) -> tuple[Float32s, Float32s]:
        """Return the unit vector and the features, float32 (channels, height, width), of a picture."""
        encoder = self.image()
        vectors, features = encoder.encode_features(encoder.load(picture)[np.newaxis])
        return vectors[0], features[0]

    def ingredients(self, gallery: Gallery) -> Ingredients:
        """Return what methods may ask of the bundle, with the statistics of this gallery."""
        self._check()
        with self.lock:
            self._check()
            if self.kit is None or self.kit[0] is not gallery:
                text, image = self.models["text"], self.models["image"]
                self.kit = (gallery, Ingredients(gallery, text, self.text, image=image, threads=self._threads))
            return self.kit[1]

    def for_adding(self, model: Model | None, gallery: Gallery) -> Tower:
        """Return the tower that pictures are added with: the bundle's own, or a model's of the gallery's space."""
        if model is not None:
            check_space(model, gallery.manifest.space)
            return Tower.of(model, ImageEncoder(model, threads=self._threads, limits=self._limits), self._limits)
        if self.models["image"] is None:
            raise MissingPart("this bundle has no image tower to add pictures with; give a model of its space")
        return Tower.of(self.model("image"), self.image(), self._limits)

    def close(self) -> None:
        """Release the encoders."""
        with self.lock:
            self.text_encoder = self.image_encoder = self.kit = None
