from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pocketlens.errors import FormatError
from pocketlens.inspect import verify
from pocketlens.model import Model
from pocketlens_export.fit.seal import seal
from pocketlens_export.tokens.join import join_towers
from tests.export.tokens.models import write_towers
from tests.folders import add_inversion, edit_json, sign


@pytest.fixture
def words(tmp_path: Path) -> Model:
    folder = write_towers(tmp_path / "words", seed=2)
    add_inversion(folder, "lincir")
    edit_json(
        folder / "model.json",
        licence="B",
        quality={"parity_text_min_cosine": 0.9, "parity_image_min_cosine": 0.8, "inversion_lincir_text_cosine": 0.7,
                 "float_text_recall": 0.6, "composed_lincir_map_at_10": 0.5},
    )  # fmt: skip
    sign(folder / "model.json")
    return Model.open(folder)


def test_a_joined_folder_answers_as_its_two_parts(words: Model, light: Model, tmp_path: Path) -> None:
    joined = tmp_path / "joined"
    joined.mkdir()
    seal(joined, join_towers(words, light, joined))
    verify(joined)
    made = Model.open(joined).manifest
    assert (made.name, made.licence) == ("towers-1-with-towers-2", "text: B; image: Apache-2.0")
    assert (made.text, made.image) == (words.manifest.text, light.manifest.image)
    assert made.inversion == words.manifest.inversion and made.space == words.manifest.space
    assert set(made.files) == {
        "text.onnx", "image.onnx", "tokenizer.json", "golden.npz", "inversion/lincir.onnx"
    }  # fmt: skip
    for name, model in (("text.onnx", words), ("image.onnx", light)):
        assert (joined / name).read_bytes() == (model.path / name).read_bytes()


def test_figures_come_from_the_tower_that_they_are_of(words: Model, light: Model, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.mkdir()
    edited = dataclasses.replace(
        light.manifest,
        quality={"parity_image_min_cosine": 0.99, "parity_text_min_cosine": 0.1, "asymmetric_recall_at_1": 0.4},
    )
    found = join_towers(words, Model(light.path, edited), path).quality
    assert found == {
        "parity_text_min_cosine": 0.9, "inversion_lincir_text_cosine": 0.7, "float_text_recall": 0.6,
        "parity_image_min_cosine": 0.99, "asymmetric_recall_at_1": 0.4,
    }  # fmt: skip


def test_golden_values_are_of_both(words: Model, light: Model, tmp_path: Path) -> None:
    joined = tmp_path / "joined"
    joined.mkdir()
    join_towers(words, light, joined)
    found, text, image = (dict(np.load(folder / "golden.npz")) for folder in (joined, words.path, light.path))
    np.testing.assert_array_equal(found["text_embedding"], text["text_embedding"])
    np.testing.assert_array_equal(found["image_embedding"], image["image_embedding"])
    assert not np.array_equal(image["image_embedding"], text["image_embedding"])


def test_a_model_without_a_tokenizer_can_be_joined_with(words: Model, light: Model, tmp_path: Path) -> None:
    manifest = words.manifest
    assert manifest.text is not None
    mute = Model(words.path, dataclasses.replace(manifest, text=dataclasses.replace(manifest.text, tokenizer=None)))
    joined = tmp_path / "joined"
    joined.mkdir()
    seal(joined, join_towers(mute, light, joined))
    verify(joined)
    assert not (joined / "tokenizer.json").exists()


def test_files_of_one_name_are_refused(words: Model, light: Model, tmp_path: Path) -> None:
    image = light.manifest.image
    assert image is not None
    clash = dataclasses.replace(
        light.manifest,
        image=dataclasses.replace(image, file="text.onnx"),
        files={**light.manifest.files, "text.onnx": light.manifest.files["image.onnx"]},
    )
    with pytest.raises(FormatError, match=r"both have a file text\.onnx"):
        join_towers(words, Model(light.path, clash), tmp_path)
