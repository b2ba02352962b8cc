from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pocketlens
from pocketlens.bench import measure
from pocketlens.graph import default_threads
from pocketlens.inspect import verify
from pocketlens.model import Space
from pocketlens_export.gallery.build import pack_bundle
from tests.colours import expected_picture, expected_text, write_colours
from tests.conftest import COLOURS
from tests.folders import edit_json


@pytest.mark.parametrize("colour", COLOURS)
def test_a_text_finds_the_picture_it_names(bundle: Path, colour: str) -> None:
    with pocketlens.open(bundle) as lens:
        assert lens.search(text=f"a {colour}", k=1)[0].id in (f"{colour}.png", "more/red copy.png")


def test_a_picture_finds_itself_and_its_copy_first(bundle: Path, pictures: Path) -> None:
    with pocketlens.open(bundle) as lens:
        hits = lens.search(image=pictures / "red.png", k=3)
    assert [hit.id for hit in hits[:2]] == ["more/red copy.png", "red.png"]
    assert hits[0].cosine == hits[1].cosine == pytest.approx(1.0, abs=1e-3)
    assert (hits[0].width, hits[0].height) == (40, 30)


def test_cosine_and_z_equal_numpy(bundle: Path) -> None:
    stored = expected_picture(np.array([[[c]] for c in COLOURS.values()], dtype=np.uint8))
    query = expected_text(np.array([[4]]))[0]
    cosines = stored @ query
    with pocketlens.open(bundle) as lens:
        hits = {hit.id: hit for hit in lens.search(text="red", k=10)}
    for name, cosine in zip(COLOURS, cosines, strict=True):
        assert hits[f"{name}.png"].cosine == pytest.approx(cosine, abs=2e-3)
        z = (cosine - cosines.mean()) / cosines.std()
        assert hits[f"{name}.png"].z == pytest.approx(z, abs=2e-2)


def test_text_and_picture_together_are_the_sum_of_unit_vectors(bundle: Path, pictures: Path) -> None:
    with pocketlens.open(bundle) as lens:
        vector = lens.encode(text="green", image=pictures / "red.png")
        total = lens.encode(text="green") + lens.encode(image=pictures / "red.png")
    np.testing.assert_allclose(vector, total / np.linalg.norm(total), atol=1e-6)


def test_a_text_query_opens_only_the_text_tower(bundle: Path) -> None:
    with pocketlens.open(bundle) as lens:
        lens.search(text="red")
        assert lens._towers.text_encoder is not None
        assert lens._towers.image_encoder is None


def test_a_tower_is_opened_once(bundle: Path) -> None:
    with pocketlens.open(bundle) as lens:
        assert lens.text_encoder() is lens.text_encoder()
        assert lens.image_encoder() is lens.image_encoder()


def test_fewer_items_than_k_give_all_items_once(bundle: Path) -> None:
    with pocketlens.open(bundle) as lens:
        ids = [hit.id for hit in lens.search(text="red", k=1000)]
    assert sorted(ids) == ["blue.png", "green.png", "more/red copy.png", "red.png", "white.png"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "found neither"),
        ({"text": ""}, "the text is empty"),
        ({"text": " \n"}, "the text is empty"),
        ({"text": 3}, "must be a str, found int"),
        ({"image": 3}, "bytes, a path or a PIL image, found int"),
        ({"text": "red", "k": 0}, "k is 0, expected an integer from 1 to 1000"),
        ({"text": "red", "k": -1}, "k is -1"),
        ({"text": "red", "k": 1001}, "k is 1001"),
        ({"text": "red", "k": True}, "k is True"),
    ],
)
def test_a_wrong_query_is_a_bad_query(bundle: Path, query: dict[str, object], message: str) -> None:
    with pocketlens.open(bundle) as lens, pytest.raises(pocketlens.BadQuery, match=message):
        lens.search(**query)  # type: ignore[arg-type]


@pytest.mark.parametrize("vector", [[np.nan, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0], [[1, 0, 0, 0]]])
def test_a_wrong_vector_is_a_bad_query(bundle: Path, vector: list[float]) -> None:
    with pocketlens.open(bundle) as lens, pytest.raises(pocketlens.BadQuery):
        lens.search_vector(np.array(vector, dtype=np.float32))


def test_a_bundle_without_a_tower_says_so(bundle: Path, colours: Path, tmp_path: Path) -> None:
    pack_bundle(tmp_path / "b", gallery=bundle / "gallery", text=pocketlens.Model.open(colours), image=None)
    with pocketlens.open(tmp_path / "b") as lens:
        assert lens.search(text="red", k=1)
        with pytest.raises(pocketlens.MissingPart, match="no image tower"):
            lens.search(image=Image.new("RGB", (9, 9)))


def test_a_text_tower_without_a_tokenizer_says_why_texts_are_refused(
    bundle: Path, colours: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(colours, tmp_path / "m")
    edit_json(tmp_path / "m" / "model.json", text__tokenizer=None)
    model = pocketlens.Model.open(tmp_path / "m")
    pack_bundle(tmp_path / "b", gallery=bundle / "gallery", text=model, image=model)
    with pocketlens.open(tmp_path / "b") as lens:
        assert (lens.has_tower("text"), lens.has_tower("image")) == (False, True)
        assert lens.search(image=pictures / "red.png", k=1)
        with pytest.raises(pocketlens.MissingPart, match=r"exported without a tokenizer.*--tokenizer FILE"):
            lens.search(text="red")
    latency_ms = measure(tmp_path / "b", runs=5)["latency_ms"]
    assert "encode image" in latency_ms
    assert "encode text" not in latency_ms
    assert len(verify(tmp_path / "b")) == 6


def test_a_closed_lens_refuses_queries(bundle: Path, pictures: Path) -> None:
    lens = pocketlens.open(bundle)
    vector = lens.encode(text="red")
    lens.close()
    lens.close()
    queries: list[Callable[[], object]] = [
        lambda: lens.search(text="red"),
        lambda: lens.search(image=pictures / "red.png"),
        lambda: lens.search_vector(vector),
        lambda: lens.encode(text="red"),
        lens.text_encoder,
        lens.image_encoder,
    ]
    for query in queries:
        with pytest.raises(pocketlens.BadQuery, match="this lens is closed"):
            query()
    with pytest.raises(
        pocketlens.BadQuery, match=r"items\.sqlite cannot be asked: Cannot operate on a closed database"
    ):
        lens.gallery.items.of_row(0)


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5, True])
def test_a_number_of_threads_that_is_none_is_a_bad_query(bundle: Path, threads: Any) -> None:
    with pytest.raises(pocketlens.BadQuery, match=f"threads is {threads!r}, expected an integer from 1 on"):
        pocketlens.open(bundle, threads=threads)


@pytest.mark.parametrize(("threads", "of_encoder", "of_search"), [(None, default_threads(), 1), (3, 3, 3)])
def test_threads_of_encoders_and_of_search(bundle: Path, threads: int | None, of_encoder: int, of_search: int) -> None:
    with pocketlens.open(bundle, threads=threads) as lens:
        assert lens.gallery.index._threads == of_search
        options = lens.image_encoder()._graph.session.get_session_options()
        assert options.intra_op_num_threads == of_encoder


def test_a_model_of_another_space_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    other = write_colours(tmp_path / "other", name="other", space=Space("elsewhere@" + "1" * 64, 4))
    with pytest.raises(pocketlens.EncoderMismatch, match=r"other encodes into space elsewhere@.*colours@"):
        pack_bundle(tmp_path / "b", gallery=bundle / "gallery", text=pocketlens.Model.open(other), image=None)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_many_threads_get_the_answers_of_one(bundle: Path) -> None:
    words = list(COLOURS) * 20
    with pocketlens.open(bundle) as lens, ThreadPoolExecutor(8) as pool:
        expected = [lens.search(text=word) for word in words]
        assert list(pool.map(lambda word: lens.search(text=word), words)) == expected
