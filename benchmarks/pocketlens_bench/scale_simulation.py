"""A simulation of an indexing run over many machines, event by event, from throughputs that were measured on one.

Workers take groups of shards as Ray hands them out. A group takes as long as its pictures at the measured rate, more or
less; a picture that hangs holds up one of a worker's decoders twice for the deadline; a machine that fails loses its
group, which goes back to the queue, and comes back later. One process assembles the gallery in the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pocketlens_bench.measure import Row, significant


@dataclass(frozen=True, slots=True)
class Measured:
    """What one machine of two cores did.

    Attributes:
        per_second: pictures that it indexes.
        assembled_per_second: pictures that one process takes over from shards; None where that is not known.
        bytes_each: by what is written, for one picture.
    """

    per_second: float
    assembled_per_second: float | None
    bytes_each: dict[str, float]


@dataclass(frozen=True, slots=True)
class Assumed:
    """What was not measured.

    Attributes:
        group: pictures that a worker is handed.
        spread: standard deviation of the logarithm of a group's time.
        hanging: share of pictures that hang.
        deadline_s: how long one may take, each of the two times.
        failures_each_hours: hours between failures of one machine.
        back_s: seconds until a failed machine is back.
        start_s: seconds until a worker takes its first group.
    """

    group: int = 8 * 1_024
    spread: float = 0.2
    hanging: float = 1e-6
    deadline_s: float = 30.0
    failures_each_hours: float = 500.0
    back_s: float = 600.0
    start_s: float = 60.0


def simulate(pictures: int, workers: int, measured: Measured, assumed: Assumed, *, seed: int = 0) -> tuple[float, int]:
    """Return the hours until all shards stand, and how many groups were made twice."""
    rng = np.random.default_rng(seed)
    left, repeated = -(-pictures // assumed.group), 0
    free = [(assumed.start_s, worker) for worker in range(workers)]
    fails = rng.exponential(3600 * assumed.failures_each_hours, workers)
    end = 0.0
    while left:
        now, worker = heapq.heappop(free)
        took = assumed.group / measured.per_second * np.exp(rng.normal(0, assumed.spread) - assumed.spread**2 / 2)
        took += 2 * assumed.deadline_s * rng.poisson(assumed.hanging * assumed.group) / 2  # one of two decoders
        if now + took > fails[worker]:
            back = max(fails[worker], now) + assumed.back_s
            fails[worker] = back + rng.exponential(3600 * assumed.failures_each_hours)
            heapq.heappush(free, (back, worker))
            repeated += 1
            continue
        left -= 1
        end = max(end, now + took)
        heapq.heappush(free, (now + took, worker))
    return end / 3600, repeated


def sizing(pictures: int, fleets: Sequence[int], measured: Measured, assumed: Assumed) -> list[Row]:
    """Return how long, how much and how well used for each number of machines of two cores."""
    rows: list[Row] = []
    rate = measured.assembled_per_second
    assembling = None if rate is None else significant(pictures / rate / 3600, 3)
    for workers in fleets:
        hours, repeated = simulate(pictures, workers, measured, assumed)
        ideal = pictures / measured.per_second / workers / 3600
        rows.append(
            {
                "machines of 2 cores": workers,
                "hours to shards": significant(hours, 3),
                "core-hours": significant(2 * workers * hours, 3),
                "of what is ideal": significant(ideal / hours, 3),
                "groups made twice": repeated,
                "hours to assemble": assembling,
            }
        )
    return rows
