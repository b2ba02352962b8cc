"""Scores against what is usual in the gallery. Statistics come in closed form, never from the rows at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Float32s
from pocketlens.codes import LEAST_DEVIATION
from pocketlens.compose.method import Scores


def centre(scores: Scores) -> Float32s:
    """Return q·(g - mu), float32 (p, n): scores less their means."""
    return scores.values - scores.means[:, np.newaxis]


def standardise(scores: Scores) -> Float32s:
    """Return scores in deviations from their means, float32 (p, n); 0 where only rounding tells a vector's apart."""
    deviations = scores.deviations[:, np.newaxis]
    steady = deviations < LEAST_DEVIATION
    return np.where(steady, np.float32(0), centre(scores) / np.where(steady, np.float32(1), deviations))


def upper_tail(z: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return 1 - Phi(z), the share of a normal distribution above z, float64, to 2e-7 of itself at any z.

    Chebyshev fit of erfc: Press et al., Numerical Recipes, 2nd ed., §6.2. Phi itself would round to 1 from z = 5.4 on.
    """
    x = np.abs(z.astype(np.float64)) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.5 * x)
    power = np.polynomial.polynomial.polyval(t, _ERFC) - x * x
    tail = 0.5 * t * np.exp(power)
    return np.asarray(np.where(z >= 0, tail, 1.0 - tail), dtype=np.float64)


_ERFC = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)
