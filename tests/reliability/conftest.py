"""A worker process, and a bundle of pictures of one colour that it may change."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketlens.model import Model
from pocketlens_export.gallery.build import build_bundle
from tests.conftest import COLOURS
from tests.reliability.changes import Change, picture
from tests.updates import next_generation, update_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def work() -> Iterator[Callable[..., dict[str, Any]]]:
    """Tell a worker what to do and return what it answers; see tests/reliability/worker.py."""
    command = [sys.executable, "-W", "error", "-m", "tests.reliability.worker"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        told_to, answers = worker.stdin, worker.stdout

        def tell(**told: Any) -> dict[str, Any]:
            told_to.write(json.dumps(told, default=str) + "\n")
            told_to.flush()
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield tell
        told_to.close()


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Path:
    """A bundle of one picture of each colour; read-only."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "pictures").mkdir()
    for name, colour in COLOURS.items():
        (folder / "pictures" / f"{name}.png").write_bytes(picture(colour))
    model = Model.open(colours)
    build_bundle(folder / "pictures", folder / "bundle", model=model, query_model=model)
    return folder / "bundle"


@pytest.fixture(scope="session")
def update(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Change:
    """The change that brings `shipped` to its second generation."""
    folder = tmp_path_factory.mktemp("server")
    server = Path(shutil.copytree(shipped, folder / "bundle"))
    brings, takes = {"new.png": (1, 2, 3), "blue.png": (9, 9, 200)}, ["white.png"]
    next_generation(server, brings, takes)
    return ("apply", {"file": str(update_of(server, folder / "2.update", since=1)), "brings": brings, "takes": takes})


@pytest.fixture
def plain_bundle(shipped: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change, alone in its folder."""
    (tmp_path / "alone").mkdir()
    return Path(shutil.copytree(shipped, tmp_path / "alone" / "bundle"))
