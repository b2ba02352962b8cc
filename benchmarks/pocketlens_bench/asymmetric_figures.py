"""Exact answers to queries, and their figures: in per cent, with intervals, and as shares of the heavy model's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Float32s, Int64s
from pocketlens_bench.evaluate_results import Figure
from pocketlens_bench.protocols.bootstrap import Bootstrap
from pocketlens_bench.protocols.metrics import Metric, Ranking
from pocketlens_bench.protocols.ranking import Pool
from pocketlens_bench.protocols.task import Example

WHOLE = "all"
DEPTH = 10  # of a ranking; no metric looks further
_TAILS = (0.025, 0.975)
_BLOCK_SCORES = 1 << 22  # scores held at once: 16 MB


@dataclass(frozen=True, slots=True)
class PartFigures:
    """What was found for some of the queries.

    Attributes:
        queries: how many.
        figures: by metric, in per cent.
        shares: of the base's figures, by metric, in per cent; without those that are not known, as the base finds
            nothing in some resample.
    """

    queries: int
    figures: Mapping[str, Figure]
    shares: Mapping[str, Figure]


class Scorer:
    """Turns values of the same examples into figures; whatever is compared sees the same resamples.

    Args:
        examples: whose values; at least one.
        metrics: what the values' columns are.
        parts: in which parts, beside the whole, an example counts.
    """

    def __init__(
        self, examples: Sequence[Example], metrics: Sequence[Metric], parts: Callable[[Example], Sequence[str]]
    ) -> None:
        self._examples = examples
        self._metrics = metrics
        rows: dict[str, list[int]] = defaultdict(list)
        for row, example in enumerate(examples):
            for part in (WHOLE, *parts(example)):
                rows[part].append(row)
        names = [WHOLE, *sorted(rows.keys() - {WHOLE})]
        self._rows: dict[str, Int64s] = {name: np.array(rows[name], dtype=np.int64) for name in names}
        self._draws = {name: Bootstrap([examples[row].group for row in some]) for name, some in self._rows.items()}

    def values(self, rankings: Sequence[Ranking]) -> NDArray[np.float64]:
        """Return every metric of every example, float64 (examples, metrics)."""
        pairs = zip(self._examples, rankings, strict=True)
        return np.array([[metric.of(*pair) for metric in self._metrics] for pair in pairs])

    def figures(self, values: NDArray[np.float64], base: NDArray[np.float64] | None = None) -> dict[str, PartFigures]:
        """Return figures by part, the whole first.

        Args:
            values: float64 (examples, metrics).
            base: of the same shape: what shares are of. Both sides of a share are of the same resample.
        """
        return {name: self._part(name, values, base) for name in self._rows}

    def _part(self, name: str, values: NDArray[np.float64], base: NDArray[np.float64] | None) -> PartFigures:
        rows, draws = self._rows[name], self._draws[name]
        means, resampled = draws.mean(values[rows]), draws.means(values[rows])  # (metrics,), (resamples, metrics)
        shares: dict[str, Figure] = {}
        if base is not None:
            of, of_resampled = draws.mean(base[rows]), draws.means(base[rows])
            for column, metric in enumerate(self._metrics):
                if (of_resampled[:, column] > 0).all() and of[column] > 0:
                    spread = resampled[:, column] / of_resampled[:, column]
                    shares[metric.name] = _figure(means[column] / of[column], spread)
        figures = {m.name: _figure(means[column], resampled[:, column]) for column, m in enumerate(self._metrics)}
        return PartFigures(len(rows), figures, shares)


def answer(
    examples: Sequence[Example], queries: Float32s, pool: Pool, *, progress: Callable[[int], None]
) -> list[Ranking]:
    """Return the best pictures for each example, by exact inner products.

    Args:
        examples: what was asked; their `excluded` are passed over.
        queries: unit vectors, float32 (examples, dim).
        pool: the gallery.
        progress: called with the number of examples that are done.
    """
    rankings: list[Ranking] = []
    step = max(1, _BLOCK_SCORES // len(pool.vectors))
    for start in range(0, len(examples), step):
        scores = queries[start : start + step] @ pool.vectors.T  # (block, distinct vectors)
        for example, row in zip(examples[start : start + step], scores, strict=True):
            rankings.append(Ranking(pool.best(row, DEPTH, excluded=example.excluded)))
        progress(len(rankings))
    return rankings


def _figure(value: float, resampled: NDArray[np.float64]) -> Figure:
    low, high = np.quantile(resampled, _TAILS)
    return Figure(100.0 * float(value), 100.0 * float(low), 100.0 * float(high))
