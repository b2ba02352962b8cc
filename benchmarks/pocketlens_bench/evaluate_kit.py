"""What composition methods ask for, answered from memory the second time: methods and strengths share most of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.bundle import read_bundle
from pocketlens.compose import Kit
from pocketlens.compose.inversion import OF_FEATURES
from pocketlens.concepts import Concepts
from pocketlens.errors import EncoderMismatch, MissingPart
from pocketlens.ingredients import Ingredients
from pocketlens.lens import Lens
from pocketlens.model import Model

_NEIGHBOURS = 100  # kept of every search, so that a sweep over their number searches once
_BATCH = 64


class CachedKit:
    """A Kit over another that encodes no text, prompt or picture twice and searches the gallery exactly.

    Args:
        kit: encodes and inverts.
        rows: float32 (rows, dim), the gallery's vectors.
    """

    def __init__(self, kit: Kit, rows: Float32s) -> None:
        self._kit = kit
        self._rows = rows
        self._texts: dict[str, Float32s] = {}
        self._prompts: dict[tuple[str, bytes], Float32s] = {}
        self._inverted: dict[tuple[str, bytes], Float32s] = {}
        self._nearest: dict[bytes, Int64s] = {}

    @property
    def mean(self) -> Float32s:
        """Mean of the gallery's vectors, float32 (dim,)."""
        return self._kit.mean

    @property
    def covariance(self) -> Float32s:
        """Covariance of the gallery's vectors, float32 (dim, dim)."""
        return self._kit.covariance

    @property
    def concepts(self) -> Concepts:
        """The model's vocabulary. Raises MissingPart when it has none."""
        return self._kit.concepts

    def encode_texts(self, texts: Sequence[str]) -> Float32s:
        """Return unit vectors, float32 (n, dim)."""
        new = sorted({text for text in texts if text not in self._texts}, key=len)  # alike in length: little padding
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            self._texts.update(zip(batch, self._kit.encode_texts(batch), strict=True))
        return np.stack([self._texts[text] for text in texts])

    def encode_prompts(self, prompts: Sequence[str], pseudo_tokens: Float32s) -> Float32s:
        """Return unit vectors, float32 (n, dim), of prompts whose every `$` stands for the pseudo-tokens."""
        token = pseudo_tokens.tobytes()
        new = [prompt for prompt in dict.fromkeys(prompts) if (prompt, token) not in self._prompts]
        if new:
            vectors = self._kit.encode_prompts(new, pseudo_tokens)
            self._prompts.update(((prompt, token), vector) for prompt, vector in zip(new, vectors, strict=True))
        return np.stack([self._prompts[prompt, token] for prompt in prompts])

    def invert(self, recipe: str, vector: Float32s) -> Float32s:
        """Return pseudo-tokens, float32 (p, token_dim), of a unit vector. Raises MissingPart without that network."""
        key = (recipe, vector.tobytes())
        if key not in self._inverted:
            self._inverted[key] = self._kit.invert(recipe, vector)
        return self._inverted[key]

    def invert_features(self, recipe: str, features: Float32s) -> Float32s:
        """Return pseudo-tokens, float32 (n, p, token_dim), of pictures' features; see `Kit`."""
        return self._kit.invert_features(recipe, features)

    def nearest(self, vector: Float32s, count: int) -> Float32s:
        """Return the gallery's vectors nearest to a vector, float32 (at most count, dim), best first."""
        key = vector.tobytes()
        if len(self._nearest.get(key, ())) < min(count, len(self._rows)):
            self._nearest[key] = _best(self._rows @ vector, max(count, _NEIGHBOURS))
        return self._rows[self._nearest[key][:count]]


def open_kit(bundle: Path, lens: Lens, *, threads: int | None = None) -> Ingredients:
    """Return what methods may ask of a bundle, given its folder and the lens that opened it."""
    sha256s = read_bundle(bundle)
    model = None if sha256s.text is None else Model.open(bundle / "text", manifest_sha256=sha256s.text)
    image = None if sha256s.image is None else Model.open(bundle / "image", manifest_sha256=sha256s.image)
    return Ingredients(lens.gallery, model, lens.text_encoder, image=image, threads=threads)


def has_part(kit: Kit, need: str) -> bool:
    """Return whether a kit can serve a method's need: "concepts", or "inversion/<recipe>"."""
    try:
        if need == "concepts":
            return len(kit.concepts.names) > 0
        recipe = need.removeprefix("inversion/")
        if recipe in OF_FEATURES:
            return len(kit.invert_features(recipe, np.zeros((0, 1, 1, 1), dtype=np.float32))) == 0
        direction = np.zeros(len(kit.mean), dtype=np.float32)
        direction[0] = 1.0
        return len(kit.invert(recipe, direction)) > 0
    except (MissingPart, EncoderMismatch):
        return False


def _best(scores: Float32s, count: int) -> Int64s:
    """Return the places of the highest scores, at most `count`, best first; equal ones in order."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")][:count].astype(np.int64)
