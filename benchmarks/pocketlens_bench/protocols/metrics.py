"""Metrics of one example's ranking. All are shares from 0 to 1; a figure is their mean over examples that have one.

Hits are counted on names of pictures, never on positions, so that a picture that was taken out cannot count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketlens_bench.protocols.task import Example


@dataclass(frozen=True, slots=True)
class Ranking:
    """An answer to an example.

    Attributes:
        top: the best pictures of the pool, at most 50, best first; without a pool the candidates.
        within: the example's candidates, best first; None: the gallery lacks some, and fewer are easier to rank.
    """

    top: tuple[str, ...]
    within: tuple[str, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure: its name, and its value for one example; NaN where it has none."""

    name: str
    of: Callable[[Example, Ranking], float]


def recall_at(k: int, name: str | None = None) -> Metric:
    """Return whether any answer (the target, where the protocol names one) is among the first k."""

    def value(example: Example, ranking: Ranking) -> float:
        wanted = example.answers if example.target is None else {example.target}
        return float(any(picture in wanted for picture in ranking.top[:k]))

    return Metric(name or f"R@{k}", value)


def subset_recall_at(k: int) -> Metric:
    """Return CIRR's: whether the target is among the first k candidates; NaN where the gallery lacks some of them."""

    def value(example: Example, ranking: Ranking) -> float:
        if ranking.within is None:
            return math.nan
        return float(any(picture in example.answers for picture in ranking.within[:k]))

    return Metric(f"Rs@{k}", value)


def average_precision_at(k: int) -> Metric:
    """Return CIRCO's: 1/min(k, answers) * sum over the first k of precision@i where the i-th is an answer."""

    def value(example: Example, ranking: Ranking) -> float:
        hits = [picture in example.answers for picture in ranking.top[:k]]
        return average_precision(hits, min(k, len(example.answers)))

    return Metric(f"mAP@{k}", value)


def average_precision(hits: list[bool], most: int) -> float:
    """Return the sum of precision at every hit over `most`, the hits that there could be."""
    found, total = 0, 0.0
    for place, hit in enumerate(hits, start=1):
        if hit:
            found += 1
            total += found / place
    return total / most if most else 0.0


def unwanted_at(k: int) -> Metric:
    """Return the share of the first k that show what is not wanted."""

    def value(example: Example, ranking: Ranking) -> float:
        return sum(picture in example.unwanted for picture in ranking.top[:k]) / k

    return Metric(f"unwanted@{k}", value)
