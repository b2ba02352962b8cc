"""Three dimensions, three pictures, a few texts: small enough to work out on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pocketlens.compose import METHODS, Composed, Negative, Query, Scores, Text, compose
from tests.runtime.compose.kit import ArrayKit, vocabulary

X, Y, Z = np.eye(3, dtype=np.float32)
ROWS = np.array([[0.6, 0.8, 0], [1, 0, 0], [-0.6, -0.8, 0], [-0.6, 0.8, 0]], dtype=np.float32)
NAMES = vocabulary(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]]), ["ball", "cube", "cone", "tilted"])


def vector(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float32)


def hand_kit(known: Mapping[str, Sequence[float] | np.ndarray], rows: np.ndarray = ROWS) -> ArrayKit:
    return ArrayKit(rows, NAMES, known)


def composed_by(
    name: str,
    kit: ArrayKit,
    *texts: Text,
    image: np.ndarray = X,
    image_weight: float = 1.0,
    negative: Negative | None = None,
    values: Mapping[str, float | str] | None = None,
) -> Composed:
    return compose(Query(image, texts, image_weight), negative, kit, METHODS[name], values)


def scores_of(
    values: Sequence[Sequence[float]] | np.ndarray, means: Sequence[float], deviations: Sequence[float]
) -> Scores:
    return Scores(np.array(values, dtype=np.float32), vector(*means), vector(*deviations), lambda rows: ROWS[rows])


def fused(composed: Composed, scores: Scores) -> np.ndarray:
    assert composed.fuse is not None
    return composed.fuse(scores)
