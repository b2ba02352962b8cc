"""kill -9 at any moment of an indexing run: started again it does what is missing, and the bundle is the same."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from pocketlens.inspect import verify
from tests.export.gallery.made import Made, make_pictures, start_index
from tests.folders import files_below


def same_files(left: Path, right: Path) -> bool:
    names = files_below(left)
    return names == files_below(right) and all((left / n).read_bytes() == (right / n).read_bytes() for n in names)


def prove(made: Made, model: Path, place: Path, *, shard: int, kills: int, deadline_s: float, seed: int) -> None:
    """Index without a stop, then with kills at random moments, and compare; runs that end well begin again."""
    command = (
        made.folder, "--model", model, "--shard", shard, "--deadline", deadline_s, "--max-skipped", 10, "--json",
    )  # fmt: skip
    began = time.monotonic()
    with start_index(*command, "--out", place / "whole") as whole:
        out, err = whole.communicate()
    took_s = time.monotonic() - began
    assert whole.returncode == 0, err
    assert json.loads(out) == {
        "seen": made.counts.seen, "indexed": made.counts.indexed, "duplicates": made.counts.duplicates,
        "skipped": made.counts.skipped,
    }  # fmt: skip
    assert verify(place / "whole")
    rng, found = random.Random(seed), Counter[str]()
    bundle = place / "killed"
    while found["killed"] < kills:
        with start_index(*command, "--out", bundle) as running:
            with suppress(subprocess.TimeoutExpired):
                running.wait(rng.uniform(0.3, took_s))
            if running.poll() is None:
                running.kill()
                running.communicate()
                found["killed"] += 1
                found["with shards"] += any((place / ".killed.unfinished" / "shards").glob("*.npz"))
                continue
            _, err = running.communicate()
            assert running.returncode == 0, err
        assert same_files(place / "whole", bundle)
        found["resumed"] += json.loads(err.splitlines()[-1])["resumed"] > 0
        shutil.rmtree(bundle)
    with start_index(*command, "--out", bundle) as last:
        _, err = last.communicate()
    assert last.returncode == 0, err
    assert same_files(place / "whole", bundle)
    assert found["with shards"], found
    assert found["resumed"] or json.loads(err.splitlines()[-1])["resumed"] > 0, found
    assert sorted(path.name for path in place.iterdir()) == ["killed", "whole"]


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path: Path, colours: Path) -> None:
    made = make_pictures(tmp_path / "p", 240, hanging=1)
    (tmp_path / "out").mkdir()
    prove(made, colours, tmp_path / "out", shard=32, kills=6, deadline_s=2.0, seed=1)  # good pictures take a thousandth


@pytest.mark.soak
def test_20000_pictures_and_20_kills(tmp_path: Path, colours: Path) -> None:
    made = make_pictures(tmp_path / "p", 20_000, hanging=5, dying=5)
    (tmp_path / "out").mkdir()
    prove(made, colours, tmp_path / "out", shard=256, kills=20, deadline_s=3.0, seed=2)
