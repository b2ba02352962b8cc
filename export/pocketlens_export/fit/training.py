"""The loop that all recipes share: AdamW, a warm-up, checkpoints, and the same result after a kill.

What a step does depends on the checkpointed state alone: the network, the optimiser, torch's generators, and the step's
number, which names its rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor

from pocketlens.compose.method import Values
from pocketlens.errors import FormatError, Refused
from pocketlens.files import write_file
from pocketlens_export.fit.batches import Batches
from pocketlens_export.fit.recipe import Optimiser, Recipe, Task

Report = Callable[[int, int, float], None]
"""Told after a step: the steps done, of how many, and the loss, smoothed."""

_HELD_OUT_LOSSES = 20  # of a training, at least; each costs about as much as some steps
_FADE = 0.98  # of the loss that is shown


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps, batch, seed: as asked for.
        rate: of AdamW, risen to over `warm_up` steps; then constant, or falling to 0 by half a cosine.
        decay: "constant" or "cosine".
        optimiser: AdamW's other parameters.
        bfloat16: whether products are taken in it.
        checkpoint_seconds: between two checkpoints.
    """

    steps: int
    batch: int
    seed: int
    rate: float
    warm_up: int
    decay: Literal["constant", "cosine"]
    optimiser: Optimiser
    bfloat16: bool = False
    checkpoint_seconds: float = 60.0

    def rate_at(self, step: int) -> float:
        """Return the rate of a step from 0 on."""
        warm_up = min(self.warm_up, self.steps // 4)
        if step < warm_up:
            return self.rate * (step + 1) / warm_up
        if self.decay == "constant":
            return self.rate
        return self.rate * (1 + math.cos(math.pi * (step - warm_up) / max(self.steps - warm_up, 1))) / 2


def schedule_of(recipe: Recipe, values: Values, *, steps: int, batch: int, seed: int) -> Schedule:
    """Return the schedule that a recipe and the values of its common parameters ask for."""
    return Schedule(
        steps=steps,
        batch=batch,
        seed=seed,
        rate=float(values["rate"]),
        warm_up=recipe.warm_up,
        decay="cosine" if values["decay"] == "cosine" else "constant",
        optimiser=recipe.optimiser,
        bfloat16=values["precision"] == "bfloat16",
    )


def checkpoint_path(asked: Mapping[str, object], cache: Path, *, fresh: bool) -> Path:
    """Return the path of a training's checkpoint, whose folder exists.

    Args:
        asked: all that the training's result depends on; it is in the name.
        cache: folder of checkpoints.
        fresh: whether to remove one that is there.
    """
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]}.pt"
    if fresh:
        path.unlink(missing_ok=True)
    return path


@dataclass(slots=True)
class Curve:
    """Losses of a training: one a step, and the held-out ones with the number of steps done before each."""

    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)


def train(
    task: Task,
    schedule: Schedule,
    checkpoint: Path,
    *,
    report: Report = lambda done, total, loss: None,
) -> Curve:
    """Train a task's network in place, from the checkpoint where there is one, and return the curve.

    A SIGINT or SIGTERM is answered after the running step, with a checkpoint.

    Args:
        task: what to train.
        schedule: for how long and how fast.
        checkpoint: file that is written while training and at the end; its folder exists.
        report: told after every step.

    Raises:
        FormatError: the checkpoint is none of this training.
        Refused: the loss is no longer a number.
    """
    state = _State(task, schedule)
    if checkpoint.is_file():
        state.read(checkpoint)
    _run(state, Batches(task.lengths, schedule.batch, seed=schedule.seed), schedule, checkpoint, report)
    state.measure(schedule.steps)
    state.write(checkpoint)
    return state.curve


def _run(state: _State, batches: Batches, schedule: Schedule, checkpoint: Path, report: Report) -> None:
    every = max(schedule.steps // _HELD_OUT_LOSSES, 1)
    saved = time.monotonic()
    shown, told = 0.0, 0
    with _stop_requests() as stop:
        while len(state.curve.losses) < schedule.steps:
            step = len(state.curve.losses)
            if step % every == 0:
                state.measure(step)
            loss = state.step(batches, step)
            told += 1
            shown += (loss - shown) * max(1 - _FADE, 1 / told)  # a mean at first
            report(step + 1, schedule.steps, shown)
            if stop or time.monotonic() - saved > schedule.checkpoint_seconds:
                state.write(checkpoint)
                saved = time.monotonic()
            if stop:
                _leave(stop[0])


class _State:
    """The network, its optimiser and the curve, together with what randomness they stand at."""

    def __init__(self, task: Task, schedule: Schedule) -> None:
        self._task = task
        self._schedule = schedule
        more = schedule.optimiser
        self._optimiser = torch.optim.AdamW(
            task.network.parameters(), schedule.rate, betas=more.betas, eps=more.epsilon, weight_decay=more.weight_decay
        )
        self._device = next(task.network.parameters()).device
        self.curve = Curve()
        torch.manual_seed(schedule.seed)

    def step(self, batches: Batches, step: int) -> float:
        """Take one step and return its loss."""
        self._task.network.train()
        for group in self._optimiser.param_groups:
            group["lr"] = self._schedule.rate_at(step)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._schedule.bfloat16):
            loss: Tensor = self._task.loss(batches.rows(step))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Refused(f"the loss of step {step + 1} is {value}; a lower rate helps (--set rate=…)")
        self._optimiser.step()
        self.curve.losses.append(value)
        return value

    def measure(self, step: int) -> None:
        """Add the held-out loss after `step` steps, unless it is there already."""
        if self.curve.held_out and self.curve.held_out[-1][0] == step:
            return
        self._task.network.eval()
        with torch.no_grad():
            self.curve.held_out.append((step, self._task.held_out_loss()))

    def write(self, path: Path) -> None:
        """Write a checkpoint."""
        generators = [torch.get_rng_state()]
        generators += [torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else []
        content = {
            "network": self._task.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generators": generators,
            "losses": self.curve.losses,
            "held_out": self.curve.held_out,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_file(path, buffer.getvalue())

    def read(self, path: Path) -> None:
        """Go on from a checkpoint."""
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self._task.network.load_state_dict(content["network"])
            self._optimiser.load_state_dict(content["optimiser"])
            torch.set_rng_state(content["generators"][0])
            if self._device.type == "cuda":
                torch.cuda.set_rng_state(content["generators"][1], self._device)
            self.curve = Curve(list(content["losses"]), [(step, loss) for step, loss in content["held_out"]])
        except Exception as error:  # torch, pickle and zipfile raise several kinds
            raise FormatError(f"{path} is no checkpoint of this training; give --fresh: {error}") from error


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Yield a list that gets the number of the first SIGINT or SIGTERM; a second one is answered at once."""
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        stop.append(number)
        for each, handler in old.items():
            signal.signal(each, handler)

    for number in old:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _leave(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
