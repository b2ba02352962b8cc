from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketlens._types import Float32s
from pocketlens.errors import CorruptFile, EncoderMismatch, FormatError, MissingPart
from pocketlens.model import Features, Model
from pocketlens.network import InversionNetwork
from tests.colours import SPACE
from tests.folders import add_inversion, add_isa, edit_json, reshape, rewrite

FEATURES = Features(SPACE.id, 3, 2, 2)


@pytest.fixture
def network(colours: Path, tmp_path: Path) -> tuple[Path, Float32s]:
    """The model with a network of two pseudo-tokens, and its matrix, (4, 8)."""
    folder = Path(shutil.copytree(colours, tmp_path / "own"))
    return folder, add_inversion(folder, "lincir", tokens=2)


def test_pseudo_tokens_are_those_of_the_network(network: tuple[Path, Float32s], rng: np.random.Generator) -> None:
    folder, matrix = network
    vectors = rng.standard_normal((3, 4)).astype(np.float32)
    found = InversionNetwork(Model.open(folder), "lincir", threads=1).invert(vectors)
    assert found.shape == (3, 2, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (vectors @ matrix).reshape(3, 2, 4), atol=1e-6)
    with pytest.raises(FormatError, match=r"lincir\.onnx fails on embedding float32 \(1, 3\)"):
        InversionNetwork(Model.open(folder), "lincir").invert(vectors[:1, :3])


@pytest.mark.parametrize(
    ("value", "shape", "message"),
    [
        ("embedding", ["n", 4, 1], r"embedding has shape \(n, 4, 1\), expected \(any, 4\)"),
        ("embedding", [1, 4], r"embedding has shape \(1, 4\), expected \(any, 4\)"),
    ],
)
def test_a_network_of_other_shapes_is_a_format_error(
    network: tuple[Path, Float32s], value: str, shape: list[str | int], message: str
) -> None:
    folder, _ = network
    reshape(folder / "inversion" / "lincir.onnx", value, shape)
    with pytest.raises(FormatError, match=rf"lincir\.onnx:? {message}|lincir\.onnx is no ONNX graph"):
        InversionNetwork(rewrite(folder, Model.open(folder).manifest), "lincir")


def test_a_network_with_another_number_of_tokens_is_a_format_error(network: tuple[Path, Float32s]) -> None:
    folder, _ = network
    edit_json(folder / "model.json", inversion__lincir__tokens=3)
    with pytest.raises(FormatError, match=r"pseudo_tokens has shape \(n, 2, 4\), expected \(any, 3, 4\)"):
        InversionNetwork(Model.open(folder), "lincir")


def test_a_network_that_is_not_there_says_how_to_make_it(network: tuple[Path, Float32s]) -> None:
    with pytest.raises(MissingPart, match=r"no inversion network 'searle'; .* fit inversion --recipe searle"):
        InversionNetwork(Model.open(network[0]), "searle")


@pytest.fixture
def seeing(colours: Path, tmp_path: Path) -> tuple[Model, Float32s]:
    """The model with a network of its own features, two pseudo-tokens, and its matrix, (12, 8)."""
    folder = Path(shutil.copytree(colours, tmp_path / "seeing"))
    matrix = add_isa(folder, features=FEATURES)
    return Model.open(folder), matrix


def test_pseudo_tokens_of_features(seeing: tuple[Model, Float32s], rng: np.random.Generator) -> None:
    model, matrix = seeing
    features = rng.standard_normal((3, 3, 2, 2)).astype(np.float32)
    for network in (InversionNetwork(model, "isa"), InversionNetwork(model, "isa", image=model)):
        assert network.input_shape == (3, 2, 2)
        np.testing.assert_allclose(
            network.invert(features), (features.reshape(3, 12) @ matrix).reshape(3, 2, 4), atol=1e-6
        )
        assert network.invert(features[:0]).shape == (0, 2, 4)


def test_features_of_another_tower_are_refused_and_both_are_named(seeing: tuple[Model, Float32s]) -> None:
    model, _ = seeing
    assert model.manifest.image is not None
    for given, error, words in (
        (replace(FEATURES, id="other@1"), EncoderMismatch, r"gives those of other@1"),
        (None, MissingPart, r"gives no features"),
    ):
        manifest = replace(model.manifest, image=replace(model.manifest.image, features=given))
        other = Model(Path("light"), manifest)
        way = rf"seeing/inversion/isa\.onnx was trained on the features of colours@0+, and light: model colours {words}"
        with pytest.raises(error, match=way):
            InversionNetwork(model, "isa", image=other)


@pytest.mark.parametrize("shape", [["n", 3, 2, "w"], ["n", "c", 2, 2]])
def test_a_network_of_features_says_of_what_size(seeing: tuple[Model, Float32s], shape: list[str | int]) -> None:
    model, _ = seeing
    reshape(model.path / "inversion" / "isa.onnx", "features", shape)
    signed = rewrite(model.path, model.manifest)
    with pytest.raises(FormatError, match=r"expected \(any, a number, a number, a number\)"):
        InversionNetwork(signed, "isa")


def test_a_network_of_features_of_another_size_is_a_format_error(seeing: tuple[Model, Float32s]) -> None:
    model, _ = seeing
    assert model.manifest.image is not None
    larger = replace(model.manifest.image, features=replace(FEATURES, width=3))
    with pytest.raises(FormatError, match=r"features has shape \(n, 3, 2, 2\), expected \(any, 3, 2, 3\)"):
        InversionNetwork(model, "isa", image=Model(model.path, replace(model.manifest, image=larger)))


def test_a_network_of_features_that_is_not_there_says_how_to_make_it(network: tuple[Path, Float32s]) -> None:
    with pytest.raises(MissingPart, match=r"no inversion network 'isa'; make one with pocketlens fit token-learner"):
        InversionNetwork(Model.open(network[0]), "isa")


def test_a_damaged_network_is_found_before_it_is_opened(network: tuple[Path, Float32s]) -> None:
    path = network[0] / "inversion" / "lincir.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptFile, match=r"lincir\.onnx is damaged"):
        InversionNetwork(Model.open(network[0]), "lincir")
