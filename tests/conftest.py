"""Fixtures shared by all tests: a model worked out by hand, pictures of one colour each, and a bundle of them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketlens import cli
from pocketlens.model import Model
from pocketlens_export.gallery.build import build_bundle
from tests.colours import write_colours
from tests.command import Result, Run

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230), "white": (250, 250, 250)}

# Reasons for which a test may be skipped; any other skip is a failure.
ALLOWED_SKIPS = frozenset({"Linux's seccomp on x86-64 or ARM64 is needed"})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        path, line, message = report.longrepr
        if message.removeprefix("Skipped: ") not in ALLOWED_SKIPS:
            report.outcome = "failed"
            report.longrepr = f"{path}:{line}: {message} (tests/conftest.py does not allow this skip)"


@pytest.fixture(scope="session", autouse=True)
def stamps(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is remembered of checked files where tests write everything else."""
    os.environ["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("stamps"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; read-only."""
    return write_colours(tmp_path_factory.mktemp("models") / "colours")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one picture of each colour, a copy of the red one and a file that is no picture; read-only."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.png")
    (folder / "more" / "red copy.png").write_bytes((folder / "red.png").read_bytes())
    (folder / "notes.txt").write_text("not a picture")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, colours: Path, pictures: Path) -> Path:
    """A bundle of `pictures`, with both towers; read-only."""
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    model = Model.open(colours)
    build_bundle(pictures, out, model=model, query_model=model)
    return out


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A copy of `bundle` that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command in this process, as the installed script does."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["pocketlens", *map(str, arguments)])
        code: Any = 0
        before = signal.getsignal(signal.SIGTERM)
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        finally:
            signal.signal(signal.SIGTERM, before)
        return Result(code, *capfd.readouterr())

    return run
