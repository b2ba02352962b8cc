"""`pocketlens fit token-learner` from end to end, on small towers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import EncoderMismatch, FormatError, MissingPart, Refused
from pocketlens.inspect import verify
from pocketlens.model import Model, find_model
from pocketlens.network import InversionNetwork
from pocketlens_export.fit.cli import fit
from pocketlens_export.tokens import folder
from tests.export.tokens.models import features_of, write_towers
from tests.folders import edit_json, sign
from tests.quantize import towers

Fit = Callable[..., Result]
SMALL = ["--steps", "6", "--batch", "16", "--threads", "1", "--set", "hidden=32", "--set", "views=2"]


@pytest.fixture
def call(light: Model, heavy: Model, some_pictures: Path, tmp_path: Path) -> list[str]:
    given = ["--light", str(light.path), "--heavy", str(heavy.path), "--pictures", str(some_pictures)]
    return ["token-learner", *given, *SMALL, "--out", str(tmp_path / "out")]


@pytest.fixture
def run(call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """A function: more arguments, which override earlier ones, to the command's result."""
    monkeypatch.setenv("POCKETLENS_CACHE", str(tmp_path / "cache"))
    return lambda *more: CliRunner().invoke(fit, [*call, *more])


def succeed(result: Result) -> Any:
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout) if result.stdout.startswith("{") else result.stdout


def test_it_makes_a_query_model(run: Fit, light: Model, heavy: Model, some_pictures: Path, tmp_path: Path) -> None:
    shown = succeed(run("--json", "--tokens", "3", "--seed", "5"))
    made = Model.open(tmp_path / "out")
    assert (made.manifest.text, made.manifest.image) == (heavy.manifest.text, light.manifest.image)
    assert made.manifest.space == heavy.manifest.space
    entry = made.manifest.inversion["isa"]
    assert (entry.file, entry.input, entry.features_id) == ("inversion/isa.onnx", "features", features_of(light).id)
    assert (entry.tokens, entry.seed, entry.steps, list(entry.data_sha256)) == (3, 5, 6, ["patches"])
    assert set(shown["quality"]) == {
        "held_out_loss", "picture_recall_at_1", "picture_recall_at_10", "embedding_recall_at_1",
        "embedding_recall_at_10", "mean_cosine", "held_out_pictures", "stored_min_cosine",
    }  # fmt: skip
    assert shown["quality"]["stored_min_cosine"] > 0.999
    assert made.manifest.quality["inversion_isa_mean_cosine"] == shown["quality"]["mean_cosine"]
    verify(tmp_path / "out")
    page = (tmp_path / "out" / "inversion" / "isa.md").read_text(encoding="utf-8")
    assert "arXiv 2403.01431" in page and "| views | 2 |" in page and "| patches |" in page
    assert (tmp_path / "out" / "inversion" / "isa.svg").stat().st_size > 1_000


def test_the_runtime_composes_with_what_was_written(run: Fit, some_pictures: Path, tmp_path: Path) -> None:
    succeed(run("--tokens", "2"))
    made = Model.open(tmp_path / "out")
    encoder = ImageEncoder(made)
    pixels = towers.pictures(3)
    _, features = encoder.encode_features(pixels)
    tokens = InversionNetwork(made, "isa", image=made).invert(features)
    assert tokens.shape == (3, 2, towers.WIDTH)
    sentences = np.concatenate([TextEncoder(made).encode_prompts(["a photo of $"], each) for each in tokens])
    assert np.isfinite(sentences).all() and (sentences @ sentences.T)[0, 1] < 0.999  # pictures are told apart


def test_training_makes_sentences_that_find_their_picture(run: Fit) -> None:
    few = succeed(run("--json", "--steps", "1"))["quality"]
    more = succeed(run("--json", "--steps", "60", "--set", "rate=0.003", "--replace"))["quality"]
    assert more["held_out_loss"] < few["held_out_loss"]
    assert more["mean_cosine"] > few["mean_cosine"] + 0.1


def test_into_takes_the_network_into_another_folder_of_the_space(run: Fit, heavy: Model, tmp_path: Path) -> None:
    succeed(run("--into", str(heavy.path)))
    made = Model.open(tmp_path / "out")
    assert made.manifest.image == heavy.manifest.image and "isa" in made.manifest.inversion
    for name in heavy.manifest.files:
        assert (made.path / name).read_bytes() == (heavy.path / name).read_bytes()


def test_a_heavy_tower_without_features_will_do(run: Fit, blind: Model, light: Model, tmp_path: Path) -> None:
    succeed(run("--heavy", str(blind.path)))
    assert Model.open(tmp_path / "out").manifest.inversion["isa"].features_id == features_of(light).id


def test_the_same_command_gives_the_same_bytes(run: Fit, tmp_path: Path) -> None:
    for name in ("a", "b"):
        succeed(run("--out", str(tmp_path / name)))
    succeed(run("--out", str(tmp_path / "c"), "--seed", "1"))
    first, second, other = ((tmp_path / name / "inversion" / "isa.onnx").read_bytes() for name in ("a", "b", "c"))
    assert first == second != other


def test_a_stopped_training_goes_on_to_the_same_bytes(
    run: Fit, call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed(run("--steps", "150", "--out", str(tmp_path / "whole")))
    cache = tmp_path / "other"
    environment = os.environ | {"POCKETLENS_CACHE": str(cache)}
    code = (
        "import sys, torch; torch.set_num_threads(1)\nfrom pocketlens_export.fit import cli, console\n"
        "console._LINE_SECONDS = 0.0\ncli.fit(sys.argv[1:])"
    )
    started = [sys.executable, "-c", code, *call, "--steps", "150"]
    process = subprocess.Popen(started, env=environment, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert any(b"training: 9 of 150" in line for line in process.stderr)  # reads no further
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode != 0 and not (tmp_path / "out").exists()
    (checkpoint,) = cache.glob("fit/*.pt")
    monkeypatch.setenv("POCKETLENS_CACHE", str(cache))
    succeed(run("--steps", "150"))
    for name in ("onnx", "md", "svg"):
        whole, resumed = ((tmp_path / place / "inversion" / f"isa.{name}") for place in ("whole", "out"))
        assert whole.read_bytes() == resumed.read_bytes()
    assert not checkpoint.exists()


def test_pictures_that_cannot_be_read_are_counted(run: Fit, some_pictures: Path, tmp_path: Path) -> None:
    more = Path(shutil.copytree(some_pictures, tmp_path / "more"))
    (more / "broken.png").write_bytes(b"no picture")
    shutil.copy(more / "000.png", more / "twin.png")
    succeed(run("--pictures", str(more)))
    page = (tmp_path / "out" / "inversion" / "isa.md").read_text(encoding="utf-8")
    assert "| files skipped | 1 |" in page and "| duplicates left out | 81 |" in page
    assert list(Model.open(tmp_path / "out").manifest.inversion["isa"].data_sha256) == ["patches", "more"]


def spoilt(model: Model, place: Path, **changes: Any) -> str:
    shutil.copytree(model.path, place)
    edit_json(place / "model.json", **changes)
    sign(place / "model.json")
    return str(place)


def test_models_of_two_spaces_are_refused_with_advice(run: Fit, light: Model, tmp_path: Path) -> None:
    other = spoilt(light, tmp_path / "other", space__id="other@" + "1" * 64)
    with pytest.raises(EncoderMismatch, match=rf"{other} is of space other@1+, expected .*towers@0+; .*fit align"):
        succeed(run("--light", other))
    with pytest.raises(EncoderMismatch, match=rf"{other} is of space other@1+, expected .*towers@0+"):
        succeed(run("--into", other))
    assert not (tmp_path / "out").exists()


def test_parts_that_are_missing_are_named(run: Fit, blind: Model, heavy: Model, tmp_path: Path) -> None:
    with pytest.raises(MissingPart, match="an image tower with features is needed, model towers has none"):
        succeed(run("--light", str(blind.path)))
    with pytest.raises(MissingPart, match=r"an image tower is needed, model towers-2 has none"):
        succeed(run("--heavy", spoilt(heavy, tmp_path / "sightless", image=None)))
    with pytest.raises(MissingPart, match=r"a text tower with a tokenizer is needed, model towers-2 has none"):
        succeed(run("--heavy", spoilt(heavy, tmp_path / "mute", text=None)))


def test_an_integer_text_tower_is_refused(run: Fit, light: Model, tmp_path: Path) -> None:
    base = Model.open(find_model("lens-base"))
    other = spoilt(light, tmp_path / "other", space__id=base.manifest.space.id, space__dim=base.manifest.space.dim)
    with pytest.raises(FormatError, match=r"computes in integers .*--into"):
        succeed(run("--light", other, "--heavy", "lens-base"))


def test_too_few_pictures(run: Fit, light: Model, heavy: Model, tmp_path: Path) -> None:
    few = towers.write_pictures(tmp_path / "few", 63)
    given = ["--light", str(light.path), "--heavy", str(heavy.path), "--pictures", str(few), *SMALL]
    result = CliRunner().invoke(fit, ["token-learner", *given, "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, FormatError)
    assert str(result.exception) == f"{few}: 63 different pictures, expected 64 or more"


def test_a_network_that_would_be_too_large(
    run: Fit, call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed(run())
    size = (tmp_path / "out" / "inversion" / "isa.onnx").stat().st_size
    assert size < 64 * 4 + 64 * 32 + 32 * 64 + 4 * (4 * 32 + 500) + 5_000  # a byte a weight, 4 for few others, nodes
    monkeypatch.setattr(folder, "MAX_BYTES", 3_000_000)
    wide = ["hidden=16384" if argument == "hidden=32" else argument for argument in call]
    result = CliRunner().invoke(fit, [*wide, "--tokens", "16", "--replace"])
    assert isinstance(result.exception, Refused)
    assert str(result.exception).startswith("the network would take 3.1 MB, expected at most 3; a narrower one helps")


def test_help_has_an_example_and_loads_no_torch() -> None:
    code = (
        "import sys\nfrom pocketlens_export.fit.cli import fit\n"
        "try:\n    fit(['token-learner', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "pocketlens fit token-learner --light tiny-in-base" in shown


def test_a_light_model_of_another_seed_is_trained_anew(run: Fit, light: Model, tmp_path: Path) -> None:
    succeed(run("--out", str(tmp_path / "first")))
    other = write_towers(tmp_path / "other", seed=7)
    succeed(run("--light", str(other)))
    networks = [(tmp_path / name / "inversion" / "isa.onnx").read_bytes() for name in ("first", "out")]
    assert networks[0] != networks[1]
    assert Model.open(tmp_path / "out").manifest.inversion["isa"].features_id == features_of(Model.open(other)).id
