"""`pocketlens fit distill` from end to end: a small tower learns from the one that tells pictures' mean colours."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pocketlens.encoder import ImageEncoder
from pocketlens.errors import EncoderMismatch, FormatError, MissingPart
from pocketlens.inspect import verify
from pocketlens.model import Model
from pocketlens_export.distill.report import PAGE, PLOT
from pocketlens_export.fit.cli import fit
from tests.colours import expected_picture
from tests.export.distill.paintings import write_paintings
from tests.export.distill.test_student import architecture
from tests.folders import edit_json, sign

Distill = Callable[..., Result]
STEPS = 60


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures and a broken one; read-only."""
    folder = write_paintings(tmp_path_factory.mktemp("paintings"), 120)
    (folder / "broken.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, colours: Path, paintings: Path) -> Path:
    """A folder with a light config, the query model made of it, its weights and a cache; else read-only."""
    folder = tmp_path_factory.mktemp("distilled")
    architecture(folder)
    found = run(
        folder, colours, paintings, folder / "query", "--checkpoint", str(folder / "weights.safetensors"), "--json"
    )
    assert found.exit_code == 0, found.output
    (folder / "printed.json").write_text(found.stdout)
    return folder


def arguments(place: Path, heavy: Path, pictures: Path, out: Path, *more: str) -> list[str]:
    given = ["--light", place / "light.json", "--heavy", heavy, "--pictures", pictures, "--out", out]
    small = ["--loss", "raml", "--batch", "32", "--views", "2", "--threads", "1", "--set", "crop=0.8"]
    usual = [] if "--epochs" in more else ["--steps", str(STEPS), "--set", "rate=0.01"]
    return ["distill", *map(str, given), *small, *usual, *more]


def run(place: Path, heavy: Path, pictures: Path, out: Path, *more: str) -> Result:
    environment = {"POCKETLENS_CACHE": str(place / "cache")}
    return CliRunner().invoke(fit, arguments(place, heavy, pictures, out, *more), env=environment)


def test_the_query_model_answers_in_the_heavy_space(place: Path, colours: Path) -> None:
    query, heavy = Model.open(place / "query"), Model.open(colours)
    verify(place / "query")
    assert query.manifest.space == heavy.manifest.space
    assert query.manifest.name == "light-in-colours" and query.manifest.text is None
    assert query.manifest.licence == "distilled from colours: Apache-2.0"
    assert query.manifest.image is not None and query.manifest.image.features is not None
    assert query.manifest.image.features.id.startswith("light-in-colours@")
    rng = np.random.default_rng(99)
    pixels = np.empty((50, 32, 32, 3), dtype=np.uint8)
    pixels[:] = rng.integers(0, 256, (50, 1, 1, 3))  # pictures of one colour, none of them trained on
    cosines = (ImageEncoder(query).encode_pixels(pixels) * expected_picture(pixels)).sum(axis=1)
    spread = expected_picture(pixels) @ expected_picture(pixels).T
    assert cosines.mean() > 0.95 > spread.mean() + 0.1


def test_what_it_is_worth_is_told(place: Path, paintings: Path) -> None:
    printed = json.loads((place / "printed.json").read_text())
    quality = Model.open(place / "query").manifest.quality
    assert printed["quality"] == quality
    assert printed["space"] == Model.open(place / "query").manifest.space.id
    for who in ("light_light", "heavy_heavy", "light_heavy"):
        recalls = [quality[f"asymmetric_{who}_recall_at_{k}"] for k in (1, 5, 10)]
        assert recalls == sorted(recalls) and recalls[0] >= 0 and recalls[2] <= 1
    assert quality["asymmetric_mean_cosine"] > 0.95
    assert quality["asymmetric_light_heavy_recall_at_10"] > 0.5
    page = (place / "query" / PAGE).read_text()
    assert "# light in the space of colours" in page and "| lambda1 | 0.7482 |" in page
    assert "| skipped | 1 |" in page and f"| {STEPS} |" in page
    assert (place / "query" / PLOT).read_text().startswith("<?xml")


def test_a_stopped_training_ends_in_the_same_bytes(place: Path, colours: Path, paintings: Path, tmp_path: Path) -> None:
    """The process is stopped in the middle of its steps and started again."""
    code = (
        "import os, signal, sys\n"
        "from pocketlens_export.distill.learning import Learning\n"
        "from pocketlens_export.fit.cli import fit\n"
        "plain, calls = Learning.loss, []\n"
        "def loss(self, rows):\n"
        "    calls.append(rows)\n"
        "    if len(calls) == 25: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return plain(self, rows)\n"
        "Learning.loss = loss\n"
        "fit(sys.argv[1:])\n"
    )
    environment = os.environ | {"POCKETLENS_CACHE": str(place / "cache")}
    stopped = subprocess.run(
        [sys.executable, "-c", code, *arguments(place, colours, paintings, tmp_path / "again")],
        env=environment, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr.decode()
    assert not (tmp_path / "again").exists()
    assert list((place / "cache" / "fit").glob("*.pt"))
    found = run(place, colours, paintings, tmp_path / "again")
    assert found.exit_code == 0, found.output
    assert (tmp_path / "again" / "image.onnx").read_bytes() == (place / "query" / "image.onnx").read_bytes()
    assert not list((place / "cache" / "fit").glob("*.pt"))


def test_training_goes_on_from_a_checkpoint(place: Path, colours: Path, paintings: Path, tmp_path: Path) -> None:
    more = ["--start", str(place / "weights.safetensors"), "--epochs", "1", "--loss", "fitnet", "--set", "rate=1e-5"]
    found = run(place, colours, paintings, tmp_path / "on", *more)
    assert found.exit_code == 0, found.output
    assert "light       heavy" in found.stdout and "--text" in found.stdout
    before, after = (Model.open(folder).manifest for folder in (place / "query", tmp_path / "on"))
    assert abs(before.quality["asymmetric_mean_cosine"] - after.quality["asymmetric_mean_cosine"]) < 0.01
    assert before.source != after.source


def test_bad_input_is_refused(place: Path, colours: Path, paintings: Path, tmp_path: Path) -> None:
    assert run(place, colours, paintings, tmp_path / "q", "--epochs", "2", "--steps", "9").exit_code == 2
    few = write_paintings(tmp_path, 12)
    found = run(place, colours, few, tmp_path / "q")
    assert isinstance(found.exception, FormatError)
    assert str(found.exception) == f"{few}: 12 different pictures that can be read, expected at least 64"
    architecture(tmp_path, dim=8)
    found = run(tmp_path, colours, paintings, tmp_path / "q")
    assert isinstance(found.exception, EncoderMismatch)
    found = run(place, place / "query", paintings, tmp_path / "q", "--set", "lamda1=2")
    assert "lamda1" in str(found.exception)
    assert not (tmp_path / "q").exists()


def test_a_heavy_model_without_an_image_tower_is_refused(
    place: Path, colours: Path, paintings: Path, tmp_path: Path
) -> None:
    blind = shutil.copytree(colours, tmp_path / "blind")
    edit_json(blind / "model.json", image=None)
    files = json.loads((blind / "model.json").read_text())["files"]
    edit_json(blind / "model.json", files={name: about for name, about in files.items() if name != "image.onnx"})
    (blind / "image.onnx").unlink()
    sign(blind / "model.json")
    found = run(place, blind, paintings, tmp_path / "q")
    assert isinstance(found.exception, MissingPart) and "has no image tower" in str(found.exception)


def test_help_has_an_example() -> None:
    found = CliRunner().invoke(fit, ["distill", "--help"])
    assert found.exit_code == 0
    assert "pocketlens fit distill --light tiny.json --heavy lens-base --pictures photos --loss raml" in found.output
