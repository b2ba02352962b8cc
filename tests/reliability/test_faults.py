"""A disk that is full or fails at any call: a typed error, the old gallery as it was, and nothing left behind."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketlens.lens import open_lens
from tests.conftest import COLOURS
from tests.reliability import seccomp
from tests.reliability.changes import Change, State, hashes, left_beside, observe, steps, wrong_answers

Work = Callable[..., dict[str, Any]]
CHANGES: dict[str, Change] = {
    "add": ("add", {"new.png": (200, 100, 0), "red.png": (255, 0, 0)}),
    "remove": ("remove", ["red.png", "white.png"]),
    "compact": ("compact", None),
}
KINDS = [*CHANGES, "apply"]
BEFORE: State = {f"{name}.png": colour for name, colour in COLOURS.items()}
ERRORS = dict.fromkeys(("write", "openat", "mkdir", "mkdirat"), errno.ENOSPC) | {"rename": errno.EROFS}  # others: EIO
NO_SECCOMP = "Linux's seccomp on x86-64 or ARM64 is needed"


@pytest.fixture(params=KINDS)
def change(request: pytest.FixtureRequest, update: Change) -> Change:
    """One change of each kind."""
    return CHANGES.get(request.param, update)


def prepared(work: Work, shipped: Path, folder: Path) -> tuple[Path, State]:
    """Return a bundle in a folder of its own with a store that has one addition, and its state."""
    bundle = Path(shutil.copytree(shipped, folder / "bundle"))
    told = work(bundle=bundle, changes=[("add", {"first.png": (10, 20, 30)})])
    assert told["steps"] == 1, told
    return bundle, {**BEFORE, "first.png": (10, 20, 30)}


def outcome(
    told: dict[str, Any], bundle: Path, before: State, change: Change, *, failing: str, persistent: bool = False
) -> str:
    """Return what came of a change that was made to fail: "done" or the error's type; assert that nothing is wrong."""
    after = steps(before, change)[-1]
    assert told["finished"], told
    error = told["error"]
    if error is None:
        assert told["steps"] == 1
    else:
        assert error["ours"], error
    allowed = [after] if error is None else [before]
    if error is not None and (persistent or failing in ("fdatasync", "fsync")):
        allowed.append(after)  # the journal holds the whole commit, but nobody can say whether the disk does
    if failing not in ("unlink", "unlinkat", "rmdir"):
        assert left_beside(bundle) == [], told
    with open_lens(bundle, threads=1) as lens:
        fitting = [state for state in allowed if observe(lens._collection.now()) == hashes(state)]
        assert fitting, told
        assert wrong_answers(lens, fitting[0]) == []
        lens.remove(["green.png"])
        lens.compact()
    assert left_beside(bundle) == []
    return "done" if error is None else error["type"]


def test_files_that_may_not_grow(work: Work, shipped: Path, tmp_path: Path, change: Change) -> None:
    seen: Counter[str] = Counter()
    for number, size in enumerate([0, 1, 30, 100, 1_000, 4_095, 5_000, 20_000, 10**6]):
        (tmp_path / str(number)).mkdir()
        bundle, before = prepared(work, shipped, tmp_path / str(number))
        told = work(bundle=bundle, changes=[change], file_bytes=size)
        seen[outcome(told, bundle, before, change, failing="write")] += 1
    assert seen["NotWritten"] >= 4
    assert seen["done"] >= 1
    assert set(seen) == {"NotWritten", "done"}


def fail(work: Work, shipped: Path, folder: Path, change: Change, *, persistent: bool, every: int) -> Counter[str]:
    """Fail every `every`-th call that changes something, one a run; return what came of it, counted."""
    folder.mkdir()
    bundle, _ = prepared(work, shipped, folder / "counted")
    calls = work(bundle=bundle, changes=[change], fail_at=10**6, error=0)["calls"]
    assert len(calls) > 5
    seen: Counter[str] = Counter()
    for at in range(len(calls) % every, len(calls), every):
        name = calls[at]
        bundle, before = prepared(work, shipped, folder / str(at))
        error = ERRORS.get(name, errno.EIO)
        told = work(bundle=bundle, changes=[change], fail_at=at, error=error, persistent=persistent)
        failed = told["calls"][at] if at < len(told["calls"]) else "none"  # files come in another order at times
        seen[outcome(told, bundle, before, change, failing=failed, persistent=persistent)] += 1
    return seen


@pytest.mark.skipif(not seccomp.AVAILABLE, reason=NO_SECCOMP)
def test_a_call_that_changes_something_may_fail(work: Work, shipped: Path, tmp_path: Path, change: Change) -> None:
    every = 9 if change[0] in ("compact", "apply") else 3
    seen = fail(work, shipped, tmp_path / "f", change, persistent=False, every=every)
    assert {"done", "NotWritten"} <= set(seen) <= {"done", "NotWritten", "FormatError"}


@pytest.mark.soak
@pytest.mark.skipif(not seccomp.AVAILABLE, reason=NO_SECCOMP)
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "from there on"])
def test_every_call_that_changes_something_may_fail(
    work: Work, shipped: Path, tmp_path: Path, change: Change, persistent: bool
) -> None:
    seen = fail(work, shipped, tmp_path / "f", change, persistent=persistent, every=1)
    assert set(seen) <= {"done", "NotWritten", "FormatError"}
    assert seen["NotWritten"] > 3
