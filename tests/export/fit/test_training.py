"""The loop: what a step does, and that a run that was stopped ends as one that was not."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketlens._types import Int64s
from pocketlens.errors import FormatError, Refused
from pocketlens_export.fit.networks import Network
from pocketlens_export.fit.recipe import Optimiser
from pocketlens_export.fit.training import Curve, Schedule, train

ROWS, WIDTH = 40, 6


class Regression:
    """Learns a fixed linear map from noisy inputs, with dropout: everything random that a recipe has."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self._inputs = torch.randn(ROWS, WIDTH, generator=generator)
        self._targets = self._inputs @ torch.randn(WIDTH, WIDTH, generator=generator)
        torch.manual_seed(1)
        self.network = Network(WIDTH, WIDTH, hidden=16, tokens=1, activation="gelu", dropout=0.2)
        self.lengths = np.ones(ROWS, dtype=np.int64)
        self.calls = 0

    def loss(self, rows: Int64s) -> Tensor:
        self.calls += 1
        noisy = self._inputs[rows] + 0.1 * torch.randn(len(rows), WIDTH)
        found: Tensor = self.network(noisy)[:, 0]
        return (found - self._targets[rows]).square().mean()

    def held_out_loss(self) -> float:
        assert not self.network.training
        return float((self.network(self._inputs)[:, 0] - self._targets).square().mean())


class Stopped(Regression):
    """Sends this process a signal, or fails, in the middle of a step."""

    def __init__(self, step: int, number: int | None) -> None:
        super().__init__()
        self._step, self._number = step, number

    def loss(self, rows: Int64s) -> Tensor:
        loss = super().loss(rows)
        if self.calls == self._step:
            if self._number is None:
                raise RuntimeError("power cut")
            os.kill(os.getpid(), self._number)
        return loss


SCHEDULE = Schedule(
    steps=60, batch=8, seed=3, rate=2e-2, warm_up=5, decay="cosine", optimiser=Optimiser(), checkpoint_seconds=1e9
)


def weights(task: Regression) -> list[Tensor]:
    return [value.clone() for value in task.network.state_dict().values()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Tensor], Curve]:
    task = Regression()
    curve = train(task, SCHEDULE, tmp_path_factory.mktemp("whole") / "checkpoint.pt")
    return weights(task), curve


def test_the_loss_falls_and_is_recorded(uninterrupted: tuple[list[Tensor], Curve]) -> None:
    _, curve = uninterrupted
    assert len(curve.losses) == 60
    assert [step for step, _ in curve.held_out] == [*range(0, 60, 3), 60]
    assert curve.held_out[-1][1] < 0.5 * curve.held_out[0][1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 24, 31])
def test_a_stopped_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, uninterrupted: tuple[list[Tensor], Curve], number: signal.Signals, step: int
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    handlers = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    with pytest.raises((KeyboardInterrupt, SystemExit)) as stopped:
        train(Stopped(step, number), SCHEDULE, checkpoint)
    assert stopped.type is (KeyboardInterrupt if number == signal.SIGINT else SystemExit)
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == handlers
    task = Regression()
    torch.manual_seed(99)  # whatever another process's generator would hold
    curve = train(task, SCHEDULE, checkpoint)
    assert task.calls == 60 - step
    assert curve == uninterrupted[1]
    assert all(torch.equal(a, b) for a, b in zip(weights(task), uninterrupted[0], strict=True))


def test_a_killed_run_goes_on_from_the_last_checkpoint(
    tmp_path: Path, uninterrupted: tuple[list[Tensor], Curve]
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    every_step = dataclasses.replace(SCHEDULE, checkpoint_seconds=0.0)
    with pytest.raises(RuntimeError, match="power cut"):
        train(Stopped(20, None), every_step, checkpoint)
    task = Regression()
    assert train(task, SCHEDULE, checkpoint) == uninterrupted[1]
    assert task.calls == 60 - 19
    assert all(torch.equal(a, b) for a, b in zip(weights(task), uninterrupted[0], strict=True))


def test_a_finished_run_is_not_trained_again(tmp_path: Path, uninterrupted: tuple[list[Tensor], Curve]) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train(Regression(), SCHEDULE, checkpoint)
    task = Regression()
    assert train(task, SCHEDULE, checkpoint) == uninterrupted[1]
    assert task.calls == 0


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(FormatError, match=r"is no checkpoint of this training; give --fresh"):
        train(Regression(), SCHEDULE, tmp_path / "checkpoint.pt")


def test_a_loss_that_is_no_number_is_refused(tmp_path: Path) -> None:
    class Broken(Regression):
        def loss(self, rows: Int64s) -> Tensor:
            return super().loss(rows) * (math.nan if self.calls == 3 else 1)

    with pytest.raises(Refused, match=r"loss of step 3 is nan; a lower rate"):
        train(Broken(), SCHEDULE, tmp_path / "checkpoint.pt")


def test_rates_rise_then_stay_or_fall() -> None:
    constant = dataclasses.replace(SCHEDULE, decay="constant", rate=1.0, steps=105, warm_up=5)
    assert [constant.rate_at(step) for step in (0, 4, 5, 104)] == pytest.approx([0.2, 1.0, 1.0, 1.0])
    cosine = dataclasses.replace(constant, decay="cosine")
    assert [cosine.rate_at(step) for step in (0, 5, 55, 105)] == pytest.approx([0.2, 1.0, 0.5, 0.0])
    short = dataclasses.replace(constant, steps=8, warm_up=100)
    assert short.rate_at(1) == pytest.approx(1.0)  # a warm-up takes at most a quarter


def test_the_seed_changes_the_result(tmp_path: Path, uninterrupted: tuple[list[Tensor], Curve]) -> None:
    curve = train(Regression(), dataclasses.replace(SCHEDULE, seed=4), tmp_path / "checkpoint.pt")
    assert curve.losses != uninterrupted[1].losses


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    train(Regression(), SCHEDULE, tmp_path / "c.pt", report=lambda *step: told.append(step))
    assert [(done, total) for done, total, _ in told] == [(i, 60) for i in range(1, 61)]
    assert told[-1][2] < told[0][2]
