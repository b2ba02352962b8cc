from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketlens.compose import METHODS, Kit, missing
from pocketlens.decoders import DEVICE
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import BadImage, CorruptFile, MissingPart
from pocketlens.gallery import Gallery
from pocketlens.ingredients import CACHED, Ingredients
from pocketlens.model import Model
from pocketlens.needs import has_need, measured_figures
from pocketlens.picture import Picture
from tests.folders import add_concepts, add_inversion, flip


class CountingEncoder(TextEncoder):
    """The real encoder, noting how many texts each run of the graph had."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, threads=1)
        self.runs: list[int] = []

    def encode_ids(self, ids: np.ndarray, pseudo_tokens: np.ndarray | None = None) -> np.ndarray:
        self.runs.append(len(ids))
        return super().encode_ids(ids, pseudo_tokens)


@pytest.fixture
def model(colours: Path, tmp_path: Path) -> Model:
    folder = Path(shutil.copytree(colours, tmp_path / "model"))
    add_inversion(folder, "lincir", tokens=2)
    add_concepts(folder, ["red", "green", "blue"], np.eye(3, 4, dtype=np.float32))
    return Model.open(folder)


@pytest.fixture
def gallery(bundle: Path) -> Gallery:
    return Gallery.open(bundle / "gallery")


@pytest.fixture
def encoder(model: Model) -> CountingEncoder:
    return CountingEncoder(model)


@pytest.fixture
def kit(gallery: Gallery, model: Model, encoder: CountingEncoder) -> Ingredients:
    return Ingredients(gallery, model, lambda: encoder, image=None, threads=1)


def test_it_is_a_kit_of_this_bundle(kit: Ingredients, gallery: Gallery) -> None:
    as_kit: Kit = kit
    rows = gallery.index.vectors()
    np.testing.assert_allclose(as_kit.mean, rows.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(as_kit.covariance, np.cov(rows.T, bias=True), atol=1e-3)
    assert as_kit.concepts.names == ("red", "green", "blue")
    assert kit.concepts is kit.concepts
    best = np.argsort(-(rows @ rows[1]))[:2]
    np.testing.assert_array_equal(kit.nearest(3 * rows[1], 2), rows[best])
    assert kit.nearest(rows[1], 100).shape == rows.shape


def test_texts_are_encoded_once_and_together(kit: Ingredients, encoder: CountingEncoder) -> None:
    first = kit.encode_texts(["red", "a blue", "red"])
    assert encoder.runs == [2]
    np.testing.assert_allclose(first[1], TextEncoder(Model.open(kit._opened_model().path)).encode(["a blue"])[0])
    again = kit.encode_texts(["a blue", "green", "red"])
    assert encoder.runs == [2, 1]
    np.testing.assert_array_equal(again[[2, 0]], first[[0, 1]])
    again[:] = 0  # what is handed out is a copy
    np.testing.assert_array_equal(kit.encode_texts(["red"])[0], first[0])


def test_prompts_are_remembered_by_their_pseudo_tokens(kit: Ingredients, encoder: CountingEncoder) -> None:
    pseudo = kit.invert("lincir", np.array([0.6, 0.8, 0, 0], dtype=np.float32))
    prompts = ["a $", "$ and $", "red", "$"]
    found = kit.encode_prompts(prompts, pseudo)
    assert encoder.runs == [1, 2, 1]  # one run for each number of $
    for prompt, vector in zip(prompts, found, strict=True):
        np.testing.assert_allclose(encoder.encode_prompts([prompt], pseudo)[0], vector, atol=1e-6)
    runs = len(encoder.runs)
    np.testing.assert_array_equal(kit.encode_prompts(prompts, pseudo.copy()), found)
    assert len(encoder.runs) == runs
    kit.encode_prompts(["a $"], pseudo + 1)
    assert len(encoder.runs) == runs + 1


def test_the_vector_used_least_recently_is_forgotten(kit: Ingredients, encoder: CountingEncoder) -> None:
    kit.encode_texts(["red"])
    kit.encode_texts([f"text {number}" for number in range(CACHED - 1)])
    kit.encode_texts(["red", "one more"])  # red is now the newest but one
    runs = len(encoder.runs)
    kit.encode_texts(["red"])
    assert len(encoder.runs) == runs
    kit.encode_texts(["text 0"])
    assert len(encoder.runs) == runs + 1
    many = [f"other {number}" for number in range(2 * CACHED)]
    assert kit.encode_texts(many).shape == (2 * CACHED, 4)
    assert len(kit._cache._vectors) == CACHED


def test_pictures_are_known_by_their_bytes(kit: Ingredients, tmp_path: Path) -> None:
    calls: list[object] = []

    def make(value: float) -> Callable[[Picture], np.ndarray]:
        def encode(picture: Picture) -> np.ndarray:
            calls.append(picture)
            path.write_bytes(b"three")  # what is written meanwhile is another picture
            return np.full(4, value, dtype=np.float32)

        return encode

    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    assert kit.encode_picture(path, make(1)).tolist() == [1] * 4
    assert kit.encode_picture(b"one", make(2)).tolist() == [1] * 4
    path.write_bytes(b"two")
    assert kit.encode_picture(str(path), make(3)).tolist() == [3] * 4
    assert calls == [b"one", b"two"]
    image = Image.new("RGB", (1, 1))
    assert kit.encode_picture(image, make(4)).tolist() == [4] * 4
    assert calls[2:] == [image]


def test_only_a_regular_file_of_bounded_size_is_read(kit: Ingredients, tmp_path: Path) -> None:
    def encode(picture: Picture) -> np.ndarray:
        raise AssertionError("nothing is encoded")

    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(DEVICE.file_bytes + 1)  # takes no room on the disk
    cases: dict[str | Path, str] = {
        **dict.fromkeys(("/dev/zero", pipe, tmp_path), "no regular file"),
        large: "20000001 bytes, expected at most 20000000",
        tmp_path / "nothing": "No such file",
        "a\0b": "",
        "\ud800": "",
    }
    for path, reason in cases.items():
        with pytest.raises(BadImage, match=re.escape(f"{path}: cannot be read as a picture: {reason}")):
            kit.encode_picture(path, encode)


def test_a_file_that_is_no_picture_is_named(kit: Ingredients, model: Model, tmp_path: Path) -> None:
    path, encoder = tmp_path / "a.png", ImageEncoder(model)
    path.write_bytes(b"GIF89a")
    for picture, name in ((path, str(path)), (b"GIF89a", "<6 bytes>")):
        with pytest.raises(BadImage, match=re.escape(f"{name}: cannot be read as a picture: ")):
            kit.encode_picture(picture, lambda picture: encoder.encode([picture])[0])


def test_what_is_remembered_is_small(kit: Ingredients, encoder: CountingEncoder) -> None:
    long = "red " * 5_000
    found = kit.encode_texts([long, "red"])
    vectors = kit._cache._vectors
    assert all(vector.base is None for vector in vectors.values())  # a view would keep the batch
    np.testing.assert_array_equal(kit.encode_texts([long[:4_096] + "blue"])[0], found[0])  # cut before it
    assert encoder.runs == [2]
    kit.encode_prompts(["a $ " + long, "a $ " + long + "$"], np.ones((1, 4), dtype=np.float32))
    assert encoder.runs == [2, 1]
    assert len(repr(list(vectors))) < 10_000  # two long texts, cut


def test_inverting_equals_the_network(kit: Ingredients, model: Model) -> None:
    vector = np.array([0, 1, 0, 0], dtype=np.float32)
    assert kit.invert("lincir", vector).shape == (2, 4)
    with pytest.raises(MissingPart, match="no inversion network 'searle'"):
        kit.invert("searle", vector)


def test_what_is_not_there_says_how_to_make_it(gallery: Gallery, bundle: Path, encoder: CountingEncoder) -> None:
    plain = Ingredients(gallery, Model.open(bundle / "text"), lambda: encoder, image=None, threads=1)
    with pytest.raises(
        MissingPart, match=r"no vocabulary \(concepts\.npz\); make one with pocketlens fit concepts, then .* pack"
    ):
        _ = plain.concepts
    without = Ingredients(gallery, None, lambda: encoder, image=None, threads=1)
    with pytest.raises(MissingPart, match="no text tower, so it has neither names nor inversion networks"):
        _ = without.concepts
    with pytest.raises(MissingPart, match="no text tower"):
        without.invert("lincir", np.ones(4, dtype=np.float32))


def test_a_damaged_vocabulary_is_found_before_it_is_read(kit: Ingredients, model: Model) -> None:
    flip(model.path / "concepts.npz", 40)
    with pytest.raises(CorruptFile, match=r"concepts\.npz is damaged"):
        _ = kit.concepts


def test_many_threads_get_the_vectors_of_one(kit: Ingredients) -> None:
    texts = [f"a red {number % 40}" for number in range(400)]
    expected = kit.encode_texts(texts)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: kit.encode_texts([text])[0], texts))
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-6)


def test_needs_are_those_of_the_manifest(model: Model, bundle: Path) -> None:
    manifest = model.manifest
    assert manifest.text is not None
    needs = ("concepts", "inversion/lincir", "inversion/searle", "other")
    assert [has_need(manifest, None, need) for need in needs] == [True, True, False, False]
    unread = replace(manifest, text=replace(manifest.text, tokenizer=None))
    for nothing in (None, unread, Model.open(bundle / "text").manifest):
        assert not has_need(nothing, None, "concepts") and not has_need(nothing, None, "inversion/lincir")
    lacking = [name for name, method in METHODS.items() if missing(method, lambda need: has_need(manifest, None, need))]
    assert lacking == ["pic2word", "searle", "isa", "pdv-pic2word", "pdv-searle", "pdv-isa"]


def test_figures_are_read_by_method_and_a_new_one_replaces_that_of_float32(model: Model) -> None:
    quality = {
        "float_composed_product_map_at_10": 0.2, "float_composed_pdv_lincir_map_at_10": 0.3,
        "composed_pdv_lincir_map_at_10": 0.29, "composed_sum_recall_at_10": 0.9, "text_bytes": 3.0,
    }  # fmt: skip
    assert measured_figures(replace(model.manifest, quality=quality)) == {"product": 0.2, "pdv-lincir": 0.29}
    assert measured_figures(None) == {}
