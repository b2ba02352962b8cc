"""Composed queries through a bundle with lens-base's real text tower, small networks and a small vocabulary."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pocketlens
from pocketlens.compose import METHODS, REMAKE
from pocketlens.hits import Hits
from pocketlens.model import Model
from pocketlens.parts import MAX_WEIGHT, MIN_WEIGHT, GivenPart, Part
from pocketlens.plan import plan_query
from pocketlens_export.gallery.build import build_bundle, pack_bundle
from tests.conftest import COLOURS
from tests.folders import add_concepts, add_inversion, edit_json, sign_bundle

LENS_BASE = Path(__file__).parents[2] / "models" / "lens-base" / "model"
NAMES = ["a red square", "a green square", "a blue square", "a white square", "a cat", "a car", "night", "a toy"]
ODD = ["\ud800", "\0", "a\0b\udfffc", "x " * 30_000, "é" * 65_536, "$", "$ $ {text}", "{", "&lt;", "👩\u200d👧"]

EVERY = pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "features" not in method.needs])


@pytest.fixture(scope="module")
def composing(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A bundle of one-coloured pictures with everything that methods need; read-only."""
    folder = tmp_path_factory.mktemp("composing")
    model = Path(shutil.copytree(LENS_BASE, folder / "model"))
    for seed, recipe in enumerate(("lincir", "pic2word", "searle")):
        add_inversion(model, recipe, seed=seed)
    add_concepts(model, NAMES, pocketlens.TextEncoder(Model.open(model)).encode(NAMES))
    opened = Model.open(model)
    build_bundle(pictures, folder / "bundle", model=opened, query_model=opened)
    return folder / "bundle"


@pytest.fixture(scope="module")
def lens(composing: Path) -> pocketlens.Lens:
    return pocketlens.open(composing)


@pytest.fixture
def own(composing: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change and sign again."""
    return Path(shutil.copytree(composing, tmp_path / "own"))


def vectors_of(lens: pocketlens.Lens) -> np.ndarray:
    return lens.gallery.index.vectors().astype(np.float64)


@EVERY
@pytest.mark.parametrize("negative", [None, "people"])
def test_every_method_answers(lens: pocketlens.Lens, pictures: Path, name: str, negative: str | None) -> None:
    found = lens.search(text="at night", image=pictures / "red.png", negative=negative, method=name, k=3)
    assert isinstance(found, Hits) and isinstance(found, list)
    assert (len(found), found.method, found.why) == (3, name, "asked for")
    assert all(math.isfinite(figure) for hit in found for figure in (hit.score, hit.cosine, hit.z))
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert bool(found.names) == (name in ("freedom", "pdv-names"))
    assert ("negative_strength" in found.parameters) == (negative is not None)


def test_the_sum_is_what_numpy_says(lens: pocketlens.Lens, pictures: Path) -> None:
    found = lens.search(text="at night", image=pictures / "blue.png", method="sum", k=10)
    total = lens.encode(text="at night").astype(np.float64) + lens.encode(image=pictures / "blue.png")
    cosines = vectors_of(lens) @ (total / np.linalg.norm(total))
    assert sorted({hit.cosine for hit in found}) == pytest.approx(np.sort(cosines), abs=1e-5)
    assert [hit.score for hit in found] == [hit.cosine for hit in found]
    z = (cosines.max() - cosines.mean()) / cosines.std()
    assert found[0].z == pytest.approx(z, abs=3e-2)


def test_the_product_is_what_numpy_says(lens: pocketlens.Lens, pictures: Path) -> None:
    found = lens.search(text="green", image=pictures / "blue.png", method="product", k=10)
    queries = np.stack([lens.encode(image=pictures / "blue.png"), lens.encode(text="green")]).astype(np.float64)
    cosines = queries @ vectors_of(lens).T
    assert found[0].score == pytest.approx(np.maximum(cosines, 0).prod(axis=0).max(), rel=1e-3)
    best = np.maximum(cosines, 0).prod(axis=0).argmax()
    assert found[0].cosine == pytest.approx(cosines[:, best].mean(), abs=1e-5)


def test_a_query_of_one_part_is_the_search_of_its_vector(lens: pocketlens.Lens, pictures: Path) -> None:
    queries: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"text": "a red thing"}, {"text": "a red thing"}, "text"),
        ({"parts": [("text", "a red thing", 3.0)]}, {"text": "a red thing"}, "text"),
        ({"image": pictures / "red.png"}, {"image": pictures / "red.png"}, "image"),
        ({"parts": [["image", pictures / "red.png"]], "method": "image"}, {"image": pictures / "red.png"}, "image"),
    ]
    for query, part, method in queries:
        found = lens.search(**query, k=4)
        assert list(found) == lens.search_vector(lens.encode(**part), k=4)
        assert (found.method, found.parameters, found.names) == (method, {}, ())
    assert lens.search(text="x").why == "the query is one text"


def test_a_single_text_opens_neither_kit_nor_network(composing: Path) -> None:
    with pocketlens.open(composing) as lens:
        lens.search(text="red")
        assert lens._towers.kit is None and lens._towers.image_encoder is None


def test_the_shorthand_is_the_parts_it_stands_for(lens: pocketlens.Lens, pictures: Path) -> None:
    image = pictures / "green.png"
    short = lens.search(text="at night", image=image, negative=["people", "cars"])
    parts: list[GivenPart] = [
        ("image", image),
        ("text", "at night", 1.0),
        ("text", "people", -1),
        ("text", "cars", -1.0),
    ]
    assert lens.search(parts=parts) == short
    assert lens.search(text="at night", image=image, negative="people") == lens.search(
        text="at night", image=image, negative=["people"]
    )


def test_weights_move_the_answer(lens: pocketlens.Lens, pictures: Path) -> None:
    red, green = ("image", pictures / "red.png"), ("image", pictures / "green.png")
    for heavy, light, best in ((red, green, "red"), (green, red, "green")):
        found = lens.search(parts=[(*heavy, 3.0), (*light, 1.0)], k=2)
        assert best in found[0].id
        assert (found.method, found.why) == ("image", "only pictures are wanted")
    unwanted = lens.search(parts=[red, (*green, -1.0)], k=5)
    plain = lens.search(parts=[red], k=5)
    places = [[hit.id for hit in found].index("green.png") for found in (unwanted, plain)]
    assert places[0] >= places[1]
    texts = lens.search(parts=[("text", "a cat", 1.0), ("text", "a car", 2.0)])
    assert (texts.method, texts.why) == ("text", "only texts are wanted")


@EVERY
def test_the_least_and_the_most_weight_have_an_answer(lens: pocketlens.Lens, pictures: Path, name: str) -> None:
    for image, text in ((MIN_WEIGHT, MAX_WEIGHT), (MAX_WEIGHT, MIN_WEIGHT)):
        parts = [("image", pictures / "red.png", image), ("text", "at night", text), ("text", "people", -text)]
        found = lens.search(parts=parts, method=name, k=3)  # type: ignore[arg-type]
        assert len(found) == 3 and all(math.isfinite(hit.score) for hit in found)


def test_auto_takes_the_best_measured_of_what_there_is(own: Path, pictures: Path) -> None:
    query = {"text": "at night", "image": pictures / "red.png"}
    edit_json(own / "text" / "model.json", quality={"float_composed_slerp_map_at_10": 0.2})
    sign_bundle(own)
    with pocketlens.open(own) as lens:
        found = lens.search(**query)  # type: ignore[arg-type]
        default = METHODS["slerp"].parameters["text_share"].default
        assert (found.method, found.parameters) == ("slerp", {"text_share": default})
        assert found.why == "best of the measured methods that this bundle has: mAP@10 0.200"
    quality = {
        "composed_slerp_map_at_10": 0.2,
        "composed_pdv_lincir_map_at_10": 0.3,
        "composed_freedom_map_at_10": 0.25,
    }
    edit_json(own / "text" / "model.json", quality=quality)
    sign_bundle(own)
    with pocketlens.open(own) as lens:
        assert lens.search(**query).method == "pdv-lincir"  # type: ignore[arg-type]
    edit_json(own / "text" / "model.json", inversion={})
    sign_bundle(own)
    with pocketlens.open(own) as lens:
        found = lens.search(**query)  # type: ignore[arg-type]
        assert found.method == "freedom" and found.names


def test_auto_without_figures_says_so(bundle: Path, pictures: Path) -> None:
    with pocketlens.open(bundle) as lens:
        found = lens.search(text="red", image=pictures / "red.png")
    assert found.method == "weicom"
    assert found.why.startswith("none of the usable methods was measured")


def test_a_method_that_the_bundle_cannot_use_lists_what_is_missing(bundle: Path, pictures: Path) -> None:
    with pocketlens.open(bundle) as lens:
        for name, expected in (
            ("lincir", r"lacks an inversion network inversion/lincir\.onnx: pocketlens fit inversion --recipe lincir"),
            ("freedom", r"lacks a vocabulary \(concepts\.npz\): pocketlens fit concepts"),
        ):
            way = f"method {name} cannot be used .*{expected}, then .* {re.escape(REMAKE)}"
            with pytest.raises(pocketlens.MissingPart, match=way):
                lens.search(text="red", image=pictures / "broken.jpg", method=name)  # said before it is decoded
            assert lens._towers.image_encoder is None


def test_a_slider_costs_no_encoder_pass(composing: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pocketlens.open(composing) as lens:
        query = {"text": "at night", "image": pictures / "red.png", "negative": "people", "method": "pdv-lincir"}
        first = lens.search(**query)  # type: ignore[arg-type]
        lens._towers.text_encoder = lens._towers.image_encoder = None
        lens._towers.models = {"text": None, "image": None}  # an encoder could not be opened any more
        monkeypatch.setattr("pocketlens.needs.has_need", lambda text, image, need: True)
        assert lens.search(**query) == first  # type: ignore[arg-type]
        other = lens.search(**query, parameters={"image_strength": 0.1})  # type: ignore[arg-type]
        assert other.parameters["image_strength"] == 0.1
        assert [hit.score for hit in other] != [hit.score for hit in first]


RED, NIGHT = ("image", "red.png"), ("text", "at night")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"parts": []}, "parts is empty"),
        ({"parts": [NIGHT, ("text", " ")]}, r"parts\[1\] is empty"),
        ({"parts": [("text", "people", -1)]}, "nothing is wanted"),
        ({"negative": "people"}, "nothing is wanted"),
        ({"parts": [NIGHT], "text": "x"}, "give parts, or text, image and negative; found both"),
        ({"parts": [NIGHT], "negative": []}, "found both"),
        (
            {"text": "a", "image": "red.png", "method": "nonsense"},
            "there is no method 'nonsense'.*known: image, text, sum",
        ),
        ({"text": "a", "method": "summ"}, "did you mean sum"),
        ({"text": "a", "method": "sum"}, "method sum needs a picture, and the query wants none"),
        ({"image": "red.png", "method": "product"}, "method product needs a text, and the query wants none"),
        ({"image": "red.png", "method": "text"}, "method text needs a text"),
        (
            {"text": "a", "image": "red.png", "method": "slerp", "parameters": {"x": 1}},
            "method slerp: there is no parameter",
        ),
        (
            {"text": "a", "image": "red.png", "method": "slerp", "parameters": {"text_share": 1.5}},
            "text_share is 1.5, exp",
        ),
        ({"text": "a", "image": "red.png", "method": "slerp", "parameters": {"text_share": "x"}}, "text_share is 'x'"),
        (
            {"text": "a", "parameters": {"text_share": 1}},
            "auto chose the method text, which has no parameter text_share",
        ),
        ({"text": "a", "parameters": {"share": 1}}, "method text: there is no parameter 'share'"),
        ({"text": "a", "image": "red.png", "k": 0}, "k is 0, expected an integer from 1 to 1000"),
        ({"text": "a", "image": "red.png", "k": 2.0}, r"k is 2\.0"),
        ({"text": "a", "parameters": 3}, "parameters is of type int, expected values by name"),
        ({"text": "a", "parameters": [("x", 1)]}, "parameters is of type list"),
        ({"parts": [NIGHT, RED], "method": None}, "there is no method None"),
        (
            {"text": "a", "image": "red.png", "parameters": {"negative_strength": 2}},
            "negative_strength is given, and nothing is unwanted in the query",
        ),
        ({"text": "a", "parameters": {"negative_level": "vector"}}, "negative_level is given, and nothing is unwanted"),
    ],
)
def test_a_wrong_query_is_a_bad_query(
    lens: pocketlens.Lens, pictures: Path, query: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    with pytest.raises(pocketlens.BadQuery, match=message):
        lens.search(**query)


def test_a_negative_that_cancels_the_query_is_a_bad_query(bundle: Path) -> None:
    values: dict[str, float | str] = {"negative_level": "vector", "negative_strength": 1.0}
    with pocketlens.open(bundle) as lens, pytest.raises(pocketlens.BadQuery, match="cancels the query out"):
        lens.search(text="red", negative="red", parameters=values)


def test_pictures_that_cancel_out_are_a_bad_query(lens: pocketlens.Lens) -> None:
    plan = plan_query([Part("image", b"a"), Part("image", b"b", 2.0)], "auto", None, None, None)
    vectors = {b"a": np.array([1, 0], dtype=np.float32), b"b": np.array([-0.5, 0], dtype=np.float32)}
    with pytest.raises(pocketlens.BadQuery, match="the pictures cancel out"):
        plan.compose(None, lambda part: vectors[part.value], None)  # type: ignore[arg-type,index]


def test_a_picture_that_cannot_be_read_is_named(lens: pocketlens.Lens, pictures: Path) -> None:
    for broken in (pictures / "broken.jpg", str(pictures / "nothing.png"), b"GIF89a", "a\0b"):
        several: list[list[GivenPart]] = [[("image", broken), NIGHT], [("text", "x"), ("image", broken, -1.0)]]
        for parts in several:
            with pytest.raises(pocketlens.BadImage, match="cannot be read as a picture"):
                lens.search(parts=parts)


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_any_text_can_be_any_part(lens: pocketlens.Lens, pictures: Path, text: str) -> None:
    image = pictures / "red.png"
    queries: list[Mapping[str, Any]] = [
        {"text": text}, {"text": text, "image": image}, {"text": "red", "negative": text},
        {"image": image, "negative": [text, "people"]}, {"parts": [("text", text, 2.0), ("image", image)]},
        {"parts": [("image", image), ("text", text, -0.5), ("text", "red")]},
    ]  # fmt: skip
    for query in queries:
        assert len(lens.search(**query, k=2)) == 2
    for method in ("lincir", "pdv-lincir", "freedom", "pdv-names", "weicom", "centred-product"):
        assert len(lens.search(text=text, image=image, method=method, k=2)) == 2


def test_a_dollar_of_the_users_takes_no_pseudo_token(lens: pocketlens.Lens, pictures: Path) -> None:
    found = [lens.search(text=text, image=pictures / "red.png", method="lincir") for text in ("100 $", "100")]
    assert [hit.id for hit in found[0]] == [hit.id for hit in found[1]]


def test_a_composed_query_works_from_memory_and_after_closing_does_not(composing: Path) -> None:
    lens = pocketlens.open(composing)
    image = Image.new("RGB", (8, 8), COLOURS["red"])
    assert lens.search(text="at night", image=image, method="sum", k=1)
    lens.close()
    with pytest.raises(pocketlens.BadQuery, match="this lens is closed"):
        lens.search(text="at night", image=image)


class _ClosesTheLens(Image.Image):
    """A picture that closes a lens while it is decoded, as another thread may."""

    lens: pocketlens.Lens

    def load(self) -> Any:
        self.lens.close()
        return super().load()


def test_closing_during_a_composed_query_says_that_the_lens_is_closed(composing: Path) -> None:
    lens = pocketlens.open(composing)
    image = Image.new("RGB", (8, 8), COLOURS["red"])
    assert lens.search(text="at night", image=image, method="product")  # the text is remembered
    closing = _ClosesTheLens()
    closing.__dict__.update(image.__dict__)
    closing.lens = lens
    with pytest.raises(pocketlens.BadQuery, match=r"^this lens is closed$"):
        lens.search(text="at night", image=closing, method="product")


def test_a_bundle_without_an_image_tower_says_so(composing: Path, pictures: Path, tmp_path: Path) -> None:
    pack_bundle(tmp_path / "b", gallery=composing / "gallery", text=Model.open(composing / "text"), image=None)
    with pocketlens.open(tmp_path / "b") as lens:
        assert lens.search(text="red", negative="people").method == "text"
        found = lens.search(text="red", image=pictures / "red.png", method="text")  # it ignores the picture
        assert list(found) == list(lens.search(text="red"))
        with pytest.raises(pocketlens.MissingPart, match="no image tower"):
            lens.search(parts=[("text", "red"), ("image", pictures / "red.png", -1.0)], method="text")
        with pytest.raises(pocketlens.MissingPart, match="no image tower"):
            lens.search(text="red", image=pictures / "red.png")


def test_a_bundle_without_a_text_tower_says_so(composing: Path, pictures: Path, tmp_path: Path) -> None:
    pack_bundle(tmp_path / "b", gallery=composing / "gallery", text=None, image=Model.open(composing / "image"))
    with pocketlens.open(tmp_path / "b") as lens:
        found = lens.search(parts=[("image", pictures / "red.png"), ("image", pictures / "blue.png", -1)])
        assert found.method == "image"
        with pytest.raises(pocketlens.MissingPart, match="no text tower"):
            lens.search(text="red", image=pictures / "red.png")
