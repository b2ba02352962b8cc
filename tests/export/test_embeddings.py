from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from pocketlens._types import Float32s
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import FormatError, MissingPart
from pocketlens.model import Model
from pocketlens_export.embeddings import VectorStore, encode_pictures, encode_texts
from tests.folders import edit_json, sign

NAMES = ("blue.png", "green.png", "more/red copy.png", "white.png")  # of equal files the first by name


class Heard:
    """Remembers how many things were encoded."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        assert 1 <= done <= total
        if "encoding" in stage:
            self.totals[stage] = total

    @property
    def encoded(self) -> int:
        return sum(self.totals.values())


def change_graph(folder: Path, name: str, factors: list[float]) -> None:
    """Multiply the rows of a constant of the image tower, and sign the folder again."""
    path = folder / "image.onnx"
    graph = onnx.load(str(path))
    for tensor in graph.graph.initializer:
        if tensor.name == name:
            changed = numpy_helper.to_array(tensor) * np.array(factors, dtype=np.float32)[:, np.newaxis]
            tensor.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), name))
    onnx.save(graph, str(path))
    sign(folder / "model.json")


@pytest.fixture
def folder(tmp_path: Path, pictures: Path) -> Path:
    """A copy of the pictures that may be changed."""
    return shutil.copytree(pictures, tmp_path / "pictures")


def expected(model: Path, files: list[Path]) -> Float32s:
    return ImageEncoder(Model.open(model)).encode(files)


def test_vectors_of_the_different_pictures(colours: Path, pictures: Path, tmp_path: Path) -> None:
    heard = Heard()
    found = encode_pictures(Model.open(colours), pictures, cache=tmp_path, progress=heard)
    assert found.ids == NAMES
    assert found.paths == tuple(pictures / name for name in NAMES)
    np.testing.assert_array_equal(found.vectors, expected(colours, list(found.paths)))
    assert (found.duplicates, found.skipped) == (1, {"not a picture": 1, "truncated": 1})
    assert len(set(found.sha256)) == 4
    assert heard.encoded == 6  # four pictures, a broken one and a text


def test_nothing_is_encoded_twice(colours: Path, folder: Path, tmp_path: Path) -> None:
    model, cache = Model.open(colours), tmp_path / "cache"
    first = encode_pictures(model, folder, cache=cache, progress=Heard())
    heard = Heard()
    again = encode_pictures(model, folder, cache=cache, progress=heard)
    np.testing.assert_array_equal(again.vectors, first.vectors)
    assert heard.encoded == 2  # what cannot be read is looked at again
    assert (again.ids, again.duplicates, again.skipped) == (first.ids, first.duplicates, first.skipped)


def test_a_changed_picture_is_encoded_again(colours: Path, folder: Path, tmp_path: Path) -> None:
    model, cache = Model.open(colours), tmp_path / "cache"
    encode_pictures(model, folder, cache=cache, progress=Heard())
    Image.new("RGB", (40, 30), (200, 200, 20)).save(folder / "green.png")
    heard = Heard()
    found = encode_pictures(model, folder, cache=cache, progress=heard)
    assert heard.encoded == 3
    np.testing.assert_array_equal(found.vectors, expected(colours, list(found.paths)))
    assert found.vectors[1, 0] > 0.6


@pytest.mark.parametrize("change", ["graph", "picture spec"])
def test_a_changed_model_encodes_again(colours: Path, folder: Path, tmp_path: Path, change: str) -> None:
    cache = tmp_path / "cache"
    before = encode_pictures(Model.open(colours), folder, cache=cache, progress=Heard())
    other = shutil.copytree(colours, tmp_path / "other")
    if change == "graph":
        change_graph(other, "weights", [3, 1, 1])
    else:
        edit_json(other / "model.json", image__mode="squash")
    heard = Heard()
    found = encode_pictures(Model.open(other), folder, cache=cache, progress=heard)
    assert heard.encoded == 6
    np.testing.assert_array_equal(found.vectors, expected(other, list(found.paths)))
    assert (found.vectors != before.vectors).any() == (change == "graph")  # the pictures are of one colour each


def test_a_broken_cache_is_made_again(colours: Path, pictures: Path, tmp_path: Path) -> None:
    model = Model.open(colours)
    first = encode_pictures(model, pictures, cache=tmp_path, progress=Heard())
    (kept,) = tmp_path.rglob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    heard = Heard()
    again = encode_pictures(model, pictures, cache=tmp_path, progress=heard)
    assert heard.encoded == 6
    np.testing.assert_array_equal(again.vectors, first.vectors)


def test_several_folders(colours: Path, folder: Path, pictures: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), (90, 0, 90)).save(folder / "violet.png")
    found = encode_pictures(Model.open(colours), [pictures, folder], cache=tmp_path / "cache", progress=Heard())
    first, second = pictures.name, folder.name
    assert found.ids == (*(f"{first}/{name}" for name in NAMES), f"{second}/violet.png")
    assert found.duplicates == 1 + 5
    assert len({prefix.split("/")[0] for prefix in found.ids}) == 2


def test_folders_of_one_name(colours: Path, pictures: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number) / "photos").mkdir(parents=True)
        Image.new("RGB", (9, 9), (90 * number, 0, 90)).save(tmp_path / str(number) / "photos" / "a.png")
    folders = [tmp_path / str(number) / "photos" for number in (1, 2)]
    found = encode_pictures(Model.open(colours), folders, cache=tmp_path / "cache", progress=Heard())
    assert found.ids == ("photos/a.png", "photos (2)/a.png")


def test_a_tower_that_gives_nan(colours: Path, pictures: Path, tmp_path: Path) -> None:
    other = shutil.copytree(colours, tmp_path / "other")
    change_graph(other, "weights", [float("nan"), 1, 1])
    with pytest.raises(
        FormatError, match=r"the tower gives NaN or infinity for 'blue\.png', expected a vector of length 1"
    ):
        encode_pictures(Model.open(other), pictures, cache=tmp_path, progress=Heard())


def test_folders_that_do_not_do(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    model = Model.open(colours)
    with pytest.raises(FormatError, match="empty: no picture could be read, of 1 files"):
        encode_pictures(model, tmp_path / "empty", cache=tmp_path / "cache", progress=Heard())
    with pytest.raises(FormatError, match="is not a folder; expected a folder of pictures"):
        encode_pictures(model, tmp_path / "none", cache=tmp_path / "cache", progress=Heard())
    text_alone = shutil.copytree(colours, tmp_path / "text")
    edit_json(text_alone / "model.json", image=None)
    with pytest.raises(MissingPart, match="has no image tower"):
        encode_pictures(Model.open(text_alone), tmp_path, cache=tmp_path / "cache", progress=Heard())


def test_texts(colours: Path, tmp_path: Path) -> None:
    model, heard = Model.open(colours), Heard()
    texts = ["red", "a green", "red", "", "blue red a white"]
    found = encode_texts(model, texts, cache=tmp_path, progress=heard)
    np.testing.assert_array_equal(found, TextEncoder(model).encode(texts))
    assert heard.encoded == 4
    heard = Heard()
    np.testing.assert_array_equal(encode_texts(model, ["", "white"], cache=tmp_path, progress=heard)[:1], found[3:4])
    assert heard.encoded == 1


def test_store_by_another_maker_is_another_file(tmp_path: Path, rng: np.random.Generator) -> None:
    vector = rng.standard_normal(3).astype(np.float32)
    store = VectorStore(tmp_path, ["a"], 3)
    store.add(["0" * 64], vector[np.newaxis], ["a"])
    store.save()
    np.testing.assert_array_equal(VectorStore(tmp_path, ["a"], 3).vectors(["0" * 64]), vector[np.newaxis])
    assert "0" * 64 not in VectorStore(tmp_path, ["b"], 3)
    assert "0" * 64 not in VectorStore(tmp_path, ["a"], 4)
