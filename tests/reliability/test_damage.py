"""A bundle with any byte changed, any file cut or exchanged: noticed before native code reads it, and never a crash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlens.errors import FormatError
from pocketlens.lens import open_lens
from tests.conftest import COLOURS
from tests.folders import files_below
from tests.reliability.changes import State, hashes, observe, wrong_answers
from tests.reliability.conftest import ROOT
from tests.reliability.damage import places

Work = Callable[..., dict[str, Any]]
FILES = 21
ADDED: State = {f"{number}.png": (number, 255 - number, 99) for number in range(20)}
ADDS_AND_DIES = f"""
import os, sys
from pathlib import Path
from pocketlens.lens import open_lens
from tests.reliability.changes import perform
perform(open_lens(Path(sys.argv[1]), threads=1), ("add", {ADDED}))
os.kill(os.getpid(), 9)
"""


def in_a_child(bundle: Path, *arguments: object) -> int:
    """Damage a bundle in a child process and return how often; assert that all of it was noticed."""
    command = [sys.executable, "-W", "error", "-m", "tests.reliability.damage", str(bundle), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2_000:]}"
    told = json.loads(done.stdout)
    assert told["missed"] == []
    assert told["sound"] is None  # it was put back, and what was noticed was the damage
    return int(told["tried"])


def test_a_sample_of_all_bytes(plain_bundle: Path) -> None:
    files = files_below(plain_bundle)
    tried = in_a_child(plain_bundle, "flips", 0, 1, 151)
    assert tried == 3 * len(places(plain_bundle, 151)) > 500
    assert len(files) == FILES


@pytest.mark.soak
@pytest.mark.parametrize("part", range(8))
def test_every_byte_three_ways(plain_bundle: Path, part: int) -> None:
    every = sum((plain_bundle / name).stat().st_size for name in files_below(plain_bundle))
    assert len(places(plain_bundle, 1)) == every
    assert in_a_child(plain_bundle, "flips", part, 8, 1) == 3 * len(range(part, every, 8))


def test_files_cut_prolonged_and_with_pages_of_zeros(plain_bundle: Path) -> None:
    sizes = [(plain_bundle / name).stat().st_size for name in files_below(plain_bundle)]
    assert in_a_child(plain_bundle, "cuts") > 53 * sum(size > 0 for size in sizes)


def test_each_two_files_exchanged(plain_bundle: Path) -> None:
    contents = [(plain_bundle / name).read_bytes() for name in files_below(plain_bundle)]
    assert in_a_child(plain_bundle, "swaps") == sum(a != b for a, b in combinations(contents, 2)) > 200


def test_parts_of_another_sound_bundle(plain_bundle: Path, bundle: Path) -> None:
    """Every file is right where it came from, and is refused here."""
    other = Path(shutil.copytree(bundle, plain_bundle.parent / "other"))
    for name in files_below(plain_bundle):
        content = (plain_bundle / name).read_bytes()
        if (other / name).read_bytes() == content:
            continue
        (plain_bundle / name).write_bytes((other / name).read_bytes())
        if name == "bundle.json":
            with pytest.raises(FormatError, match=r"gallery\.json is damaged"):
                open_lens(plain_bundle)
        else:
            with pytest.raises(FormatError, match=name.rpartition("/")[2]):
                open_lens(plain_bundle)
        (plain_bundle / name).write_bytes(content)


@pytest.mark.parametrize("journal", [False, True], ids=["database", "journal"])
def test_bytes_of_what_was_added(work: Work, plain_bundle: Path, journal: bool) -> None:
    """SQLite reads these, so it is noticed after, when it is: a journal torn at its end is one of an earlier commit."""
    state: State = {f"{name}.png": colour for name, colour in COLOURS.items()}
    if journal:
        command = [sys.executable, "-c", ADDS_AND_DIES, str(plain_bundle)]
        assert subprocess.run(command, cwd=ROOT).returncode == -9
    else:
        assert work(bundle=plain_bundle, changes=[("add", ADDED)])["steps"] == 2
    path = plain_bundle / ("local.sqlite-wal" if journal else "local.sqlite")
    content = path.read_bytes()
    kept = {name: (plain_bundle / name).read_bytes() for name in files_below(plain_bundle) if name.startswith("local")}
    rng = np.random.default_rng(0)
    noticed = 0
    allowed = [hashes({**state, **dict(list(ADDED.items())[:count])}) for count in (16, 20)]
    for at in rng.choice(len(content), size=100, replace=False):
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            with open_lens(plain_bundle, threads=1) as lens:
                found = observe(lens._collection.now())
                assert found in (allowed if journal else allowed[-1:])
                assert wrong_answers(lens, {id: {**state, **ADDED}[id] for id in found}) == []
            noticed += found != allowed[-1]
        except FormatError as error:
            assert "local.sqlite" in str(error)
            noticed += 1
        for name in ("local.sqlite", "local.sqlite-wal", "local.sqlite-shm"):
            (plain_bundle / name).unlink(missing_ok=True)
            if name in kept:
                (plain_bundle / name).write_bytes(kept[name])
    assert noticed > 10
