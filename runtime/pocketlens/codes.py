"""int8 codes of unit vectors: a fixed orthogonal rotation, a scale per vector, rounding.

USearch's own cast, trunc(127 * x), uses about four of 127 levels in 512 dimensions and keeps 0.77 of the exact top
10 on CLIP-shaped vectors; rotating first spreads the outlier dimensions, and scaling each vector to its own maximum
uses all levels (figures: benchmarks/results/codes.json). The scale is not stored: cosine ignores it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pocketlens._types import Float16s, Float32s, Int8s
from pocketlens.errors import BadQuery

LEAST_DEVIATION = 1e-3  # of scores over a gallery: below it, among like pictures, there is only float16's rounding
LEAST_NORM = 1e-6  # a shorter vector has no direction that float32 can tell
_LEVELS = 127.0
_BLOCK_ROWS = 4_096


def make_rotation(dim: int, *, seed: int = 0) -> Float32s:
    """Return a random orthogonal matrix, float32 (dim, dim), uniform over rotations (Mezzadri, math-ph/0609050, §5).

    A gallery stores the matrix itself: a seed would tie it to one LAPACK.
    """
    normal = np.random.default_rng(seed).standard_normal((dim, dim))
    q, r = np.linalg.qr(normal)
    return (q * np.sign(np.diag(r))).astype(np.float32)


def read_vector(vector: Any, dim: int) -> Float32s:
    """Return a query vector that a caller gives as float32 (dim,).

    Args:
        vector: dim finite numbers, whatever their length together from 1e-6 on.
        dim: of the space.

    Raises:
        BadQuery: it is no such vector.
    """
    try:
        given = np.asarray(vector)
    except ValueError as error:  # lists of different lengths
        raise BadQuery(f"a query vector must be {dim} numbers: {error}") from error
    if given.dtype.kind not in "fiu":
        raise BadQuery(f"a query vector has elements of type {given.dtype}, expected {dim} numbers")
    if given.shape != (dim,):
        raise BadQuery(f"a query vector has shape {given.shape}, expected ({dim},)")
    with np.errstate(over="ignore"):  # a number beyond float32's range becomes infinite, which is refused
        read = given.astype(np.float32)
    if not np.isfinite(read).all():
        raise BadQuery("a query vector holds NaN, infinity or a number that float32 cannot hold")
    norm = float(np.linalg.norm(read.astype(np.float64)))
    if norm < LEAST_NORM:
        raise BadQuery(f"a query vector has the length {norm:g}, expected at least {LEAST_NORM:g}")
    return read


def to_codes(vectors: Float32s, rotation: Float32s) -> Int8s:
    """Return int8 (n, dim) codes in -127..127 of float32 (n, dim) vectors; only their direction is kept.

    Raises:
        BadQuery: a vector has the wrong width, is not finite, or is zero and so has no direction.
    """
    if vectors.ndim != 2 or vectors.shape[1] != len(rotation):
        raise BadQuery(f"vectors have shape {vectors.shape}, expected (n, {len(rotation)})")
    rotated = _within_one(vectors) @ rotation
    largest = np.abs(rotated).max(axis=1, keepdims=True)
    return np.asarray(np.rint(rotated * (_LEVELS / largest)), dtype=np.int8)


def from_codes(codes: Int8s, rotation: Float32s) -> Float32s:
    """Return unit vectors, float32 (n, dim), in the unrotated space, of int8 (n, dim) codes other than all zeros."""
    vectors = codes.astype(np.float32) @ rotation.T
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def greatest_error(vectors: Float32s | Float16s, codes: Int8s, rotation: Float32s) -> float:
    """Return the greatest distance of a vector, rotated, from the direction of its code.

    By it a row's score and its code's differ at most, for a query whose own code is exact.

    Args:
        vectors: (n, dim), of length 1 but for float16's rounding.
        codes: int8 (n, dim), theirs.
        rotation: float32 (dim, dim).
    """
    greatest = 0.0
    for start in range(0, len(vectors), _BLOCK_ROWS):
        rotated = vectors[start : start + _BLOCK_ROWS].astype(np.float32) @ rotation
        errors = np.linalg.norm(rotated - directions(codes[start : start + _BLOCK_ROWS]), axis=1)
        greatest = max(greatest, float(errors.max()))
    return greatest


def directions(codes: Int8s) -> Float32s:
    """Return int8 (n, dim) codes at length 1, float32."""
    values = codes.astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=np.float32)


def to_units(vectors: Float32s) -> Float32s:
    """Return float32 (n, dim) vectors at length 1.

    Raises:
        BadQuery: a vector is not finite, or is zero and so has no direction.
    """
    scaled = _within_one(vectors)
    return np.asarray(scaled / np.linalg.norm(scaled, axis=1, keepdims=True), dtype=np.float32)


def _within_one(vectors: Float32s) -> Float32s:
    """Return vectors whose largest component is 1 or -1: squares of tiny and huge ones would leave float32's range."""
    if not np.isfinite(vectors).all():
        raise BadQuery(f"vectors hold NaN or infinity in row {int(np.argmin(np.isfinite(vectors).all(axis=1)))}")
    largest = np.abs(vectors).max(axis=1, keepdims=True)  # (n, 1)
    if len(vectors) and largest.min() == 0:
        raise BadQuery(f"vectors hold a zero vector in row {int(np.argmin(largest))}, which has no direction")
    return np.asarray(vectors / largest, dtype=np.float32)
