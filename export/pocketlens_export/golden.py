"""golden.npz: inputs and what the reference framework makes of them, replayed by `pocketlens verify`.

Arrays only, no objects: text_utf8 uint8 blob and text_offsets int64 (n + 1,); text_ids int64 (n, context_length) by the
reference tokenizer, padded; text_embedding float32 (n, dim); pixels uint8 (m, side, side, 3); image_embedding float32
(m, dim); <tower>_min_cosine and <tower>_max_abs float32, the bars. Keys of a tower that is not there are not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Float32s, Int64s, Uint8s
from pocketlens_export.parity import MAX_ABS, MIN_COSINE


def text_arrays(texts: Sequence[str], ids: Int64s, embedding: Float32s) -> dict[str, Any]:
    """Return golden.npz's arrays of a text tower.

    Args:
        texts: n texts, or none when the model has no tokenizer.
        ids: reference ids, int64 (n, context_length).
        embedding: reference embeddings of `ids`, float32 (n, dim).
    """
    arrays: dict[str, Any] = {"text_ids": ids, "text_embedding": embedding, **_bars("text")}
    if texts:
        encoded = [text.encode() for text in texts]
        arrays["text_utf8"] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        arrays["text_offsets"] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return arrays


def image_arrays(pixels: Uint8s, embedding: Float32s) -> dict[str, Any]:
    """Return golden.npz's arrays of an image tower, of uint8 (m, side, side, 3) and float32 (m, dim)."""
    return {"pixels": pixels, "image_embedding": embedding, **_bars("image")}


def write_golden(path: Path, arrays: dict[str, Any]) -> None:
    """Write golden.npz. The same arrays give the same bytes."""
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _bars(tower: str) -> dict[str, Any]:
    return {f"{tower}_min_cosine": np.float32(MIN_COSINE), f"{tower}_max_abs": np.float32(MAX_ABS)}
