"""What goes through the towers: each side's pictures and texts as feeds, and the float embeddings of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.encoder import TextEncoder
from pocketlens.errors import FormatError
from pocketlens.model import Model
from pocketlens_quantize.data import PictureSet, PictureSplit, TextSet, TextSplit, read_pictures, read_texts
from pocketlens_quantize.session import Feed, embed, open_session
from pocketlens_quantize.trial import Steering

_BATCH = 8
_BATCHED = 64  # inputs that are also encoded in batches
_STEERED = 256  # inputs that each trial encodes: 9 s for 35 ms each
_MIN_TEXTS = 32
_EXTRA_PADDING = 3  # more than any text of the batch needs


@dataclass(frozen=True, slots=True)
class Side:
    """One half of the data.

    Attributes:
        texts: one feed a text; none when the model cannot read.
        text_batches: the first 64 texts in padded batches.
        pictures: one feed a picture; none when the model has no image tower.
        picture_batches: the first 64 pictures in batches.
        float_texts: float32 (n, dim) embeddings by the float tower.
        float_pictures: float32 (m, dim) embeddings by the float tower.
        labels: for each text the rows of the pictures that it describes; often none.
        sha256: hex, over texts and pictures.
    """

    texts: Sequence[Feed]
    text_batches: Sequence[Feed]
    pictures: Sequence[Feed]
    picture_batches: Sequence[Feed]
    float_texts: Float32s
    float_pictures: Float32s
    labels: Sequence[Sequence[int]]
    sha256: str

    def steering(self, tower: Literal["text", "image"]) -> Steering:
        """Return what a search of one tower looks at."""
        if tower == "image":
            return Steering(self.pictures[:_STEERED], self.picture_batches, gallery=None)
        gallery = self.float_pictures if len(self.float_pictures) else None
        return Steering(self.texts[:_STEERED], self.text_batches, gallery)


def read_sides(
    model: Model,
    *,
    calibration: Path | None,
    measuring: Path | None,
    texts: Path | None,
    progress: Callable[[str], None],
) -> tuple[Side, Side]:
    """Return the side to steer by and the side to prove on, which share nothing.

    Raises:
        FormatError: an image tower, and no calibration pictures; or too few pictures or texts, or shared ones.
    """
    pictures: list[PictureSet | None] = [None, None]
    split_pictures: PictureSplit | None = None
    spec = model.manifest.image
    if spec is not None:
        if calibration is None:
            raise FormatError(
                f"{model.path}: no calibration pictures; an int8 image tower needs at least 64 that are like those it "
                "will see, and 64 others to measure on: give --calibration DIR"
            )
        split = read_pictures(calibration, measuring, spec, progress)
        pictures = [split.calibration, split.measuring]
        split_pictures = split
    words: list[TextSet | None] = [None, None]
    if model.manifest.can_read:
        halves = read_texts(texts, split_pictures)
        words = [halves.calibration, _unseen(model, halves)]
        _check_texts([len(side.texts) for side in words if side is not None], texts)
    first, second = (_side(model, picture, text) for picture, text in zip(pictures, words, strict=True))
    return first, second


def _side(model: Model, pictures: PictureSet | None, texts: TextSet | None) -> Side:
    picture_feeds: list[Feed] = []
    picture_batches: list[Feed] = []
    if pictures is not None:
        picture_feeds = [{"pixels": pixels[np.newaxis]} for pixels in pictures.pixels]
        picture_batches = [{"pixels": batch} for batch in _batched(pictures.pixels[:_BATCHED])]
    text_feeds, text_batches = _text_feeds(model, texts) if texts is not None else ([], [])
    rows = {} if pictures is None else {name: row for row, name in enumerate(pictures.names)}
    described = () if texts is None else texts.pictures
    return Side(
        texts=text_feeds,
        text_batches=text_batches,
        pictures=picture_feeds,
        picture_batches=picture_batches,
        float_texts=_embeddings(model, "text", text_feeds),
        float_pictures=_embeddings(model, "image", picture_feeds),
        labels=[[rows[name] for name in names if name in rows] for names in described],
        sha256=_hash(pictures, texts),
    )


def _check_texts(counts: Sequence[int], file: Path | None) -> None:
    """Raise when captions that follow their pictures, or texts that are equal to the tower, leave a side too few."""
    if min(counts) < _MIN_TEXTS:
        raise FormatError(
            f"{file or 'the built-in queries'}: {counts[0]} texts calibrate and {counts[1]} measure, expected at least "
            f"{_MIN_TEXTS} each; a caption lies on its picture's side, and texts of equal token ids are on one alone"
        )


def _unseen(model: Model, split: TextSplit) -> TextSet:
    """Return the measuring texts without those that the tower cannot tell from a calibration text: equal token ids."""
    tokenizer = TextEncoder(model).tokenizer
    seen = set(map(tuple, tokenizer.ids(split.calibration.texts)))
    texts, pictures = split.measuring.texts, split.measuring.pictures
    kept = [row for row, ids in enumerate(tokenizer.ids(texts)) if tuple(ids) not in seen]
    return TextSet(tuple(texts[row] for row in kept), tuple(pictures[row] for row in kept))


def _text_feeds(model: Model, texts: TextSet) -> tuple[list[Feed], list[Feed]]:
    encoder = TextEncoder(model)
    ids = encoder.tokenizer.ids(texts.texts)
    spec = encoder.spec

    def feed(padded: Int64s) -> Feed:
        return {"input_ids": padded, "pseudo_tokens": np.zeros((len(padded), 0, spec.token_dim), dtype=np.float32)}

    batches = []
    for batch in _batched(ids[:_BATCHED]):
        padded = encoder.pad(batch)
        room = min(_EXTRA_PADDING, spec.context_length - padded.shape[1])
        batches.append(feed(np.pad(padded, ((0, 0), (0, room)), constant_values=spec.pad_id)))
    if spec.trim and batches:  # as an app that never trims would feed it
        first = batches[0]["input_ids"]
        room = spec.context_length - first.shape[1]
        batches[0] = feed(np.pad(first, ((0, 0), (0, room)), constant_values=spec.pad_id))
    return [feed(encoder.pad([row])) for row in ids], batches


def _batched(rows: Any) -> list[Any]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]


def _embeddings(model: Model, tower: Literal["text", "image"], feeds: Sequence[Feed]) -> Float32s:
    spec = getattr(model.manifest, tower)
    if not feeds:
        return np.zeros((0, model.manifest.space.dim), dtype=np.float32)
    return embed(open_session(model.file(spec.file).read_bytes()), feeds)


def _hash(pictures: PictureSet | None, texts: TextSet | None) -> str:
    digest = hashlib.sha256()
    if pictures is not None:
        digest.update(pictures.sha256.encode())
    if texts is not None:
        digest.update(json.dumps([texts.texts, texts.pictures]).encode())
    return digest.hexdigest()
