"""What methods of composing queries may ask of an opened bundle: encoders, networks, names and the gallery.

Everything is opened when first asked for. Vectors of texts, prompts and pictures are remembered, so that moving a
slider of a method costs no encoder pass.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Literal

import numpy as np
from PIL import Image

from pocketlens._types import Float32s
from pocketlens.compose import REMAKE
from pocketlens.concepts import Concepts, read_concepts
from pocketlens.encoder import TextEncoder
from pocketlens.errors import BadImage, MissingPart
from pocketlens.gallery import Gallery
from pocketlens.index import MAX_K
from pocketlens.model import Model
from pocketlens.network import InversionNetwork
from pocketlens.picture import Picture, read_picture
from pocketlens.text import readable

SEEN = 8  # pictures whose features are remembered; a quarter of a megabyte each at 1,280 channels of 7 by 7
CACHED = 256  # vectors; half a megabyte at 512 dimensions, and with the longest texts that they are known by 5 MB


class Ingredients:
    """The `compose.Kit` of a bundle. It may be used from several threads.

    Args:
        gallery: the opened gallery.
        model: the model folder of the text tower, or None without one.
        text_encoder: returns the opened text encoder; raises MissingPart without one.
        image: the model folder of the image tower, or None without one.
        threads: threads inside one run of a network; by default the usable cores, at most 4.
    """

    def __init__(
        self,
        gallery: Gallery,
        model: Model | None,
        text_encoder: Callable[[], TextEncoder],
        *,
        image: Model | None,
        threads: int | None,
    ) -> None:
        self._gallery = gallery
        self._model = model
        self._image = image
        self._text_encoder = text_encoder
        self._threads = threads
        self._lock = threading.Lock()
        self._networks: dict[str, InversionNetwork] = {}
        self._concepts: Concepts | None = None
        self._cache = _Cache(CACHED)
        self._seen = _Cache(SEEN)

    @property
    def mean(self) -> Float32s:
        """Mean of the gallery's vectors, float32 (dim,), not of unit length."""
        return self._gallery.mean

    @property
    def covariance(self) -> Float32s:
        """Covariance of the gallery's vectors, float32 (dim, dim)."""
        return self._gallery.covariance

    @property
    def concepts(self) -> Concepts:
        """The model's vocabulary.

        Raises:
            MissingPart: it has none.
            FormatError: the file is not what the manifest says (CorruptFile: it differs from its record).
        """
        with self._lock:
            if self._concepts is None:
                self._concepts = open_concepts(self._opened_model())
            return self._concepts

    def encode_texts(self, texts: list[str]) -> Float32s:
        """Return unit vectors, float32 (n, dim); those that are not remembered are encoded in one run."""
        texts = [readable(text) for text in texts]  # what the tokenizer sees of them
        return self._cache.rows([("text", text) for text in texts], lambda new: self._encode([texts[i] for i in new]))

    def encode_prompts(self, prompts: list[str], pseudo_tokens: Float32s) -> Float32s:
        """Return unit vectors, float32 (n, dim), of prompts in which `$` stands for pseudo-tokens, (p, token_dim).

        Those that are not remembered are encoded in one run for each number of `$` in a prompt.
        """
        prompts = [readable(prompt) for prompt in prompts]  # what the tokenizer sees of them
        tokens = hashlib.sha256(pseudo_tokens.tobytes()).digest()

        def encode(new: list[int]) -> Float32s:
            found: dict[int, Float32s] = {}
            for places in sorted({prompts[i].count("$") for i in new}):
                alike = [i for i in new if prompts[i].count("$") == places]
                vectors = self._text_encoder().encode_prompts([prompts[i] for i in alike], pseudo_tokens)
                found |= dict(zip(alike, vectors, strict=True))
            return np.stack([found[i] for i in new])

        return self._cache.rows([("prompt", prompt, tokens) for prompt in prompts], encode)

    def invert(self, recipe: str, vector: Float32s) -> Float32s:
        """Return pseudo-tokens, float32 (p, token_dim), of a unit vector, float32 (dim,).

        Raises:
            MissingPart: the model has no network of this recipe.
            FormatError: the network is not what the manifest says (CorruptFile: it differs from its record).
        """
        pseudo_tokens: Float32s = self._network(recipe, "embedding").invert(vector[np.newaxis].astype(np.float32))[0]
        return pseudo_tokens

    def invert_features(self, recipe: str, features: Float32s) -> Float32s:
        """Return pseudo-tokens, float32 (n, p, token_dim), of features, float32 (n, channels, height, width).

        Raises:
            MissingPart: the model has no network of this recipe, or the image tower gives no features.
            EncoderMismatch: the network was trained on the features of another image tower.
            FormatError: the network is not what the manifest says (CorruptFile: it differs from its record).
        """
        return self._network(recipe, "features").invert(features)

    def nearest(self, vector: Float32s, count: int) -> Float32s:
        """Return the gallery's vectors nearest to a vector, float32 (at most count, dim), best first."""
        matches = self._gallery.index.search(vector[np.newaxis], k=min(count, MAX_K))
        return self._gallery.index.vectors(matches.rows[0, : int(matches.counts[0])])

    def encode_picture(self, picture: Picture, encode: Callable[[Picture], Float32s]) -> Float32s:
        """Return a picture's unit vector, float32 (dim,): the remembered one of its bytes, or what `encode` gives.

        A file is read once: what is encoded is what the vector is known by.

        Raises:
            BadImage: the file cannot be read, is no regular one or is too large; or `encode` cannot decode the picture.
        """
        return _remembered(self._cache, picture, encode)

    def see_picture(
        self, picture: Picture, see: Callable[[Picture], tuple[Float32s, Float32s]]
    ) -> tuple[Float32s, Float32s]:
        """Return a picture's unit vector, float32 (dim,), and its features, float32 (channels, height, width).

        They are the remembered ones of its bytes, or what `see` gives; see `encode_picture` for the errors.
        """

        def joined(picture: Picture) -> Float32s:
            vector, features = see(picture)
            return np.concatenate([vector, features.ravel()])

        row, dim = _remembered(self._seen, picture, joined), len(self._gallery.mean)
        assert self._image is not None and self._image.manifest.image is not None  # `see` needed it
        spec = self._image.manifest.image.features
        assert spec is not None
        return row[:dim], row[dim:].reshape(spec.channels, spec.height, spec.width)

    def _encode(self, texts: list[str]) -> Float32s:
        return self._text_encoder().encode(texts)

    def _network(self, recipe: str, input: Literal["embedding", "features"]) -> InversionNetwork:
        with self._lock:
            if recipe not in self._networks:
                model, image = self._opened_model(), self._image
                self._networks[recipe] = InversionNetwork(model, recipe, image=image, threads=self._threads)
            network = self._networks[recipe]
        if network.spec.input != input:
            raise MissingPart(f"inversion network {recipe!r} takes {network.spec.input}, and one of {input} is needed")
        return network

    def _opened_model(self) -> Model:
        if self._model is None:
            raise MissingPart("this bundle has no text tower, so it has neither names nor inversion networks")
        return self._model


def open_concepts(model: Model) -> Concepts:
    """Return a model's vocabulary.

    Raises:
        MissingPart: it has none.
        FormatError: the file is not what the manifest says (CorruptFile: it differs from its record).
    """
    spec = model.manifest.concepts
    if spec is None:
        raise MissingPart(
            f"{model.path}: model {model.manifest.name} has no vocabulary (concepts.npz); make one with "
            f"pocketlens fit concepts, then a bundle B2 with {REMAKE}"
        )
    return read_concepts(model.file(spec.file), model.manifest.space.dim)


def _remembered(cache: _Cache, picture: Picture, encode: Callable[[Picture], Float32s]) -> Float32s:
    if isinstance(picture, Image.Image):
        return encode(picture)
    content = picture if isinstance(picture, bytes) else read_picture(picture)
    key = ("picture", hashlib.sha256(content).digest())
    try:
        rows = cache.rows([key], lambda _: encode(content)[np.newaxis])
    except BadImage as error:
        raise error if isinstance(picture, bytes) else BadImage(str(picture), error.reason, error.detail) from error
    return np.asarray(rows[0])


class _Cache:
    """Vectors by key; the one used least recently goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._vectors: OrderedDict[Hashable, Float32s] = OrderedDict()

    def rows(self, keys: list[tuple[Hashable, ...]], make: Callable[[list[int]], Float32s]) -> Float32s:
        """Return a vector for each key, float32 (n, dim); `make` gets the places of the new ones and returns theirs."""
        with self._lock:
            known = {key: self._vectors[key] for key in keys if key in self._vectors}
        new = [place for place, key in enumerate(keys) if key not in known and key not in keys[:place]]
        if new:
            made = zip(new, make(new), strict=True)
            known |= {keys[place]: vector.copy() for place, vector in made}  # a row would keep its whole batch
        with self._lock:
            for key in keys:
                self._vectors[key] = known[key]
                self._vectors.move_to_end(key)
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
        return np.stack([known[key] for key in keys])
