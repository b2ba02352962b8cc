"""Text and image encoders over a model folder. Each opens its own graph, and only when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from PIL import Image

from pocketlens._types import Float32s, Int64s, Uint8s
from pocketlens.decoders import DEVICE, Limits
from pocketlens.errors import BadQuery, MissingPart
from pocketlens.graph import PROCESSOR, Graph
from pocketlens.model import Model, PictureSpec, TextSpec
from pocketlens.picture import Picture, load_pixels
from pocketlens.text import Tokenizer, readable

PLACE = "$"  # where a prompt takes its pseudo-tokens


class TextGraph:
    """A model folder's text tower alone: ids in, embeddings out. It needs no tokenizer.

    Args:
        model: an opened model folder with a text tower.
        threads: threads inside one graph run; by default the usable cores, at most 4.

    Raises:
        MissingPart: the model has no text tower.
        FormatError: the graph is none, or its shapes are not the manifest's (CorruptFile: it differs from its record).
    """

    def __init__(self, model: Model, *, threads: int | None = None) -> None:
        self.spec = _text_spec(model)
        self.dim = model.manifest.space.dim
        length = None if self.spec.trim else self.spec.context_length
        shapes = {"input_ids": (None, length), "pseudo_tokens": (None, None, self.spec.token_dim)}
        self._graph = Graph(model.file(self.spec.file), threads, shapes, {"embedding": (None, self.dim)})

    def encode_ids(self, ids: Int64s, pseudo_tokens: Float32s | None = None) -> Float32s:
        """Return unit embeddings, float32 (n, dim), of padded ids.

        Args:
            ids: int64 (n, l); -1 marks the place of the next pseudo-token.
            pseudo_tokens: float32 (n, p, token_dim), or None for p = 0.

        Raises:
            FormatError: the graph cannot be run on them.
        """
        if pseudo_tokens is None:
            pseudo_tokens = np.zeros((len(ids), 0, self.spec.token_dim), dtype=np.float32)
        if len(ids) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        return self._graph.run({"input_ids": ids, "pseudo_tokens": pseudo_tokens}, ["embedding"])[0]


class TextEncoder:
    """Encodes texts with a model folder's text tower.

    Args:
        model: an opened model folder with a text tower and a tokenizer.
        threads: threads inside one graph run; by default the usable cores, at most 4.

    Raises:
        MissingPart: the model has no text tower or no tokenizer.
        FormatError: a file is not what the manifest says (CorruptFile: it differs from its record).
    """

    def __init__(self, model: Model, *, threads: int | None = None) -> None:
        self.spec = _text_spec(model)
        if self.spec.tokenizer is None:
            raise MissingPart(
                f"{model.path}: model {model.manifest.name} was exported without a tokenizer, so it cannot answer "
                "texts; export it again with --tokenizer FILE"
            )
        self.dim = model.manifest.space.dim
        self.tokenizer = Tokenizer(model.file(self.spec.tokenizer), self.spec)
        self._graph = TextGraph(model, threads=threads)

    def encode(self, texts: Sequence[str]) -> Float32s:
        """Return unit embeddings, float32 (n, dim), one row per text.

        Raises:
            BadQuery: an element is not a str, or `texts` is itself a str.
        """
        _check_several(texts, str)
        return self.encode_ids(self.pad(self.tokenizer.ids(texts)))

    def encode_prompts(self, prompts: Sequence[str], pseudo_tokens: Float32s) -> Float32s:
        """Return unit embeddings, float32 (n, dim), of prompts in which every `$` stands for the same pseudo-tokens.

        Args:
            prompts: texts with equally many `$` each, such as "a photo of $ at night".
            pseudo_tokens: float32 (p, token_dim), p at least 1; an over-long prompt loses text before it loses one.

        Raises:
            BadQuery: an element is not a str, `prompts` is itself one, the numbers of `$` differ, or the pseudo-tokens
                have another shape or are not finite.
        """
        _check_several(prompts, str)
        count = len(pseudo_tokens)
        if pseudo_tokens.shape != (count, self.spec.token_dim) or count == 0 or not np.isfinite(pseudo_tokens).all():
            raise BadQuery(
                f"pseudo-tokens are {pseudo_tokens.shape}, expected finite (1 or more, {self.spec.token_dim})"
            )
        segments = [readable(prompt).split(PLACE) for prompt in prompts]
        places = {len(each) - 1 for each in segments}
        if len(places) > 1:
            raise BadQuery(f"the prompts of a batch have {sorted(places)} {PLACE!r}, expected equally many each")
        ids = self.pad([self.tokenizer.prompt_ids(each, count) for each in segments])
        tiled = np.tile(pseudo_tokens.astype(np.float32), (max(places, default=0), 1))  # (places * p, token_dim)
        return self.encode_ids(ids, np.repeat(tiled[np.newaxis], len(ids), axis=0))

    def pad(self, ids: Sequence[Sequence[int]]) -> Int64s:
        """Return ids as int64 (n, l): l is the longest row where trimming is exact, else the context length."""
        length = max(map(len, ids), default=1) if self.spec.trim else self.spec.context_length
        padded = np.full((len(ids), length), self.spec.pad_id, dtype=np.int64)
        for row, values in zip(padded, ids, strict=True):
            row[: len(values)] = values
        return padded

    def encode_ids(self, ids: Int64s, pseudo_tokens: Float32s | None = None) -> Float32s:
        """Return unit embeddings, float32 (n, dim), of padded ids; see `TextGraph.encode_ids`."""
        return self._graph.encode_ids(ids, pseudo_tokens)


class ImageEncoder:
    """Encodes pictures with a model folder's image tower.

    Args:
        model: an opened model folder with an image tower.
        threads: threads inside one graph run; by default the usable cores, at most 4.
        limits: which formats are read, and how large a picture may be.
        provider: of onnxruntime; servers may have a faster one than the processor.

    Raises:
        MissingPart: the model has no image tower.
        FormatError: the graph is none, or its shapes are not the manifest's (CorruptFile: it differs from its record).
    """

    def __init__(
        self, model: Model, *, threads: int | None = None, limits: Limits = DEVICE, provider: str = PROCESSOR
    ) -> None:
        self.spec = spec = picture_spec(model)
        self.dim = model.manifest.space.dim
        self._limits = limits
        self._name = f"{model.path}: model {model.manifest.name}"
        outputs: dict[str, tuple[int | None, ...]] = {"embedding": (None, self.dim)}
        if spec.features is not None:
            outputs["features"] = (None, spec.features.channels, spec.features.height, spec.features.width)
        shapes = {"pixels": (None, spec.side, spec.side, 3)}
        self._graph = Graph(model.file(spec.file), threads, shapes, outputs, provider=provider)

    def encode(self, pictures: Sequence[Picture]) -> Float32s:
        """Return unit embeddings, float32 (n, dim), one row per picture (bytes, path or PIL image).

        Raises:
            BadImage: a picture cannot be decoded.
            BadQuery: an element is neither bytes, a path nor a PIL image, or `pictures` is itself one of them.
        """
        _check_several(pictures, bytes | str | Path | Image.Image)
        if len(pictures) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        return self.encode_pixels(np.stack([self.load(picture) for picture in pictures]))

    def load(self, picture: Picture) -> Uint8s:
        """Return the graph's input for one picture, uint8 (side, side, 3) RGB; see `encode` for the errors."""
        return load_pixels(picture, self.spec, limits=self._limits)

    def encode_pixels(self, pixels: Uint8s) -> Float32s:
        """Return unit embeddings, float32 (n, dim), of preprocessed pixels, uint8 (n, side, side, 3) RGB.

        Raises:
            FormatError: the graph cannot be run on them.
        """
        return self._graph.run({"pixels": pixels}, ["embedding"])[0]

    def encode_features(self, pixels: Uint8s) -> tuple[Float32s, Float32s]:
        """Return unit embeddings, float32 (n, dim), and feature maps, float32 (n, channels, height, width), in one run.

        Args:
            pixels: preprocessed pixels, uint8 (n, side, side, 3) RGB.

        Raises:
            MissingPart: the tower gives no features.
            FormatError: the graph cannot be run on them.
        """
        if self.spec.features is None:
            raise MissingPart(
                f"{self._name} gives no features of pictures beside their embeddings; export an image tower that has "
                "a last feature map before pooling with pocketlens export"
            )
        embeddings, features = self._graph.run({"pixels": pixels}, ["embedding", "features"])
        return embeddings, features


def picture_spec(model: Model) -> PictureSpec:
    """Return what a model's image tower takes; raises `MissingPart` where it has none."""
    if model.manifest.image is None:
        raise MissingPart(f"{model.path}: model {model.manifest.name} has no image tower, so it cannot see pictures")
    return model.manifest.image


def _check_several(values: Any, one: type | UnionType) -> None:
    if isinstance(values, one):  # a str is a sequence of str, and would be encoded letter by letter
        raise BadQuery(f"encode takes a list, found a single {type(values).__name__}")


def _text_spec(model: Model) -> TextSpec:
    spec = model.manifest.text
    if spec is None:
        raise MissingPart(f"{model.path}: model {model.manifest.name} has no text tower, so it cannot answer texts")
    return spec
