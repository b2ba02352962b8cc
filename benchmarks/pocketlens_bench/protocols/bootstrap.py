"""Percentile intervals by the cluster bootstrap: groups of examples are drawn with replacement, not single ones.

Queries that share a concept or a picture succeed and fail together; drawing them one by one would make intervals too
narrow. See Efron and Tibshirani, An Introduction to the Bootstrap, §13.3, for the percentile interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pocketlens.errors import BadQuery

RESAMPLES = 1_000
_COVERAGE = 0.95


class Bootstrap:
    """Draws groups once, so that all methods are judged on the same resamples.

    Args:
        groups: the group of every example.
        families: the family of every example when a mean of families is estimated, each then resampled by itself; None
            for the mean over examples.
        seed: of the draws.
    """

    def __init__(self, groups: Sequence[str], *, families: Sequence[str] | None = None, seed: int = 0) -> None:
        if not groups:
            raise BadQuery("a bootstrap needs at least one example, found none")
        group_of, family_of = np.asarray(groups), np.asarray([""] * len(groups) if families is None else families)
        generator = np.random.default_rng(seed)
        self._parts = []
        for family in np.unique(family_of):
            rows = np.flatnonzero(family_of == family)
            members = np.unique(group_of[rows], return_inverse=True)[1]
            self._parts.append((rows, members, _draws(int(members.max()) + 1, generator)))

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean, or the mean of families' means, float64 (m,), of values (examples, m)."""
        return np.asarray(np.mean([values[rows].mean(axis=0) for rows, _, _ in self._parts], axis=0))

    def means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean in every resample, float64 (RESAMPLES, m), of values (examples, m)."""
        of_parts = [_resampled(values[rows], members, draws) for rows, members, draws in self._parts]
        return np.asarray(np.mean(of_parts, axis=0))

    def intervals(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the ends of the 95 % interval, float64 (2, m), of the means of values (examples, m)."""
        tail = (1 - _COVERAGE) / 2
        return np.asarray(np.quantile(self.means(values), [tail, 1 - tail], axis=0))


def _draws(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return how often each of `count` groups is drawn, float64 (RESAMPLES, count): a matrix product then sums."""
    drawn = generator.integers(count, size=(RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, np.newaxis]
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(np.float64)


def _resampled(
    values: NDArray[np.float64], members: NDArray[np.int64], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    sums = np.zeros((draws.shape[1], values.shape[1]))
    np.add.at(sums, members, values)  # (groups, m)
    sizes = np.bincount(members, minlength=draws.shape[1]).astype(np.float64)
    return np.asarray((draws @ sums) / (draws @ sizes)[:, np.newaxis])
