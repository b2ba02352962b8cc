"""10,000 malformed pictures: every one is read or refused with `BadImage`, in bounded time and memory, in a child."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pocketlens.decoders import DEVICE
from pocketlens.errors import BadImage
from pocketlens.picture import decode
from tests.fuzz.pictures import EVERY, bombs, mutant, outcome, seeds

ROOT = Path(__file__).parents[2]
REASONS = {"read", "unreadable", "format", "too large", "truncated", "damaged"}


def in_a_child(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-W", "error", "-m", "tests.fuzz.pictures", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode} at {done.stderr[-2_000:]}"
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["foreign"] == []
    assert told["slow"] == []
    assert set(told["outcomes"]) <= REASONS
    return told


def test_legal_pictures_are_read() -> None:
    assert len(seeds()) >= 14
    assert {name: outcome(content)[0] for name, content in seeds().items()} == dict.fromkeys(seeds(), "read")


def test_600_malformed_pictures() -> None:
    told = in_a_child(0, 600)
    assert sum(told["outcomes"].values()) == 600
    assert told["outcomes"]["read"] < 300  # most of them are malformed indeed
    assert told["added_mb"] < 200


@pytest.mark.soak
@pytest.mark.parametrize("first", range(600, 10_600, 2_500))
def test_10_000_malformed_pictures(first: int) -> None:
    told = in_a_child(first, 2_500)
    assert sum(told["outcomes"].values()) == 2_500
    assert told["added_mb"] < 400


def test_bombs() -> None:
    told = in_a_child("bombs")
    assert sum(told["outcomes"].values()) == len(bombs())
    assert told["added_mb"] < 100


def test_mutants_are_the_same_every_time() -> None:
    assert [mutant(number) for number in range(40)] == [mutant(number) for number in range(40)]
    assert len({mutant(number)[1] for number in range(40)}) == 40


@pytest.mark.parametrize("name", [name for name in seeds() if not name.startswith("animated")])
def test_a_picture_cut_at_100_points_is_never_half_a_picture(name: str) -> None:
    content = seeds()[name]
    whole = decode(content, limits=EVERY).tobytes()
    reasons = set()
    for point in range(100):
        try:
            assert decode(content[: len(content) * point // 100], limits=EVERY).tobytes() == whole
        except BadImage as error:
            reasons.add(error.reason)
    assert "truncated" in reasons
    assert reasons <= {"truncated", "damaged", "format"}


def test_what_the_device_reads_by_default() -> None:
    by_default = {name for name, content in seeds().items() if _is_read(content)}
    assert by_default == {name for name in seeds() if name.endswith(("JPEG", "PNG", "WebP", "EXIF", "restarts"))}


def _is_read(content: bytes) -> bool:
    try:
        decode(content, limits=DEVICE)
    except BadImage as error:
        assert error.reason == "format"
        return False
    return True
