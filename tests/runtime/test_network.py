from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketlens._types import Float32s
from pocketlens.errors import CorruptFile, FormatError, MissingPart
from pocketlens.model import Model
from pocketlens.network import InversionNetwork
from tests.folders import add_inversion, edit_json, reshape, rewrite


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


def test_a_damaged_network_is_found_before_it_is_opened(network: tuple[Path, Float32s]) -> None:
    path = network[0] / "inversion" / "lincir.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptFile, match=r"lincir\.onnx is damaged"):
        InversionNetwork(Model.open(network[0]), "lincir")
