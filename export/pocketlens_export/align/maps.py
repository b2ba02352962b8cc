"""What carries a light model's embeddings into a heavy model's space. In numpy: the oracle of the folded graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Float32s, Int64s

Float64s: TypeAlias = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""Told of a stage: its name, how much is done, and of how much."""

_LEAST_NORM = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Hidden:
    """A layer beside a linear map: relu(x @ inner + inner_bias) @ outer is added to it.

    Attributes:
        inner: float64 (light dim, width).
        inner_bias: float64 (width,).
        outer: float64 (width, heavy dim).
    """

    inner: Float64s
    inner_bias: Float64s
    outer: Float64s


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """x to n(x @ weight + bias), with a hidden layer beside it or none; n brings a row to length 1.

    Attributes:
        weight: float64 (light dim, heavy dim).
        bias: float64 (heavy dim,).
        hidden: of the residual MLP alone.
    """

    weight: Float64s
    bias: Float64s
    hidden: Hidden | None = None

    def apply(self, vectors: Float32s | Float64s) -> Float64s:
        """Return where unit vectors (n, light dim) lie in the heavy space, float64 (n, heavy dim), of length 1."""
        wide = vectors.astype(np.float64)
        mapped = wide @ self.weight + self.bias
        if self.hidden is not None:
            active = np.maximum(wide @ self.hidden.inner + self.hidden.inner_bias, 0)  # (n, width)
            mapped += active @ self.hidden.outer
        return to_units(mapped)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """What both models make of the same n things: unit vectors (n, light dim) and (n, heavy dim)."""

    light: Float64s
    heavy: Float64s

    @classmethod
    def of(cls, light: Float32s, heavy: Float32s, rows: Int64s) -> Pairs:
        """Return the pairs of some rows of float32 (n, light dim) and (n, heavy dim)."""
        return cls(light[rows].astype(np.float64), heavy[rows].astype(np.float64))

    def __len__(self) -> int:
        return len(self.light)


@dataclass(frozen=True, slots=True)
class Tried:
    """One of the maps that were tried: what it was, and its mean cosine on the validation pairs."""

    name: str
    cosine: float


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A map with how it was chosen.

    Attributes:
        map: the one with the highest mean cosine on the validation pairs.
        chosen: its name among those tried.
        tried: all of them, in order.
    """

    map: Map
    chosen: str
    tried: tuple[Tried, ...]


def to_units(vectors: Float64s) -> Float64s:
    """Return rows at length 1, float64 (n, dim); a row of zeros stays what it is."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _LEAST_NORM))


def mean_cosine(map: Map, pairs: Pairs) -> float:
    """Return the mean cosine of mapped light vectors to their heavy ones."""
    return float((map.apply(pairs.light) * pairs.heavy).sum(axis=1).mean())


def choose(candidates: Sequence[tuple[str, Map]], validation: Pairs) -> Fitted:
    """Return the candidate with the highest mean cosine on the validation pairs, the first of equals."""
    tried = [Tried(name, mean_cosine(map, validation)) for name, map in candidates]
    best = int(np.argmax([each.cosine for each in tried]))
    return Fitted(candidates[best][1], tried[best].name, tuple(tried))
