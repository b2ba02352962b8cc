"""Exact ranking of a gallery part by scores, with an order that equal scores cannot change.

Pictures whose vectors are equal bit for bit are scored once: a matrix product may round equal columns differently, and
would order them by chance. Equal scores follow the pictures' order in the gallery.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketlens._types import Float32s, Int64s


class Pool:
    """Pictures to rank.

    Args:
        names: of the pictures, in the order that equal scores keep.
        vectors: float32 (names, dim).

    Attributes:
        vectors: float32 (u, dim), the distinct ones, in the order of their first picture.
    """

    def __init__(self, names: Sequence[str], vectors: Float32s) -> None:
        self.names = tuple(names)
        self._position = {name: i for i, name in enumerate(self.names)}
        first: dict[bytes, int] = {}
        places = [first.setdefault(vector.tobytes(), len(first)) for vector in vectors]
        self._place = np.asarray(places, dtype=np.int64)  # (names,) into the distinct vectors
        self.vectors = np.zeros((len(first), vectors.shape[1]), dtype=np.float32)
        self.vectors[self._place] = vectors

    def __contains__(self, name: str) -> bool:
        return name in self._position

    def vector(self, name: str) -> Float32s:
        """Return a picture's vector, float32 (dim,)."""
        return np.asarray(self.vectors[self._place[self._position[name]]])

    def best(self, scores: Float32s, count: int, *, excluded: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Return the names of the best pictures, at most `count`, best first, without the excluded ones.

        Args:
            scores: float32 (u,), of the distinct vectors; higher is better.
            count: how many.
            excluded: names that are passed over; they need not be in the pool.
        """
        by_picture = scores[self._place]  # (names,)
        wanted = count + len(excluded)
        if wanted < len(by_picture):
            least = np.partition(by_picture, len(by_picture) - wanted)[len(by_picture) - wanted]
            positions = np.flatnonzero(by_picture >= least)  # more than wanted when scores tie
        else:
            positions = np.arange(len(by_picture))
        ordered = positions[np.argsort(-by_picture[positions], kind="stable")]
        return tuple(name for name in map(self.names.__getitem__, ordered[:wanted]) if name not in excluded)[:count]

    def order(self, scores: Float32s, names: Sequence[str]) -> tuple[str, ...]:
        """Return some of the pool's pictures, best first; see `best`. Raises KeyError for a name it does not have."""
        positions: Int64s = np.asarray(sorted(self._position[name] for name in names), dtype=np.int64)
        ordered = positions[np.argsort(-scores[self._place[positions]], kind="stable")]
        return tuple(self.names[position] for position in ordered)
