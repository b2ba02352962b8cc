"""The search for each node's precision: the fastest plan that passes the gate, int8 only where it pays.

Whole-tower plans come first. When the fastest of them misses the gate, its nodes are ranked by the error that each
makes alone, and the worst are put back, products to 8-bit weights and convolutions to float32, as few as will do. Then
nodes that int8 does not make faster go back too, if that makes the whole tower faster.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pocketlens_quantize.gate import Gate
from pocketlens_quantize.plan import STORAGE, Plan, Tower
from pocketlens_quantize.session import Feed, by_weighted_node, node_times
from pocketlens_quantize.trial import Trial, Trials

PAYS = 0.97  # of float32's latency: less of a gain is within the noise of a shared machine
_STEERING_SHARE = 0.9  # of the allowed losses: one standard error of agreement on 200 inputs
_CLOSE = 1.03  # plans this close in latency are told apart by their cosine
_RACERS = 6
_RANKING_SHARE = 0.6  # of the time that is left; the rest is for trying
_ALIKE = 1.08  # whole-tower static plans differ in ranges alone; so much is noise


@dataclass(frozen=True, slots=True)
class Found:
    """What a search ended with.

    Attributes:
        best: the chosen trial, or None when none passed.
        trials: all of them, in order.
        finished: whether time sufficed for everything that was to be tried.
    """

    best: Trial | None
    trials: tuple[Trial, ...]
    finished: bool


class Search:
    """One tower's search.

    Args:
        tower: the tower.
        trials: tries and remembers.
        gate: what must be reached.
        deadline: `time.monotonic()` at which to be content with what was found.
        progress: called with a line for each trial.
    """

    def __init__(
        self, tower: Tower, trials: Trials, gate: Gate, *, deadline: float, progress: Callable[[str], None]
    ) -> None:
        self._tower = tower
        self._trials = trials
        self._gate = gate.tightened(_STEERING_SHARE)
        self._deadline = deadline
        self._progress = progress
        self._start = time.monotonic()
        self._done: list[Trial] = []
        self._finished = True

    def run(self, feeds: Sequence[Feed]) -> Found:
        """Return the best plan found. `feeds` are the inputs on which node times are taken."""
        for plan in self._tower.plans():
            self._try(plan)
        base = self._fastest_static()
        # Slower as a whole: perhaps not the nodes that int8 makes faster.
        if base is not None and self._tower.target.timed_here and _speed(base) > PAYS:
            base = self._drop_what_does_not_pay(base, feeds)
        if (base is not None and _speed(base) <= PAYS) or not self._tower.target.timed_here:
            self._refine(base, feeds)
        return Found(self._choose(), tuple(self._done), self._finished)

    def _refine(self, base: Trial | None, feeds: Sequence[Feed]) -> None:
        if base is not None and not self.passes(base):
            base = self._put_back(base)
        if base is not None and self.passes(base) and self._tower.target.timed_here:
            self._drop_what_does_not_pay(base, feeds)

    def passes(self, trial: Trial) -> bool:
        """Whether a trial reaches the gate, with something to spare."""
        return trial.failed is None and not self._missed(trial)

    def _missed(self, trial: Trial) -> list[str]:
        return self._gate.misses(
            cosine=trial.cosine_mean, agreement=trial.agreement_at_10, same_in_batch=trial.same_in_batch, lost=None
        )

    def _try(self, plan: Plan) -> Trial | None:
        if time.monotonic() > self._deadline:
            self._finished = False
            return None
        trial = self._trials.run(plan)
        self._done.append(trial)
        missed = [] if trial.failed else self._missed(trial)
        self._progress(f"{self._clock()} {describe(trial)}{' - ' * bool(missed)}{'; '.join(missed)}")
        return trial

    def _clock(self) -> str:
        gone, limit = time.monotonic() - self._start, self._deadline - self._start
        return f"{self._tower.kind} {_minutes(gone)} of at most {_minutes(limit)}:"

    def _fastest_static(self) -> Trial | None:
        """Return the static plan to refine: the nearest to float32 among the fastest."""
        static = [trial for trial in self._done if trial.plan.method == "static" and trial.failed is None]
        if not static:
            return None
        close = [trial for trial in static if _speed(trial) <= min(map(_speed, static)) * _ALIKE]
        return max(close, key=lambda trial: (trial.agreement_at_10, trial.cosine_mean))

    def _put_back(self, base: Trial) -> Trial | None:
        """Put nodes back until the plan passes, in two orders; return the faster of the two, None when none passes.

        Worst first is the fewest nodes. From the input on makes one float32 part, where the pictures are largest and
        mistakes go through every later node; it changes between float32 and int8 layouts but once.
        """
        convolutions = [name for name in self._tower.nodes if name not in self._tower.products]
        orders = [self._ranked(base.plan)]
        if convolutions:
            orders.append([*self._tower.products, *convolutions])
        found = [trial for order in orders if (trial := self._put_back_in_order(base, order)) is not None]
        return min(found, key=lambda trial: (_speed(trial), _exempt(trial.plan)), default=None)

    def _put_back_in_order(self, base: Trial, ranked: Sequence[str]) -> Trial | None:
        """Put as few of the first nodes back as make the plan pass; None when time ran out first."""
        passing, few, many = None, 0, 1
        while many - few > 1 or passing is None:  # doubling until it passes, then halving the step
            count = min(many, len(ranked)) if passing is None else (few + many) // 2
            trial = self._try(self._without(base.plan, ranked[:count]))
            if trial is None or (passing is None and count == len(ranked) and not self.passes(trial)):
                return passing
            if self.passes(trial):
                passing, many = trial, count
            else:
                few, many = count, (many if passing else many * 2)
        return passing

    def _ranked(self, plan: Plan) -> list[str]:
        """Return the nodes, worst first. Where time is short, those not measured come last, in graph order."""
        errors: dict[str, float] = {}
        now = time.monotonic()
        end = now + (self._deadline - now) * _RANKING_SHARE
        for number, node in enumerate(self._tower.nodes, start=1):
            if time.monotonic() > end:
                self._finished = False
                break
            errors[node] = self._trials.error_alone(plan, node)
            if number % 10 == 0 or number == len(self._tower.nodes):
                self._progress(f"{self._clock()} error of each node alone, {number} of {len(self._tower.nodes)}")
        return sorted(self._tower.nodes, key=lambda node: -errors.get(node, 0.0))

    def _without(self, plan: Plan, nodes: Sequence[str]) -> Plan:
        # In graph order: the same set is the same plan.
        chosen = [name for name in self._tower.nodes if name in set(nodes)]
        products = [name for name in chosen if name in self._tower.products]
        others = [name for name in chosen if name not in self._tower.products]
        return dataclasses.replace(plan, weights8=tuple(products), floats=tuple(others))

    def _drop_what_does_not_pay(self, base: Trial, feeds: Sequence[Feed]) -> Trial | None:
        """Put the nodes back to float32 that int8 does not make faster; None when there are none."""
        if time.monotonic() > self._deadline:
            self._finished = False
            return None
        before = by_weighted_node(self._tower.prepared, node_times(self._tower.model, feeds))
        after = by_weighted_node(self._tower.prepared, node_times(self._tower.build(base.plan), feeds))
        kept = {*base.plan.weights8, *base.plan.floats}
        slower = [name for name in self._tower.nodes if name not in kept and after.get(name, 0) > before.get(name, 1e9)]
        if not slower:
            return None
        return self._try(dataclasses.replace(base.plan, floats=(*base.plan.floats, *slower)))

    def _choose(self) -> Trial | None:
        passing = [trial for trial in self._done if self.passes(trial)]
        if self._tower.target.timed_here:
            paying = [trial for trial in passing if trial.plan.method not in STORAGE and _speed(trial) <= PAYS]
            paying = self._race(sorted(paying, key=_speed)[:_RACERS])
        else:  # nothing can be said of speed; static int8 is what such processors have kernels for
            paying = [trial for trial in passing if trial.plan.method == "static" and self._some_int8(trial.plan)]
            paying = paying or [trial for trial in passing if trial.plan.method == "weights8"]
        if paying and not self._tower.target.timed_here:
            return min(paying, key=lambda trial: (_exempt(trial.plan), -trial.cosine_mean))
        if paying:
            return max(paying, key=lambda trial: trial.cosine_mean)
        storage = [trial for trial in passing if trial.plan.method in STORAGE]
        return min(storage, key=lambda trial: trial.size_bytes, default=None)

    def _some_int8(self, plan: Plan) -> bool:
        return _exempt(plan) < len(self._tower.nodes)

    def _race(self, paying: list[Trial]) -> list[Trial]:
        """Return the trials within noise of the fastest, all timed together: theirs came from different minutes."""
        if not paying or time.monotonic() > self._deadline:
            return paying
        ratios = self._trials.race([trial.plan for trial in paying])
        self._progress(f"{self._clock()} timed together: {', '.join(f'{ratio:.2f}x' for ratio in ratios)}")
        bar = min(PAYS, min(ratios) * _CLOSE)
        return [trial for trial, ratio in zip(paying, ratios, strict=True) if ratio <= bar]


def describe(trial: Trial) -> str:
    """Return a line for people."""
    if trial.failed is not None:
        return f"{trial.plan.label}: {trial.failed}"
    speed = "" if trial.latency_ratio is None else f"{trial.latency_ratio:.2f}x latency, "
    return (
        f"{trial.plan.label}: {speed}cosine {trial.cosine_mean:.4f}, agreement@10 {trial.agreement_at_10:.3f}, "
        f"{trial.size_bytes / 1e6:.1f} MB"
    )


def nearest(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial nearest to float32, for a message that nothing passed."""
    return max((trial for trial in trials if trial.failed is None), key=lambda trial: trial.cosine_mean, default=None)


def _exempt(plan: Plan) -> int:
    return len(plan.weights8) + len(plan.floats)


def _speed(trial: Trial) -> float:
    return 1.0 if trial.latency_ratio is None else trial.latency_ratio


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
