"""`pocketlens fit` from end to end, on a tiny tower."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result

from pocketlens.errors import BadQuery, EncoderMismatch, FormatError, MissingPart, PocketlensError, Refused
from pocketlens.inspect import verify
from pocketlens.model import Model, find_model
from pocketlens_export.fit import folder, quality
from pocketlens_export.fit.cli import fit
from pocketlens_export.gallery.build import build_bundle
from tests.folders import edit_json, files_below, sign
from tests.quantize import towers

Fit = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of two small towers with a tokenizer; read-only."""
    return towers.write_model(tmp_path_factory.mktemp("models") / "towers")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, Path]:
    """A file of texts and a bundle of pictures; read-only."""
    place = tmp_path_factory.mktemp("data")
    texts = [
        f"{a} {b} {c}" for a in ("red", "a small", "old") for b in ("dog", "car", "tree") for c in ("", "at night")
    ]
    (place / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    opened = Model.open(model)
    build_bundle(towers.write_pictures(place / "pictures", 30), place / "bundle", model=opened, query_model=opened)
    return place / "texts.txt", place / "bundle"


@pytest.fixture
def run(model: Path, data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """A function: a recipe and more arguments to the command's result; later options override earlier ones."""
    monkeypatch.setenv("POCKETLENS_CACHE", str(tmp_path / "cache"))

    def _run(recipe: str, *more: str) -> Result:
        given = [argument for path in data for argument in ("--data", str(path))]
        small = ["--steps", "6", "--batch", "8", "--threads", "1", "--set", "hidden=32"]
        small += ["--set", "inversion_steps=2", "--set", "pictures=6"] if recipe == "searle" else []
        call = ["inversion", "--model", str(model), "--recipe", recipe, *given, *small, "--out", str(tmp_path / "out")]
        return CliRunner().invoke(fit, [*call, *more])

    return _run


def succeed(result: Result) -> Any:
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout) if result.stdout.startswith("{") else result.stdout


@pytest.mark.parametrize("recipe", ["lincir", "pic2word", "searle"])
def test_every_recipe_makes_a_folder(run: Fit, model: Path, tmp_path: Path, recipe: str) -> None:
    shown = succeed(run(recipe, "--json", "--set", "tokens=2", "--seed", "5"))
    made = Model.open(tmp_path / "out")
    entry = made.manifest.inversion[recipe]
    assert (entry.file, entry.precision, entry.tokens) == (f"inversion/{recipe}.onnx", "8-bit weights", 2)
    assert (entry.seed, entry.steps, list(entry.data_sha256)) == (5, 6, ["texts.txt", "bundle"])
    figures = {"held_out_loss", "text_cosine", "picture_recall_at_1", "held_out_pictures", "stored_min_cosine"}
    assert set(shown["quality"]) == figures
    assert {f"inversion_{recipe}_{name}" for name in figures} <= set(made.manifest.quality)
    assert shown["size_bytes"] == (tmp_path / "out" / entry.file).stat().st_size
    added = {f"inversion/{recipe}{suffix}" for suffix in (".onnx", ".md", ".svg")}
    assert set(files_below(tmp_path / "out")) == set(files_below(model)) | added
    for name in Model.open(model).manifest.files:
        assert (tmp_path / "out" / name).read_bytes() == (model / name).read_bytes()
    session = ort.InferenceSession(str(made.file(entry.file)), providers=["CPUExecutionProvider"])
    vector = np.eye(1, towers.DIM, dtype=np.float32)
    assert session.run(["pseudo_tokens"], {"embedding": vector})[0].shape == (1, 2, towers.WIDTH)
    assert verify(tmp_path / "out")


def test_the_report_says_what_was_done(run: Fit, tmp_path: Path) -> None:
    out = succeed(run("lincir", "--set", "noise=0.7"))
    assert "held_out_loss" in out and "inversion/lincir.onnx" in out
    made = tmp_path / "out"
    assert f"pocketlens pack --gallery BUNDLE/gallery --text {made} --image {made} --out NEW-BUNDLE" in out
    assert f"pocketlens index PICTURES --model {made} --out NEW-BUNDLE" in out
    page = (tmp_path / "out" / "inversion" / "lincir.md").read_text(encoding="utf-8")
    for told in (
        "| noise | 0.7 |",
        "| steps | 6 |",
        "| texts.txt |",
        "| held-out texts | 1 |",
        "| tagger | lexicon |",
        "arXiv 2312.01998",
    ):
        assert told in page
    plot = (tmp_path / "out" / "inversion" / "lincir.svg").read_text(encoding="utf-8")
    assert "held out" in plot and "<dc:date>" not in plot


def test_the_same_call_makes_the_same_network(run: Fit, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        succeed(run("lincir", "--out", str(tmp_path / name)))
        found.append({f: (tmp_path / name / f).read_bytes() for f in files_below(tmp_path / name)})
    assert found[0] == found[1]
    succeed(run("lincir", "--out", str(tmp_path / "c"), "--seed", "1"))
    assert (tmp_path / "c/inversion/lincir.onnx").read_bytes() != found[0]["inversion/lincir.onnx"]
    assert not list((tmp_path / "cache" / "fit").glob("*.pt"))  # a checkpoint is of no more use


def test_several_recipes_in_one_folder(run: Fit, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeed(run("lincir"))
    succeed(run("pic2word", "--model", str(out), "--replace"))
    succeed(run("lincir", "--model", str(model), "--into", str(out), "--replace", "--steps", "4"))
    made = Model.open(out).manifest
    assert set(made.inversion) == {"lincir", "pic2word"}
    assert made.inversion["lincir"].steps == 4
    assert {"parity_text_min_cosine", "inversion_pic2word_text_cosine"} <= set(made.quality)


def test_into_another_folder_of_the_space(run: Fit, model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(model, tmp_path / "other")
    edit_json(other / "model.json", name="smaller")
    succeed(run("lincir", "--into", str(other)))
    made = Model.open(tmp_path / "out").manifest
    assert made.name == "smaller" and list(made.inversion) == ["lincir"]


def test_a_stopped_command_goes_on(
    run: Fit, model: Path, data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed(run("lincir", "--out", str(tmp_path / "whole"), "--steps", "400"))
    cache = tmp_path / "stopped"
    code = "from pocketlens_export.fit import cli, console; console._LINE_SECONDS = 0; cli.fit()"
    call = [sys.executable, "-c", code, "inversion", "--model", str(model), "--recipe", "lincir", "--steps", "400"]
    call += ["--batch", "8", "--threads", "1", "--set", "hidden=32", "--out", str(tmp_path / "out")]
    call += [argument for path in data for argument in ("--data", str(path))]
    environment = {**os.environ, "POCKETLENS_CACHE": str(cache)}
    process = subprocess.Popen(call, env=environment, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert any(b"training: 9 of 400" in line for line in process.stderr)  # reads no further
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0 and not (tmp_path / "out").exists()
    (checkpoint,) = cache.glob("fit/*.pt")
    monkeypatch.setenv("POCKETLENS_CACHE", str(cache))
    succeed(run("lincir", "--steps", "400"))
    for name in ("onnx", "md", "svg"):
        whole, resumed = ((tmp_path / place / "inversion" / f"lincir.{name}") for place in ("whole", "out"))
        assert whole.read_bytes() == resumed.read_bytes()
    assert not checkpoint.exists()


def test_fresh_leaves_a_checkpoint_aside(run: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*anything: object, **more: object) -> object:
        (found,) = (tmp_path / "cache" / "fit").glob("*.pt")
        found.write_bytes(b"spoilt")
        raise Refused("stopped before the end")

    monkeypatch.setattr(folder, "measure_network", stop)
    assert isinstance(run("lincir").exception, Refused)
    monkeypatch.undo()
    monkeypatch.setenv("POCKETLENS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FormatError, match="give --fresh"):
        succeed(run("lincir"))
    succeed(run("lincir", "--fresh"))


def test_a_checkpoint_and_arrays_are_those_of_one_training(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*anything: object, **more: object) -> object:
        raise Refused("stopped before the end")

    monkeypatch.setattr(folder, "measure_network", stop)
    monkeypatch.setenv("POCKETLENS_CACHE", str(tmp_path / "cache"))
    for name, texts in (("a", ["red dog", "old car", "red tree"]), ("b", ["small cat", "old boat", "red house"])):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts))
    other = shutil.copytree(model, tmp_path / "other")
    (other / "tokenizer.json").write_text(json.dumps(json.loads((model / "tokenizer.json").read_text()), indent=1))
    sign(other / "model.json")

    def made(*names: str, given: Path = model, threads: int = 1, tagger: str = "auto") -> tuple[int, int]:
        """Return how many checkpoints and arrays there are after one more training."""
        call = ["inversion", "--model", str(given), "--recipe", "lincir", "--steps", "2", "--threads", str(threads)]
        call += [argument for name in names for argument in ("--data", str(tmp_path / f"{name}.txt"))]
        call += ["--set", "hidden=8", "--set", f"tagger={tagger}", "--out", str(tmp_path / "out")]
        with pytest.raises(Refused, match="stopped before"):
            succeed(CliRunner().invoke(fit, call))
        cache = tmp_path / "cache" / "fit"
        return len(list(cache.glob("*.pt"))), len(list(cache.glob("arrays/*.npy")))

    assert made("a", "b") == made("a", "b") == (1, 2)
    assert made("a", "b", tagger="lexicon") == (1, 2)  # what auto is where spaCy is not installed
    assert made("b", "a") == (2, 3)  # the held-out text is the same
    assert made("b", "a", threads=2) == (3, 5)
    assert made("b", "a", given=other) == (4, 7)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["--set", "noise"], BadQuery, "--set is 'noise', expected NAME=VALUE"),
        (["--set", "noise=1", "--set", "noise=2"], BadQuery, r"--set noise is given twice: '1' and '2'"),
        (["--set", "scale=9"], BadQuery, "lincir: there is no parameter 'scale'"),
        (["--data", "nothing.txt"], FormatError, r"nothing\.txt cannot be read"),
        (["--model", "nowhere"], FormatError, "neither a model folder nor a model that ships"),
        (["--model", "lens-base"], FormatError, r"computes in integers .* leaves lens-base's in build/lens-base/float"),
        (["--into", "lens-base"], EncoderMismatch, "expected that of"),
        (["--recipe", "searle", "--set", "rate=0"], BadQuery, "rate is 0, expected a number"),
    ],
)
def test_bad_input_leaves_nothing(
    run: Fit, tmp_path: Path, more: list[str], error: type[PocketlensError], message: str
) -> None:
    result = run("lincir", *more)
    with pytest.raises(error, match=message):
        succeed(result)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_kept_without_replace(run: Fit, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FormatError, match="exists already"):
        succeed(run("lincir"))


def test_data_of_the_wrong_kind(model: Path, data: tuple[Path, Path], tmp_path: Path) -> None:
    for recipe, path, kind in (("lincir", data[1], "texts"), ("pic2word", data[0], "pictures")):
        call = ["inversion", "--model", str(model), "--recipe", recipe, "--data", str(path)]
        with pytest.raises(MissingPart, match=f"{recipe} learns from {kind}, and no --data has any"):
            succeed(CliRunner().invoke(fit, [*call, "--out", str(tmp_path / "out")]))


def test_a_model_without_a_tokenizer(data: tuple[Path, Path], tmp_path: Path) -> None:
    bare = towers.write_model(tmp_path / "bare", tokenizer=False)
    call = ["inversion", "--model", str(bare), "--recipe", "lincir", "--data", str(data[0])]
    with pytest.raises(MissingPart, match="a text tower with a tokenizer is needed"):
        succeed(CliRunner().invoke(fit, [*call, "--out", str(tmp_path / "out")]))


def test_a_stored_network_that_differs_is_refused(run: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "run_network", lambda path, vectors: np.ones((len(vectors), 1, 64), np.float32))
    with pytest.raises(Refused, match=r"stored with 8-bit weights has cosine -?\d\.\d+ to the trained one"):
        succeed(run("lincir"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--model", "--into"])
def test_a_bundle_is_no_model_folder(run: Fit, data: tuple[Path, Path], option: str) -> None:
    with pytest.raises(FormatError, match=rf"{option}: .*bundle is a bundle, expected .* is .*bundle/text$"):
        succeed(run("lincir", option, str(data[1])))


def test_a_folder_without_an_image_tower_is_packed_alone(data: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    call = ["concepts", "--model", str(data[1] / "text"), "--names", str(tmp_path / "names.txt")]
    shown = succeed(CliRunner().invoke(fit, [*call, "--out", str(tmp_path / "a b")]))
    assert shown.splitlines()[-1] == (
        f"next: pocketlens pack --gallery BUNDLE/gallery --text '{tmp_path}/a b' --out NEW-BUNDLE"
    )


def test_concepts(model: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\ncat\ntree\ndog\n")
    out = tmp_path / "out"
    call = ["concepts", "--model", str(model), "--names", str(tmp_path / "names.txt"), "--out", str(out)]
    shown = succeed(CliRunner().invoke(fit, [*call, "--source", "a few words", "--json"]))
    assert (shown["count"], shown["source"]) == (3, "a few words")
    assert "3 names" in succeed(CliRunner().invoke(fit, [*call, "--replace", "--into", str(out)]))
    assert verify(out)


def test_help_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom pocketlens_export.fit.cli import fit\n"
        "for call in (['--help'], ['inversion', '--help'], ['concepts', '--help']):\n"
        "    assert CliRunner().invoke(fit, call).exit_code == 0\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_concepts_load_no_torch(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    code = (
        "import sys\nfrom pocketlens_export.fit.cli import fit\n"
        "fit(sys.argv[1:], standalone_mode=False)\nassert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    call = ["concepts", "--model", str(find_model("lens-base")), "--names", str(tmp_path / "names.txt")]
    call += ["--out", str(tmp_path / "out"), "--threads", "1"]
    subprocess.run([sys.executable, "-c", code, *call], check=True, capture_output=True)


def test_lines_of_progress(run: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    from pocketlens_export.fit import console

    monkeypatch.setattr(console, "_LINE_SECONDS", 0.0)
    result = run("lincir")
    succeed(result)
    assert re.search(r"training: 6 of 6, loss \d\.\d{4}, 0\.0 minutes left", result.stderr)
