from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlens import model as model_module
from pocketlens.errors import CorruptFile, FormatError
from pocketlens.files import sha256_of
from pocketlens.inspect import verify
from pocketlens.model import Model, find_model, shipped_models
from tests.folders import add_concepts, add_inversion, edit_json, files_below, flip, positions


@pytest.fixture
def own(colours: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may change."""
    return Path(shutil.copytree(colours, tmp_path / "own"))


def test_opening_reads_the_manifest_and_no_other_file(own: Path) -> None:
    for name in files_below(own):
        if name != "model.json":
            (own / name).unlink()
    manifest = Model.open(own).manifest
    assert manifest.name == "colours"
    assert manifest.text is not None
    assert manifest.text.context_length == 6


def test_a_file_is_hashed_once_when_first_asked_for(own: Path) -> None:
    model = Model.open(own)
    assert model.file("text.onnx") == own / "text.onnx"
    flip(own / "text.onnx", 9)
    assert model.file("text.onnx") == own / "text.onnx"  # already open, as far as this object knows
    with pytest.raises(CorruptFile, match=r"text\.onnx is damaged"):
        Model.open(own).file("text.onnx")


def test_one_flipped_bit_in_any_file_is_found_by_verify(own: Path, rng: Any) -> None:
    for name in ("text.onnx", "image.onnx", "tokenizer.json", "golden.npz"):
        content = (own / name).read_bytes()
        for position in positions(len(content), rng):
            flip(own / name, position)
            with pytest.raises(CorruptFile, match=f"{name} is damaged: found sha256"):
                verify(own)
            (own / name).write_bytes(content)
    verify(own)


def test_a_manifest_other_than_the_vouched_one_is_corrupt(own: Path) -> None:
    sha256 = sha256_of(own / "model.json")
    Model.open(own, manifest_sha256=sha256)
    edit_json(own / "model.json", name="other")
    with pytest.raises(CorruptFile, match=f"model.json is damaged: found sha256 .* expected {sha256[:16]}"):
        Model.open(own, manifest_sha256=sha256)


@pytest.mark.parametrize(
    "name",
    [
        "../text.onnx",
        "/etc/passwd",
        "a/../b",
        "..",
        ".",
        "",
        "a/b/c",
        "a\\b",
        ".hidden",
        "a//b",
        "a/",
        "a\n",
        "C:x",
        "ä",
    ],
)
def test_a_name_that_could_leave_the_folder_is_refused(own: Path, name: str) -> None:
    data = json.loads((own / "model.json").read_text())
    data["files"][name] = data["files"]["text.onnx"]
    data["text"]["file"] = name
    (own / "model.json").write_text(json.dumps(data))
    with pytest.raises(FormatError) as caught:
        Model.open(own)
    assert str(caught.value) == f"{own / 'model.json'}: files: {name!r} is not a plain relative file name"


@pytest.mark.parametrize("name", ["text.onnx", "image.onnx", "tokenizer.json", "golden.npz"])
def test_a_needed_file_that_is_not_listed_is_named(own: Path, name: str) -> None:
    data = json.loads((own / "model.json").read_text())
    del data["files"][name]
    (own / "model.json").write_text(json.dumps(data))
    with pytest.raises(FormatError, match=f"model.json: files: '{name}' is missing, but the folder needs it"):
        Model.open(own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": None, "image": None}, "text and image are both null, expected at least one tower"),
        ({"text__placeholder_id": -2}, "text.placeholder_id is -2, expected -1"),
        ({"text__pooling": "max"}, "text.pooling is \"max\", expected one of 'end', 'last', 'mean', 'first'"),
        ({"text__clean": None}, "text.clean is null, expected one of 'lower', 'whitespace', 'canonicalize'"),
        ({"text__trim": 1}, "text.trim is 1, expected a value of type bool"),
        ({"image__mode": "longest"}, "image.mode is \"longest\", expected one of 'shortest', 'squash'"),
        ({"image__side": 8.0}, "image.side is 8.0, expected a value of type int"),
        ({"image__side": 0}, "image.side is 0, expected 1 to 4096"),
        ({"image__side": 5000}, "image.side is 5000, expected 1 to 4096"),
        (
            {"image__features": {"id": "x", "channels": 0, "height": 7, "width": 7}},
            "image.features.channels is 0, expected 1 to 65536",
        ),
        (
            {"image__features": {"id": "x", "channels": 3, "height": 0, "width": 7}},
            "image.features.height is 0, expected 1 to 4096",
        ),
        (
            {"image__features": {"id": "x", "channels": 3, "height": 7, "width": 5000}},
            "image.features.width is 5000, expected 1 to 4096",
        ),
        ({"text__context_length": 1}, "text.context_length is 1, expected 2 to 65536"),
        ({"space__dim": 0}, "space.dim is 0, expected 1 to 65536"),
        ({"space__dim": "4"}, 'space.dim is "4", expected a value of type int'),
        ({"concepts": {"file": "x", "count": 1}}, "concepts: field 'source' is missing"),
        ({"inversion": {"x": {"file": "x"}}}, "inversion.x: field 'precision' is missing"),
        ({"quality": {"recall": None}}, "quality.recall is null, expected a number"),
        ({"version": 2}, "version is 2; this pocketlens reads version 1"),
        ({"format": "pocketlens-gallery"}, "format is 'pocketlens-gallery', expected 'pocketlens-model'"),
    ],
)
def test_a_wrong_field_is_named(own: Path, changes: dict[str, Any], message: str) -> None:
    edit_json(own / "model.json", **changes)
    with pytest.raises(FormatError) as caught:
        Model.open(own)
    assert str(caught.value) == f"{own / 'model.json'}: {message}"


@pytest.fixture
def composing(own: Path, rng: np.random.Generator) -> Path:
    """The model with two inversion networks and three names."""
    add_inversion(own, "lincir")
    add_inversion(own, "searle", tokens=3)
    vectors = rng.standard_normal((3, 4)).astype(np.float32)
    add_concepts(own, ["red", "a cat", "größe"], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return own


def test_networks_and_names_belong_to_the_text_tower(composing: Path) -> None:
    manifest = Model.open(composing).manifest
    assert manifest.concepts is not None and manifest.concepts.count == 3
    assert {recipe: network.tokens for recipe, network in manifest.inversion.items()} == {"lincir": 1, "searle": 3}
    text, image = manifest.only("text"), manifest.only("image")
    assert sorted(text.files) == [
        "concepts.npz", "golden.npz", "inversion/lincir.onnx", "inversion/searle.onnx", "text.onnx", "tokenizer.json",
    ]  # fmt: skip
    assert (text.inversion, text.concepts) == (manifest.inversion, manifest.concepts)
    assert (image.inversion, image.concepts, sorted(image.files)) == ({}, None, ["golden.npz", "image.onnx"])


@pytest.mark.parametrize("name", ["inversion/lincir.onnx", "concepts.npz"])
def test_a_network_or_names_that_are_not_listed_are_named(composing: Path, name: str) -> None:
    data = json.loads((composing / "model.json").read_text())
    del data["files"][name]
    (composing / "model.json").write_text(json.dumps(data))
    with pytest.raises(FormatError, match=f"model.json: files: '{name}' is missing, but the folder needs it"):
        Model.open(composing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inversion__lincir__tokens": 0}, "inversion.lincir.tokens is 0, expected 1 to 16"),
        ({"inversion__lincir__tokens": 17}, "inversion.lincir.tokens is 17, expected 1 to 16"),
        (
            {"inversion__lincir__input": "pixels"},
            "inversion.lincir.input is \"pixels\", expected one of 'embedding', 'features'",
        ),
        (
            {"inversion__lincir__features_id": "light@0"},
            "inversion.lincir.features_id is \"light@0\", expected null: input is 'embedding'",
        ),
        (
            {"inversion__lincir__input": "features"},
            "inversion.lincir.features_id is null, expected whose features they are: input is 'features'",
        ),
        ({"inversion__lincir__seed": None}, "inversion.lincir.seed is null, expected a value of type int"),
        ({"concepts__count": 0}, "concepts.count is 0, expected 1 to 16777216"),
        ({"text": None}, "inversion is given, but text is null; both belong to a text tower"),
        ({"text": None, "inversion": {}}, "concepts is given, but text is null; both belong to a text tower"),
    ],
)
def test_a_wrong_field_of_a_network_or_of_names_is_named(
    composing: Path, changes: dict[str, Any], message: str
) -> None:
    edit_json(composing / "model.json", **changes)
    with pytest.raises(FormatError) as caught:
        Model.open(composing)
    assert str(caught.value) == f"{composing / 'model.json'}: {message}"


@pytest.mark.parametrize("recipe", ["", "LinCIR", "a b", "a/b", "a\n", "ä"])
def test_a_recipe_is_a_plain_name(composing: Path, recipe: str) -> None:
    data = json.loads((composing / "model.json").read_text())
    data["inversion"][recipe] = data["inversion"]["lincir"]
    (composing / "model.json").write_text(json.dumps(data))
    with pytest.raises(FormatError, match=r"is no recipe's name, expected lower-case letters and digits"):
        Model.open(composing)


def test_one_tower_keeps_what_it_needs(colours: Path) -> None:
    manifest = Model.open(colours).manifest
    text, image = manifest.only("text"), manifest.only("image")
    assert (text.image, image.text) == (None, None)
    assert sorted(text.files) == ["golden.npz", "text.onnx", "tokenizer.json"]
    assert sorted(image.files) == ["golden.npz", "image.onnx"]
    with pytest.raises(FormatError, match="model colours has no text tower"):
        image.only("text")


def test_a_model_is_found_by_path_or_by_the_name_it_ships_under(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_model(str(colours)) == colours
    package = tmp_path / "runtime" / "pocketlens"
    for folder in (package / "models" / "in-wheel", tmp_path / "models" / "in-checkout" / "model"):
        shutil.copytree(colours, folder)
    (package / "models" / "no-model").mkdir()
    monkeypatch.setattr(model_module, "__file__", str(package / "model.py"))
    assert shipped_models() == {
        "in-wheel": package / "models" / "in-wheel",
        "in-checkout": tmp_path / "models" / "in-checkout" / "model",
    }
    assert Model.open(find_model("in-checkout")).manifest.name == "colours"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in-wheel").mkdir()  # happens to have the name of a model, and is none
    assert find_model("in-wheel") == package / "models" / "in-wheel"
    (tmp_path / "in-wheel" / "model.json").write_bytes(b"")
    assert find_model("in-wheel") == Path("in-wheel")
    with pytest.raises(FormatError, match=r"nonsense: neither a model folder nor .* \(in-checkout, in-wheel\)"):
        find_model("nonsense")
