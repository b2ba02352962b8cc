"""Synthetic vectors with the shape of CLIP embeddings, for measuring codes and indexes without a model.

A picture is a point of a low-rank cloud around a far-off mean (the cone), two coordinates of which are outliers. A text
lies elsewhere (the modality gap): a direction no picture has, a little of the pictures' mean, and content that follows
the pictures' own leading directions. At 512 dimensions and 100,000 pictures the statistics are, within 0.01, those of
CLIP ViT-B/32 (tests/bench/test_clip_shaped.py measures them):

  picture-picture cosine   0.55 +/- 0.10
  text-picture score       0.23 +/- 0.05; top-1 0.39, top-10 0.37, top-100 0.35

Rows are drawn in blocks, each with its own generator: the first rows do not depend on how many are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Float32s

DIM = 512
_BLOCK = 4_096
_RANK = 160  # latent directions; the participation ratio of their variances, about 22, gives the +/- 0.10
_DECAY = 0.73  # the i-th direction's variance is proportional to (i + 3) ** (-2 * _DECAY)
_FLOOR = 0.04  # share of the cloud's variance that is spread over all dimensions
_CONE = 0.55  # squared length of the pictures' mean, which is their mean cosine
_OUTLIERS = {92: 0.50, 133: -0.35}  # coordinates of the mean that dwarf the rest
_TEXT_SCORE = (0.23, 0.030)  # a text's mean score over the pictures: mean and deviation over texts
_TEXT_CONTENT = 0.52  # length of a text's part along the pictures' directions
_TEXT_DECAY = 0.19  # how a text's content follows the variances: their power


@dataclass(frozen=True, slots=True)
class _Shape:
    mean: NDArray[np.float64]  # (dim,)
    directions: NDArray[np.float64]  # (rank, dim), orthonormal, orthogonal to mean and gap
    variances: NDArray[np.float64]  # (rank,), sum 1
    gap: NDArray[np.float64]  # (dim,), unit, orthogonal to the mean


def pictures(rows: int, *, dim: int = DIM, seed: int = 0) -> Float32s:
    """Return picture-like unit vectors, float32 (rows, dim)."""
    shape = _shape(dim)
    out = np.empty((rows, dim), dtype=np.float32)
    for block, start in enumerate(range(0, rows, _BLOCK)):
        rng = np.random.default_rng([seed, 1, block])
        latent = rng.standard_normal((_BLOCK, len(shape.variances))) * np.sqrt(shape.variances * (1 - _FLOOR))
        cloud = latent @ shape.directions + rng.standard_normal((_BLOCK, dim)) * np.sqrt(_FLOOR / dim)
        block_rows = _unit(shape.mean + np.sqrt(1 - _CONE) * _unit(cloud))  # (block, dim)
        out[start : start + _BLOCK] = block_rows[: rows - start]
    return out


def texts(count: int, *, dim: int = DIM, seed: int = 0) -> Float32s:
    """Return text-like unit vectors, float32 (count, dim), in the space of `pictures`."""
    shape = _shape(dim)
    rng = np.random.default_rng([seed, 2])
    weights = shape.variances**_TEXT_DECAY
    latent = rng.standard_normal((count, len(weights))) * (weights / np.linalg.norm(weights))
    content = _TEXT_CONTENT * _unit(latent) @ shape.directions
    length = np.sqrt(_CONE)
    along = rng.normal(*_TEXT_SCORE, size=(count, 1)) / length  # text @ mean / |mean|
    rest = np.sqrt(1 - along**2 - _TEXT_CONTENT**2)
    return np.asarray(along * shape.mean / length + content + rest * shape.gap, dtype=np.float32)


def _shape(dim: int) -> _Shape:
    rng = np.random.default_rng(dim)
    rank = min(_RANK, dim - 2)
    mean = rng.standard_normal(dim)
    mean *= np.sqrt((_CONE - sum(value**2 for value in _OUTLIERS.values())) / (mean @ mean))
    for place, value in _OUTLIERS.items():
        mean[place % dim] = value
    mean *= np.sqrt(_CONE / (mean @ mean))
    basis, _ = np.linalg.qr(np.column_stack([mean, rng.standard_normal((dim, rank + 1))]))
    variances = (np.arange(rank) + 3.0) ** (-2 * _DECAY)
    return _Shape(mean, basis[:, 2:].T, variances / variances.sum(), basis[:, 1])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
