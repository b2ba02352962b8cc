"""The gate: exported graphs run by onnxruntime against the reference model in torch, or nothing is written.

The reference is open_clip's own encode_image and encode_text on the model as loaded: not re-parameterized, and padded
to the full context. Pseudo-tokens are checked against it with the rows of its token embedding overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from pocketlens._types import Float32s, Int64s, Uint8s
from pocketlens.errors import Refused
from pocketlens.model import PLACEHOLDER_ID
from pocketlens_export.clip import Clip
from pocketlens_export.towers import ImageTower, TextTower

MIN_COSINE = 0.99999  # the bar for float32: a unit embedding turns by at most 0.26 degrees
MAX_ABS = 1e-4  # and none of its values moves by more
MAX_TRIM_ABS = 1e-5  # trimming is claimed to be exact, so only the rounding of float32 may differ
BATCHES = (1, 2, 7)
PSEUDO_TOKENS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two sets of unit embeddings agree: the least cosine of a pair of rows, the largest difference of a value."""

    min_cosine: float
    max_abs: float


def agreement(found: Float32s, expected: Float32s) -> Agreement:
    """Return how unit embeddings agree, both float32 (n, dim)."""
    wide = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(wide[0], axis=1) * np.linalg.norm(wide[1], axis=1)
    return Agreement(float(((wide[0] * wide[1]).sum(axis=1) / norms).min()), float(np.abs(wide[0] - wide[1]).max()))


def worst(agreements: Iterable[Agreement]) -> Agreement:
    """Return the least cosine and the largest difference of several."""
    found = list(agreements)
    return Agreement(min(a.min_cosine for a in found), max(a.max_abs for a in found))


def gate(what: str, measured: Agreement) -> Agreement:
    """Return `measured` when it passes the bar.

    Raises:
        Refused: cosine below 0.99999 or a difference above 1e-4 (NaN included).
    """
    if not (measured.min_cosine >= MIN_COSINE and measured.max_abs <= MAX_ABS):
        raise Refused(
            f"{what}: least cosine {measured.min_cosine:.7f}, max abs {measured.max_abs:.2g}; "
            f"expected cosine >= {MIN_COSINE}, max abs <= {MAX_ABS}; nothing was written"
        )
    return measured


def open_graph(path: Path) -> ort.InferenceSession:
    """Return a CPU session over an ONNX file.

    Raises:
        Refused: onnxruntime cannot load it.
    """
    options = ort.SessionOptions()
    # Spinning threads would fight torch's for the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise Refused(f"onnxruntime {ort.__version__} cannot load the exported {path.name}: {error}") from error


def check_reparameterization(tower: ImageTower, pixels: Uint8s, expected: Float32s) -> Agreement:
    """Return how the re-parameterized torch tower agrees with the one that was trained.

    Raises:
        Refused: it does not pass the bar.
    """
    with torch.no_grad():
        found = tower(torch.from_numpy(pixels)).numpy()
    return gate("re-parameterized image tower against the one that was trained", agreement(found, expected))


def check_image(path: Path, pixels: Uint8s, expected: Float32s) -> Agreement:
    """Return how an image graph agrees with the reference, at batches of 1, 2, 7 and all.

    Args:
        path: the image graph.
        pixels: uint8 (n, side, side, 3).
        expected: reference embeddings, float32 (n, dim).

    Raises:
        Refused: it does not pass the bar.
    """
    session = open_graph(path)
    found = [
        agreement(_run(session, {"pixels": pixels[rows]}), expected[rows]) for rows in _batches(len(pixels), BATCHES)
    ]
    return gate("image graph against torch", worst(found))


def check_features(path: Path, pixels: Uint8s, expected: Float32s) -> Agreement:
    """Return how an image graph's features agree with torch's, each picture's as one row of length 1.

    Args:
        path: the image graph.
        pixels: uint8 (n, side, side, 3).
        expected: the trained tower's features, float32 (n, channels, height, width).

    Raises:
        Refused: they do not pass the bar, or have another shape.
    """
    session = open_graph(path)
    found = []
    for rows in _batches(len(pixels), BATCHES):
        features = session.run(["features"], {"pixels": pixels[rows]})[0]
        if features.shape != expected[rows].shape:
            raise Refused(f"{path.name} gives features of {features.shape}, expected {expected[rows].shape}")
        found.append(agreement(_flat(features), _flat(expected[rows])))
    return gate("features of the image graph against torch", worst(found))


def check_text(path: Path, clip: Clip, tower: TextTower, ids: Int64s, *, pad_id: int) -> Agreement:
    """Return how a text graph agrees with open_clip's encode_text: batches of 1, 2, 7, real lengths, pseudo-tokens.

    Args:
        path: the text graph.
        clip: the reference.
        tower: its text tower.
        ids: int64 (n, context_length), padded.
        pad_id: what they are padded with.

    Raises:
        Refused: it does not pass the bar.
    """
    session, expected = open_graph(path), clip.encode_ids(ids)
    found = [agreement(_run_text(session, tower, ids[rows]), expected[rows]) for rows in _batches(len(ids), BATCHES)]
    if tower.trim:
        for row, wanted in zip(ids, expected, strict=True):
            trimmed = row[np.newaxis, : _real_length(row, pad_id)]
            found.append(agreement(_run_text(session, tower, trimmed), wanted[np.newaxis]))
    for count in PSEUDO_TOKENS:
        found.append(_check_pseudo_tokens(session, clip, tower, _longest(ids, pad_id, count + 2), pad_id, count))
    return gate("text graph against torch", worst(found))


def check_trimming(tower: TextTower, ids: Int64s, *, pad_id: int) -> float:
    """Return how much an embedding changes when its row is cut to its real length: the largest difference of a value.

    Raises:
        Refused: the architecture says that trimming is exact, and it is not.
    """
    nothing = torch.zeros((1, 0, tower.embedding.embedding_dim))
    largest = 0.0
    with torch.no_grad():
        for row in ids:
            padded = torch.from_numpy(row[np.newaxis])
            trimmed = padded[:, : _real_length(row, pad_id)]
            largest = max(largest, float((tower(padded, nothing) - tower(trimmed, nothing)).abs().max()))
    if tower.trim and not largest <= MAX_TRIM_ABS:
        raise Refused(
            f"cutting a text to its real length changes its embedding by {largest:.2g}, expected at most "
            f"{MAX_TRIM_ABS}: this text tower sees padding although its configuration says that it does not"
        )
    return largest


def _longest(ids: Int64s, pad_id: int, least: int) -> Int64s:
    """Return two rows of at least `least` tokens, int64 (2, l)."""
    rows = ids[[_real_length(row, pad_id) >= least for row in ids]][:2]
    if len(rows) < 2:
        raise Refused(f"fewer than two sample texts have {least} tokens, so pseudo-tokens cannot be checked")
    return rows


def _check_pseudo_tokens(
    session: ort.InferenceSession, clip: Clip, tower: TextTower, rows: Int64s, pad_id: int, count: int
) -> Agreement:
    """Compare foreign pseudo-tokens, and the replaced tokens' own rows, with the overwritten reference."""
    random = np.random.default_rng(count)
    inner = [np.arange(1, _real_length(row, pad_id) - 1) for row in rows]  # neither start nor end
    places = np.stack([np.sort(random.permutation(choice)[:count]) for choice in inner])  # (n, p)
    table = tower.embedding.weight.detach().numpy()
    own = table[np.take_along_axis(rows, places, axis=1)]  # (n, p, d)
    foreign = (random.standard_normal(own.shape) * table.std()).astype(np.float32)
    with_places = rows.copy()
    np.put_along_axis(with_places, places, PLACEHOLDER_ID, axis=1)
    found = []
    for pseudo_tokens, expected in (
        (own, clip.encode_ids(rows)),
        (foreign, _encode_overwritten(clip, tower, rows, places, foreign)),
    ):
        embedding = _run(session, {"input_ids": with_places, "pseudo_tokens": pseudo_tokens})
        found.append(agreement(embedding, expected))
    return worst(found)


def _encode_overwritten(clip: Clip, tower: TextTower, ids: Int64s, places: Int64s, rows: Float32s) -> Float32s:
    """Return open_clip's embeddings, float32 (n, dim), with token embeddings at `places` (n, p) replaced by `rows`."""

    def overwrite(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[torch.arange(len(ids))[:, None], torch.from_numpy(places)] = torch.from_numpy(rows)
        return changed

    hook = tower.embedding.register_forward_hook(overwrite)
    try:
        return clip.encode_ids(ids)
    finally:
        hook.remove()


def _flat(features: Float32s) -> Float32s:
    rows = features.reshape(len(features), -1)  # (n, c, h, w) -> (n, c * h * w)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _batches(count: int, sizes: Sequence[int]) -> list[slice]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [*(slice(start, start + size) for start, size in zip(starts, sizes, strict=True)), slice(0, count)]


def _real_length(row: Int64s, pad_id: int) -> int:
    """Return the length of a padded row without the padding at its end."""
    return int(np.flatnonzero(row != pad_id)[-1]) + 1


def _run_text(session: ort.InferenceSession, tower: TextTower, ids: Int64s) -> Float32s:
    nothing = np.zeros((len(ids), 0, tower.embedding.embedding_dim), dtype=np.float32)
    return _run(session, {"input_ids": ids, "pseudo_tokens": nothing})


def _run(session: ort.InferenceSession, feeds: dict[str, Any]) -> Float32s:
    embedding: Float32s = session.run(["embedding"], feeds)[0]
    return embedding
