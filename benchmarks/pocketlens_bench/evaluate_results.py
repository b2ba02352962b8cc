"""From rankings to figures: means in per cent with intervals, for the whole and by family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketlens_bench.evaluate_task import Gaps, Run
from pocketlens_bench.protocols.bootstrap import Bootstrap
from pocketlens_bench.protocols.metrics import Metric
from pocketlens_bench.protocols.task import Example, Task


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric in per cent, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A run's figures.

    Attributes:
        run: whose.
        whole: by metric; one that no example has is left out.
        families: by family, then by metric.
        sizes: examples of each family.
        strata: by stratum, then by metric; a mean over examples.
        stratum_sizes: examples of each stratum.
    """

    run: Run
    whole: Mapping[str, Figure]
    families: Mapping[str, Mapping[str, Figure]]
    sizes: Mapping[str, int]
    strata: Mapping[str, Mapping[str, Figure]]
    stratum_sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Results:
    """What an evaluation found.

    Attributes:
        task: what was answered.
        answered: how many of its examples were answered.
        gaps: what could not be.
        summaries: of the examples without a negative part, by method.
        negative: of those with one: every method at every level.
        skipped: why methods were left out, by name.
    """

    task: Task
    answered: int
    gaps: Gaps
    summaries: tuple[Summary, ...]
    negative: tuple[Summary, ...]
    skipped: Mapping[str, Sequence[str]]

    @property
    def headline(self) -> str:
        """The metric that counts most."""
        return self.task.metrics[0].name

    @property
    def families(self) -> tuple[str, ...]:
        """The families of the examples without a negative part, in the task's order."""
        return tuple(dict.fromkeys(family for summary in self.summaries for family in summary.sizes))

    @property
    def strata(self) -> tuple[str, ...]:
        """The strata of the examples without a negative part, sorted."""
        return tuple(sorted({stratum for summary in self.summaries for stratum in summary.strata}))


class Judge:
    """Turns runs over the same examples into figures; all runs see the same resamples.

    Args:
        metrics: what is worked out.
        by_family: whether a figure of the whole is the mean over families.
    """

    def __init__(self, metrics: Sequence[Metric], *, by_family: bool) -> None:
        self._metrics = metrics
        self._by_family = by_family
        self._draws: dict[tuple[str, ...], Bootstrap] = {}

    def summarise(self, run: Run) -> Summary:
        """Return a run's figures."""
        values = np.array(
            [
                [metric.of(example, ranking) for metric in self._metrics]
                for example, ranking in zip(run.examples, run.rankings, strict=True)
            ]
        )  # (examples, metrics)
        families = self._parts(values, run.examples, lambda example: example.families)
        strata = self._parts(
            values, run.examples, lambda example: () if example.stratum is None else (example.stratum,)
        )
        weighed = [example.families[0] for example in run.examples] if self._by_family else None
        whole = self._figures(values, run.examples, weighed)
        return Summary(run, whole, *families, *strata)

    def _parts(
        self, values: NDArray[np.float64], examples: Sequence[Example], names: Callable[[Example], Sequence[str]]
    ) -> tuple[dict[str, dict[str, Figure]], dict[str, int]]:
        """Return figures and size of each part of the examples; an example is in those that `names` gives."""
        rows: dict[str, list[int]] = {}
        for row, example in enumerate(examples):
            for name in names(example):
                rows.setdefault(name, []).append(row)
        figures = {name: self._figures(values[of], [examples[row] for row in of], None) for name, of in rows.items()}
        return figures, {name: len(of) for name, of in rows.items()}

    def _figures(
        self, values: NDArray[np.float64], examples: Sequence[Example], families: Sequence[str] | None
    ) -> dict[str, Figure]:
        """Return the figures of each metric over the examples that have one; without any the metric is left out."""
        columns: dict[bytes, list[int]] = {}  # metrics by the examples that have them
        has_value = ~np.isnan(values)  # (examples, metrics)
        for column in range(len(self._metrics)):
            columns.setdefault(has_value[:, column].tobytes(), []).append(column)
        figures: dict[str, Figure] = {}
        for some in columns.values():
            rows: list[int] = np.flatnonzero(has_value[:, some[0]]).tolist()
            if rows:
                draws = self._draws_of(
                    [examples[row] for row in rows], None if families is None else [families[row] for row in rows]
                )
                defined = values[rows][:, some]
                estimates, (lows, highs) = draws.mean(defined), draws.intervals(defined)
                for column, *numbers in zip(some, estimates, lows, highs, strict=True):
                    figures[self._metrics[column].name] = Figure(*(100.0 * float(number) for number in numbers))
        return figures

    def _draws_of(self, examples: Sequence[Example], families: Sequence[str] | None) -> Bootstrap:
        key = tuple(example.id for example in examples)
        if key not in self._draws:
            self._draws[key] = Bootstrap([example.group for example in examples], families=families)
        return self._draws[key]
