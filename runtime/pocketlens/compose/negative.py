"""What is not wanted: a modifier of every method, on the vectors or on the scores.

On the vectors, what is not wanted is subtracted from each of them (the embedding-space analogue of classifier-free
guidance, as in CompoDiff, arXiv 2303.11916):

    q' = |q| n(n(q) - strength * sum w_i (n_i - mu_t)),   mu_t the mean of the model's vocabulary, 0 without one

mu_t is what all texts share: subtracting it too would push away from everything that can be said. For a picture n_i the
difference of the two means is left in, which is nearly the same for all rows and so hardly moves their order.

On the scores, a row loses only where it is more like the unwanted than most rows are:

    s' = s - strength * sigma_s * sum w_i max(0, z_i - floor)

with z_i the standardised score of n_i and sigma_s the deviation of s, both over the whole gallery in closed form. Rows
that have nothing of the unwanted keep their scores.

A weight of 1 is the whole strength; weights add up and are not shared out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose.method import Composed, Fuse, Kit, Parameter, Scores, Values
from pocketlens.compose.scores import standardise
from pocketlens.compose.values import choice, number
from pocketlens.compose.weights import length, unit
from pocketlens.errors import BadQuery, MissingPart

# Chosen on EmojiCIR's validation split (models/lens-base/recipe/composed_tried.json): of what more than halves the
# unwanted with all six methods tried there, it costs the wanted least. At the vector's level, which searches a large
# gallery faster, 0.7 does nearly the same for sum and pdv, and costs product two fifths of the wanted.
STRENGTH = 1.0
LEVEL = "score"
FLOOR = 0.5

PARAMETERS = {
    "negative_strength": Parameter(STRENGTH, "how strongly the unwanted is avoided; 0 ignores it", most=2.0),
    "negative_level": Parameter(LEVEL, "where it is avoided: the vector or the score", choices=("vector", "score")),
    "negative_floor": Parameter(FLOOR, "deviations above the mean from which a score counts as unwanted", most=5.0),
}


@dataclass(frozen=True, slots=True)
class Negative:
    """What is not wanted, texts and pictures alike.

    Attributes:
        vectors: unit vectors, float32 (m, dim).
        weights: float32 (m,), positive.
    """

    vectors: Float32s
    weights: Float32s

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weights).all() and (self.weights > 0).all()):
            raise BadQuery(f"weights of negatives are {self.weights.tolist()}, expected positive numbers")
        if not np.isfinite(self.vectors).all():
            raise BadQuery("a vector of a negative holds NaN or infinity, expected finite numbers")


def apply_negative(composed: Composed, negative: Negative, kit: Kit, values: Values) -> Composed:
    """Return a composed query that avoids what is not wanted.

    Raises:
        BadQuery: at the vector level, nothing is left of the query.
    """
    strength = number(values, "negative_strength")
    if strength == 0.0 or len(negative.weights) == 0:
        return composed
    if choice(values, "negative_level") == "vector":
        return replace(composed, vectors=_subtracted(composed.vectors, negative, kit, strength))
    return Composed(
        vectors=np.concatenate([composed.vectors, negative.vectors]).astype(np.float32),  # (p + m, dim)
        fuse=_lowered(composed, negative.weights, strength, number(values, "negative_floor")),
        names=composed.names,
        negatives=len(negative.weights),
    )


def _subtracted(vectors: Float32s, negative: Negative, kit: Kit, strength: float) -> Float32s:
    try:
        shared = kit.concepts.mean
    except MissingPart:
        shared = np.zeros(vectors.shape[1], dtype=np.float32)
    unwanted = strength * (negative.weights @ (negative.vectors - shared))
    complaint = f"what is not wanted cancels the query out at negative_strength {strength:g}"
    lengths = [length(vector, "the query has a zero vector") for vector in vectors]
    left = [norm * unit(vector / norm - unwanted, complaint) for vector, norm in zip(vectors, lengths, strict=True)]
    return np.asarray(left, dtype=np.float32)


def _lowered(composed: Composed, weights: Float32s, strength: float, floor: float) -> Fuse:
    count = len(composed.vectors)

    def fuse(scores: Scores) -> Float32s:
        excess = np.maximum(standardise(scores)[count:] - floor, 0.0)  # (m, n)
        loss = strength * (weights @ excess)  # (n,)
        deviations = scores.deviations[:count]
        lowered = scores.values[:count] - deviations[:, np.newaxis] * loss
        if composed.fuse is None:
            return np.asarray(lowered[0], dtype=np.float32)
        return composed.fuse(Scores(lowered, scores.means[:count], deviations, scores.rows))

    return fuse
