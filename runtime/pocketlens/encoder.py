"""Text and image encoders over a model folder. Each opens its own graph, and only when it is made.

The session options are those of a small device: CPU, no spinning threads, no arena that keeps the largest batch's
memory (facts: onnxruntime 1.32; the arena kept 48 MB after one big batch, 5 MB without).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from PIL import Image

from pocketlens._native import ort
from pocketlens._types import Float32s, Int64s, Uint8s
from pocketlens.errors import BadQuery, FormatError, MissingPart
from pocketlens.model import Model
from pocketlens.picture import Picture, load_pixels
from pocketlens.text import Tokenizer

_MAX_THREADS = 4


class TextEncoder:
    """Encodes texts with a model folder's text tower.

    Args:
        model: an opened model folder with a text tower and a tokenizer.
        threads: threads inside one graph run; by default the usable cores, at most 4.

    Raises:
        MissingPart: the model has no text tower or no tokenizer.
        CorruptFile: a file differs from its record.
    """

    def __init__(self, model: Model, *, threads: int | None = None) -> None:
        spec, name = model.manifest.text, model.manifest.name
        if spec is None:
            raise MissingPart(f"{model.path}: model {name} has no text tower, so it cannot answer texts")
        if spec.tokenizer is None:
            raise MissingPart(
                f"{model.path}: model {name} was exported without a tokenizer, so it cannot answer texts; "
                "export it again with --tokenizer FILE"
            )
        self.spec = spec
        self.dim = model.manifest.space.dim
        self.tokenizer = Tokenizer(model.file(spec.tokenizer), spec)
        self._session = _open_session(model.file(spec.file), threads, inputs=("input_ids", "pseudo_tokens"))

    def encode(self, texts: Sequence[str]) -> Float32s:
        """Return unit embeddings, float32 (n, dim), one row per text.

        Raises:
            BadQuery: an element is not a str or is too long, or `texts` is itself a str.
        """
        _check_several(texts, str)
        return self.encode_ids(self.pad(self.tokenizer.ids(texts)))

    def pad(self, ids: Sequence[Sequence[int]]) -> Int64s:
        """Return ids as int64 (n, l): l is the longest row where trimming is exact, else the context length."""
        length = max(map(len, ids), default=1) if self.spec.trim else self.spec.context_length
        padded = np.full((len(ids), length), self.spec.pad_id, dtype=np.int64)
        for row, values in zip(padded, ids, strict=True):
            row[: len(values)] = values
        return padded

    def encode_ids(self, ids: Int64s, pseudo_tokens: Float32s | None = None) -> Float32s:
        """Return unit embeddings, float32 (n, dim), of padded ids.

        Args:
            ids: int64 (n, l); -1 marks the place of the next pseudo-token.
            pseudo_tokens: float32 (n, p, token_dim), or None for p = 0.
        """
        if pseudo_tokens is None:
            pseudo_tokens = np.zeros((len(ids), 0, self.spec.token_dim), dtype=np.float32)
        if len(ids) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        return _run(self._session, {"input_ids": ids, "pseudo_tokens": pseudo_tokens})


class ImageEncoder:
    """Encodes pictures with a model folder's image tower.

    Args:
        model: an opened model folder with an image tower.
        threads: threads inside one graph run; by default the usable cores, at most 4.

    Raises:
        MissingPart: the model has no image tower.
        CorruptFile: a file differs from its record.
    """

    def __init__(self, model: Model, *, threads: int | None = None) -> None:
        spec = model.manifest.image
        if spec is None:
            raise MissingPart(
                f"{model.path}: model {model.manifest.name} has no image tower, so it cannot see pictures"
            )
        self.spec = spec
        self.dim = model.manifest.space.dim
        self._session = _open_session(model.file(spec.file), threads, inputs=("pixels",))

    def encode(self, pictures: Sequence[Picture]) -> Float32s:
        """Return unit embeddings, float32 (n, dim), one row per picture (bytes, path or PIL image).

        Raises:
            BadImage: a picture cannot be decoded.
            BadQuery: an element is neither bytes, a path nor a PIL image, or `pictures` is itself one of them.
        """
        _check_several(pictures, bytes | str | Path | Image.Image)
        if len(pictures) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        return self.encode_pixels(np.stack([load_pixels(picture, self.spec) for picture in pictures]))

    def encode_pixels(self, pixels: Uint8s) -> Float32s:
        """Return unit embeddings, float32 (n, dim), of preprocessed pixels, uint8 (n, side, side, 3) RGB."""
        return _run(self._session, {"pixels": pixels})


def default_threads() -> int:
    """Return the number of threads a graph runs with unless told otherwise: the usable cores, at most 4."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MAX_THREADS)


def _check_several(values: Any, one: type | UnionType) -> None:
    if isinstance(values, one):  # a str is a sequence of str, and would be encoded letter by letter
        raise BadQuery(f"encode takes a list, found a single {type(values).__name__}")


def _open_session(path: Path, threads: int | None, *, inputs: tuple[str, ...]) -> Any:
    if threads is not None and threads < 1:
        raise BadQuery(f"threads is {threads}, expected at least 1")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads if threads is not None else default_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no public base
        reason = " ".join(str(error).split())[:300]
        raise FormatError(f"{path} is no ONNX graph that onnxruntime {ort.__version__} can run: {reason}") from error
    found = tuple(sorted(value.name for value in session.get_inputs()))
    outputs = [value.name for value in session.get_outputs()]
    if found != inputs or "embedding" not in outputs:
        raise FormatError(f"{path} maps {found} to {outputs}, expected {inputs} to an output 'embedding'")
    return session


def _run(session: Any, feeds: dict[str, Any]) -> Float32s:
    embedding: Float32s = session.run(["embedding"], feeds)[0]
    return embedding
