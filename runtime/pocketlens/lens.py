"""Opening a bundle and asking it: encode the query, search the codes, show the items."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from pocketlens._types import Float32s
from pocketlens.bundle import check_space, read_bundle
from pocketlens.codes import to_units
from pocketlens.encoder import ImageEncoder, TextEncoder, check_threads
from pocketlens.errors import BadQuery, MissingPart
from pocketlens.gallery import Gallery
from pocketlens.model import Model
from pocketlens.picture import Picture


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer.

    Attributes:
        id: the item's id in the gallery.
        uri: where the picture can be found, relative to the indexed folder.
        cosine: similarity of query and picture, -1 to 1; higher is nearer.
        z: standard deviations above this query's mean over the gallery.
        width, height: of the upright picture, in pixels.
        attributes: what the builder recorded.
    """

    id: str
    uri: str
    cosine: float
    z: float
    width: int
    height: int
    attributes: dict[str, Any]


class Lens:
    """An opened bundle. Towers are opened when first needed: a text query loads only the text tower.

    One lens may be used from several threads. Use it as a context manager, or `close` it.

    Attributes:
        gallery: the opened gallery.
    """

    def __init__(self, gallery: Gallery, text: Model | None, image: Model | None, *, threads: int | None) -> None:
        self.gallery = gallery
        self._models = {"text": text, "image": image}
        self._threads = threads
        self._lock = threading.Lock()
        self._closed = False
        self._text_encoder: TextEncoder | None = None
        self._image_encoder: ImageEncoder | None = None

    def search(self, *, text: str | None = None, image: Picture | None = None, k: int = 10) -> list[Hit]:
        """Return the k pictures nearest to a text, a picture, or the sum of both, best first.

        Args:
            text: what to look for.
            image: a picture as bytes, path or PIL image.
            k: how many hits, 1 to 1,000; fewer come back only when the gallery has fewer items.

        Raises:
            BadQuery: neither text nor image is given, or one has the wrong type, or k is out of range, or the lens is
                closed.
            BadImage: the picture cannot be decoded.
            MissingPart: the bundle lacks the tower that the query needs, or its tokenizer.
        """
        return self.search_vector(self.encode(text=text, image=image), k=k)

    def encode(self, *, text: str | None = None, image: Picture | None = None) -> Float32s:
        """Return a query's unit vector, float32 (dim,): of the sum of unit vectors when text and picture are given."""
        parts = []
        if isinstance(text, str) and not text.strip():
            raise BadQuery("the text is empty; leave it out to search by picture alone")
        if text is not None:
            parts.append(self.text_encoder().encode([text])[0])
        if image is not None:
            parts.append(self.image_encoder().encode([image])[0])
        if not parts:
            raise BadQuery("a query needs a text, an image or both; found neither")
        total = np.sum(parts, axis=0)
        norm = float(np.linalg.norm(total))
        if norm < 1e-6:
            raise BadQuery("the text and the picture cancel out: their sum has no direction")
        return np.asarray(total / norm, dtype=np.float32)

    def search_vector(self, vector: Float32s, *, k: int = 10) -> list[Hit]:
        """Return the k pictures nearest to a query vector, float32 (dim,), in the gallery's space; see `search`."""
        self._check_open()
        vector = np.asarray(vector, dtype=np.float32)
        if vector.ndim != 1:
            raise BadQuery(f"a query vector has shape {vector.shape}, expected ({self.gallery.manifest.space.dim},)")
        matches = self.gallery.index.search(vector[np.newaxis], k=k)
        count = int(matches.counts[0])
        rows, cosines = matches.rows[0, :count], matches.scores[0, :count]
        z_scores = self.gallery.z_scores(to_units(vector[np.newaxis])[0], cosines)
        hits = []
        for row, cosine, z in zip(rows, cosines, z_scores, strict=True):
            for item in self.gallery.items.of_row(int(row)):  # exact duplicates share a row
                shape = (item.width, item.height)
                hits.append(Hit(item.id, item.uri, float(cosine), float(z), *shape, item.attributes))
        return hits[:k]

    def text_encoder(self) -> TextEncoder:
        """Return the text encoder, opened on the first call.

        Raises:
            MissingPart: the bundle has no text tower, or no tokenizer for it.
        """
        with self._lock:
            self._check_open()
            if self._text_encoder is None:
                self._text_encoder = TextEncoder(self._model("text"), threads=self._threads)
            return self._text_encoder

    def image_encoder(self) -> ImageEncoder:
        """Return the image encoder, opened on the first call.

        Raises:
            MissingPart: the bundle has no image tower.
        """
        with self._lock:
            self._check_open()
            if self._image_encoder is None:
                self._image_encoder = ImageEncoder(self._model("image"), threads=self._threads)
            return self._image_encoder

    def has_tower(self, tower: Literal["text", "image"]) -> bool:
        """Return whether the bundle can encode texts (which takes a tokenizer too), or pictures."""
        model = self._models[tower]
        if model is None:
            return False
        return tower == "image" or model.manifest.can_read

    def close(self) -> None:
        """Release the gallery and the encoders; later queries raise `BadQuery`."""
        with self._lock:
            self._closed = True
            self._text_encoder = self._image_encoder = None
        self.gallery.close()

    def __enter__(self) -> Lens:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BadQuery("this lens is closed")

    def _model(self, tower: str) -> Model:
        model = self._models[tower]
        if model is None:
            raise MissingPart(f"this bundle has no {tower} tower, so it cannot answer {tower} queries")
        return model


def open_lens(path: str | Path, *, threads: int | None = None) -> Lens:
    """Open a bundle and check it from bundle.json down; towers are checked when first used.

    Args:
        path: a bundle folder made by `pocketlens index` or `pocketlens pack`.
        threads: threads of an encoder and of a search; by default an encoder takes the usable cores, at most 4, and a
            search 1.

    Raises:
        BadQuery: `threads` is no integer from 1 on.
        FormatError: not a bundle of a known version, or part of it is missing.
        CorruptFile: a file differs from its record.
        EncoderMismatch: a tower is not of the gallery's space.
    """
    check_threads(threads)
    folder = Path(path)
    manifest = read_bundle(folder)
    text = Model.open(folder / "text", manifest_sha256=manifest.text) if manifest.text else None
    image = Model.open(folder / "image", manifest_sha256=manifest.image) if manifest.image else None
    for model in filter(None, (text, image)):
        check_space(model, manifest.space)
    search_threads = 1 if threads is None else threads
    gallery = Gallery.open(folder / "gallery", manifest_sha256=manifest.gallery, threads=search_threads)
    return Lens(gallery, text, image, threads=threads)
