"""kill -9 at any moment of add, remove, compact and apply: what was committed stays, and every open succeeds."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketlens.inspect import verify
from pocketlens.lens import open_lens
from tests.conftest import COLOURS
from tests.reliability.changes import Change, State, draw, hashes, left_beside, observe, steps, wrong_answers

Work = Callable[..., dict[str, Any]]
KINDS = ("add", "remove", "compact")


def check(bundle: Path, allowed: list[State]) -> State:
    """Open a bundle, compare it with what it may be, and return what it is."""
    with open_lens(bundle, threads=1) as lens:
        found = observe(lens._collection.now())
        fitting = [state for state in allowed if hashes(state) == found]
        assert fitting, f"found {found}, expected one of {[hashes(state) for state in allowed]}"
        assert wrong_answers(lens, fitting[0]) == []
    return fitting[0]


def kill(work: Work, bundle: Path, state: State, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    landed: Counter[str] = Counter()
    for number in range(rounds):
        changes, states = [], [state]
        for kind in (KINDS[number % 3], *rng.choices(KINDS, (3, 2, 1), k=4)):
            changes.append(draw(rng, states[-1], kind))
            states += steps(states[-1], changes[-1])
        told = work(bundle=bundle, changes=changes, kill_s=rng.random() ** 2 * 0.15)
        assert told["error"] is None, told
        done = told["steps"]
        state = check(bundle, states[done : done + 2])
        landed["after all" if told["finished"] else KINDS[number % 3] if done == 0 else "later"] += 1
    assert landed["after all"] < rounds / 2, landed
    assert all(landed[kind] for kind in KINDS), landed
    assert any("files, " in line for line in verify(bundle))
    work(bundle=bundle, changes=[("add", {"last": (1, 2, 3)}), ("compact", None)])  # takes away what was left
    check(bundle, [{**state, "last": (1, 2, 3)}])
    assert left_beside(bundle) == []


def test_200_kills_lose_nothing(work: Work, plain_bundle: Path) -> None:
    kill(work, plain_bundle, dict(COLOURS_BY_ID), 200, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 7))
def test_200_kills_more_lose_nothing(work: Work, plain_bundle: Path, seed: int) -> None:
    kill(work, plain_bundle, dict(COLOURS_BY_ID), 200, seed)


COLOURS_BY_ID = {f"{name}.png": colour for name, colour in COLOURS.items()}


def kill_while_applying(work: Work, shipped: Path, folder: Path, update: Change, rounds: int, seed: int) -> None:
    """The update comes before and after additions and removals; another process dies while it is made."""
    rng = random.Random(seed)
    landed: Counter[str] = Counter()
    for number in range(rounds):
        bundle = Path(shutil.copytree(shipped, folder / str(number) / "bundle"))
        mine: Change = ("add", {f"{name}.jpg": (name, 255 - name, 7) for name in range(3)})
        states = [COLOURS_BY_ID]
        for change in (mine, ("remove", ["green.png"])):
            assert work(bundle=bundle, changes=[change])["steps"] == 1
            states = [steps(states[0], change)[-1]]
        changes: list[Change] = [update, ("add", {"last.jpg": (3, 4, 5)})]
        for change in changes:
            states += steps(states[-1], change)
        told = work(bundle=bundle, changes=changes, kill_s=rng.random() * 0.25)
        assert told["error"] is None, told
        state = check(bundle, states[told["steps"] : told["steps"] + 2])
        landed["old" if state == states[0] else "new"] += 1
        assert work(bundle=bundle, changes=[update])["error"] is None  # again, or for the first time
        expected = states[2] if state == states[2] else states[1]
        check(bundle, [expected])
        assert any("files, " in line for line in verify(bundle))
        work(bundle=bundle, changes=[("compact", None)])
        check(bundle, [expected])
        assert left_beside(bundle) == []
        shutil.rmtree(folder / str(number))
    assert landed["old"] and landed["new"], landed


def test_kills_while_an_update_is_applied(work: Work, shipped: Path, tmp_path: Path, update: Change) -> None:
    kill_while_applying(work, shipped, tmp_path, update, 12, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 7))
def test_200_kills_while_an_update_is_applied(
    work: Work, shipped: Path, tmp_path: Path, update: Change, seed: int
) -> None:
    kill_while_applying(work, shipped, tmp_path, update, 200, seed)
