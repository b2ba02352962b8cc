"""A model's vocabulary: names and the codes of their texts, in concepts.npz beside the towers."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.errors import FormatError
from pocketlens.files import read_arrays

_REMEMBERED = 50_000  # vectors whose nearest names are kept; about 20 megabytes


@dataclass(frozen=True, slots=True)
class Concepts:
    """Names with their text vectors.

    Attributes:
        names: what a picture may be taken for.
        vectors: float32 (names, dim), unit vectors of the bare names.
        mean: float32 (dim,), the mean of `vectors`.
        subspace: float32 (k, dim), orthonormal rows: the directions in which names differ more than ways to draw do.
    """

    names: tuple[str, ...]
    vectors: Float32s
    mean: Float32s
    subspace: Float32s
    _nearest: dict[tuple[int, bytes], tuple[Int64s, Float32s]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def nearest(self, vectors: Float32s, count: int) -> tuple[Int64s, Float32s]:
        """Return the names nearest to each vector, best first: positions int64 (n, count) and inner products.

        What was found for a vector is remembered: the same rows of a gallery come up again and again, and comparing one
        with thousands of names costs as much as comparing a query with as many rows.

        Args:
            vectors: float32 (n, dim).
            count: from 1 on; at most all names come back.
        """
        count = min(count, len(self.names))
        keys = [(count, hashlib.blake2b(vector.tobytes(), digest_size=16).digest()) for vector in vectors]
        found = {key: known for key in keys if (known := self._nearest.get(key)) is not None}
        new = {key: place for place, key in enumerate(keys) if key not in found}
        if new:
            found |= dict(zip(new, _best(vectors[list(new.values())] @ self.vectors.T, count), strict=True))
            if len(self._nearest) + len(new) > _REMEMBERED:
                self._nearest.clear()
            self._nearest.update({key: found[key] for key in new})
        return np.stack([found[key][0] for key in keys]), np.stack([found[key][1] for key in keys])


def _best(products: Float32s, count: int) -> list[tuple[Int64s, Float32s]]:
    """Return places and values of the `count` highest of each row of float32 (n, names), which is overwritten."""
    rows = np.arange(len(products))
    places = np.empty((len(products), count), dtype=np.int64)
    values = np.empty((len(products), count), dtype=np.float32)
    for rank in range(count):  # for a few of thousands it is faster than a partial sort
        places[:, rank] = products.argmax(axis=1)
        values[:, rank] = products[rows, places[:, rank]]
        products[rows, places[:, rank]] = -np.inf
    return list(zip(places, values, strict=True))


def read_concepts(path: Path, dim: int) -> Concepts:
    """Return the vocabulary in an .npz file whose hash the caller has checked.

    It holds names_utf8 uint8 (bytes,), offsets int64 (names + 1,), codes int8 (names, dim), scales float32 (names,)
    with vector = scale * code, and subspace float32 (k, dim).

    Raises:
        FormatError: an array is missing or has another type, shape or value.
    """
    arrays = read_arrays(path, ["names_utf8", "offsets", "codes", "scales", "subspace"])
    offsets, codes, scales, subspace = (arrays[name] for name in ("offsets", "codes", "scales", "subspace"))
    count = codes.shape[0] if codes.ndim else 0
    last = offsets.flat[-1] if offsets.dtype == "int64" and offsets.size else 0
    for name, kind, shape in (
        ("names_utf8", "uint8", (int(last),)),
        ("offsets", "int64", (count + 1,)),
        ("codes", "int8", (count, dim)),
        ("scales", "float32", (count,)),
        ("subspace", "float32", (*subspace.shape[:1], dim)),
    ):
        if arrays[name].dtype != kind or arrays[name].shape != shape:
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            raise FormatError(f"{path}: {name} is {found}, expected {kind} {shape}")
    finite = np.isfinite(scales).all() and np.isfinite(subspace).all()
    if count == 0 or offsets[0] != 0 or (np.diff(offsets) <= 0).any() or not finite:
        raise FormatError(f"{path}: expected at least one name, rising offsets from 0 and finite scales and subspace")
    blob = arrays["names_utf8"].tobytes()
    try:
        names = tuple(blob[start:stop].decode() for start, stop in itertools.pairwise(offsets))
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: a name is not UTF-8: {error}") from error
    vectors = codes.astype(np.float32) * scales[:, np.newaxis]
    return Concepts(names, vectors, vectors.mean(axis=0), subspace)
