"""A vocabulary for a model: names and the int8 codes of their texts, and the directions in which names differ."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Float32s, Int8s
from pocketlens.concepts import read_concepts
from pocketlens.encoder import TextEncoder
from pocketlens.errors import EncoderMismatch, FormatError, MissingPart, Refused
from pocketlens.files import new_folder, write_file
from pocketlens.inspect import verify
from pocketlens.model import Model, ModelManifest, Vocabulary
from pocketlens.text import clean_text
from pocketlens_export.fit.data import Progress, read_lines, read_texts
from pocketlens_export.fit.seal import copy_files, seal

CONCEPTS = "concepts.npz"
CONTRAST = Path(__file__).with_name("contrast.txt")
CONTRAST_SHARE, DIRECTIONS = 0.2, 250  # BASIC's (arXiv 2510.25387, code)
MIN_COSINE = 0.999  # of the codes to the vectors, in the mean
_LEVELS = 127
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Request:
    """What to fit.

    Attributes:
        model: whose text tower encodes the names.
        into: the folder that a copy of gets the vocabulary: `model`, or another one of its space.
        names: a file of names, one a line.
        contrast: a file of ways to show things.
        source: where the names come from, for people.
        threads: of onnxruntime.
    """

    model: Model
    into: Model
    names: Path
    contrast: Path
    source: str
    threads: int | None


def fit_concepts(request: Request, out: Path, *, replace: bool, progress: Progress) -> ModelManifest:
    """Write a copy of `request.into` with concepts.npz, and return its manifest.

    Raises:
        FormatError: a file holds no names or one alone, a name has nothing to read, or `out` exists.
        MissingPart: the model has no text tower or no tokenizer, or the other one no text tower.
        EncoderMismatch: `into` is of another space.
        Refused: the codes are too far from the vectors.
    """
    model, into = request.model.manifest, request.into.manifest
    if into.space != model.space:
        raise EncoderMismatch(f"{request.into.path} is of space {into.space.id}, expected {model.space.id}")
    if into.text is None:
        raise MissingPart(f"{request.into.path} has no text tower, which a vocabulary belongs to")
    names = read_names(request.names, request.model)
    contrast = list(dict.fromkeys(read_texts(request.contrast)))
    encoder = TextEncoder(request.model, threads=request.threads)
    with new_folder(out, replace=replace) as folder:
        vectors = _encode(encoder, names, progress, "encoding names")
        codes, scales = to_scaled_codes(vectors)
        cosine = check_codes(vectors, codes, scales)
        subspace = contrastive_subspace(vectors, _encode(encoder, contrast, progress, "encoding the contrast"))
        copy_files(request.into, folder)
        write_concepts(folder / CONCEPTS, names, codes, scales, subspace)
        read_concepts(folder / CONCEPTS, model.space.dim)
        figures = {"concepts_mean_cosine": cosine, "concepts_directions": float(len(subspace))}
        manifest = seal(folder, dataclasses.replace(
            into,
            concepts=Vocabulary(CONCEPTS, len(names), request.source),
            quality=into.quality | figures,
        ))  # fmt: skip
        verify(folder)
    return manifest


def read_names(path: Path, model: Model) -> list[str]:
    """Return the different names in a file, in its order.

    Raises:
        FormatError: there are fewer than two, or of one the model reads nothing; the message says the line.
    """
    rule = model.manifest.text.clean if model.manifest.text else "whitespace"
    names: dict[str, None] = {}
    for number, name in read_lines(path):
        if not any(sign.isprintable() and sign != " " for sign in clean_text(name, rule)):
            raise FormatError(f"{path}: line {number} is {name!a}, of which the model reads nothing; expected a name")
        names[name] = None
    if len(names) < 2:
        raise FormatError(f"{path} holds the name {next(iter(names))!r} alone; expected two or more to tell apart")
    return list(names)


def to_scaled_codes(vectors: Float32s) -> tuple[Int8s, Float32s]:
    """Return int8 (n, dim) and float32 (n,) with vector = scale * code, by rounding; no vector may be zero."""
    scales = (np.abs(vectors).max(axis=1) / _LEVELS).astype(np.float32)
    return np.rint(vectors / scales[:, np.newaxis]).astype(np.int8), scales


def check_codes(vectors: Float32s, codes: Int8s, scales: Float32s) -> float:
    """Return the mean cosine of codes to vectors.

    Raises:
        Refused: it is below 0.999.
    """
    stored = codes.astype(np.float64) * scales[:, np.newaxis]
    norms = np.linalg.norm(stored, axis=1) * np.linalg.norm(vectors, axis=1)
    cosine = float(((stored * vectors).sum(axis=1) / norms).mean())
    if not cosine >= MIN_COSINE:
        raise Refused(f"the names' codes have a mean cosine of {cosine:.5f} to their vectors, expected {MIN_COSINE}")
    return cosine


def contrastive_subspace(names: Float32s, contrast: Float32s) -> Float32s:
    """Return the directions in which names vary and ways to show them do not, float32 (k, dim), orthonormal rows.

    Contrastive principal components as BASIC takes them (arXiv 2510.25387, §3.2): the eigenvectors of
    C = (1 - a) A'A / (nA - 1) - a B'B / (nB - 1) with eigenvalues above 0, at most 250, the largest first. A are the
    names and B the contrast, both minus the mean name; a = 0.2. An eigenvalue that is small beside C's largest one of
    either sign, as float32 tells numbers apart, is rounding and counts as 0.

    Args:
        names: float32 (nA, dim).
        contrast: float32 (nB, dim).
    """
    mean = names.mean(axis=0, dtype=np.float64)
    spread = (1 - CONTRAST_SHARE) * _scatter(names - mean) - CONTRAST_SHARE * _scatter(contrast - mean)
    values, vectors = np.linalg.eigh(spread)  # rising
    kept = np.flatnonzero(values > np.abs(values).max() * np.finfo(np.float32).eps)[::-1][:DIRECTIONS]
    return np.ascontiguousarray(vectors[:, kept].T, dtype=np.float32)


def write_concepts(path: Path, names: Sequence[str], codes: Int8s, scales: Float32s, subspace: Float32s) -> None:
    """Write the arrays that `pocketlens.concepts.read_concepts` describes. The same arrays give the same bytes."""
    encoded = [name.encode() for name in names]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        names_utf8=np.frombuffer(b"".join(encoded), dtype=np.uint8),
        offsets=np.cumsum([0, *map(len, encoded)], dtype=np.int64),
        codes=codes,
        scales=scales,
        subspace=subspace,
    )
    write_file(path, buffer.getvalue())


def _scatter(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(centred.T @ centred / max(len(centred) - 1, 1), dtype=np.float64)


def _encode(encoder: TextEncoder, texts: Sequence[str], progress: Progress, stage: str) -> Float32s:
    vectors = np.zeros((len(texts), encoder.dim), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of like length need little padding
    for start in range(0, len(order), _BATCH):
        some = order[start : start + _BATCH]
        vectors[some] = encoder.encode([texts[i] for i in some])
        progress(stage, start + len(some), len(order))
    if not np.isfinite(vectors).all():
        raise FormatError(f"the text tower gives no number for {texts[int(np.argmin(np.isfinite(vectors).all(1)))]!r}")
    return vectors
