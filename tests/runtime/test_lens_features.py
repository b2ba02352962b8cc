"""Queries whose method takes the features of the pictures, and not their vectors alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import pocketlens
from pocketlens.cli import cli
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.inspect import describe, verify
from pocketlens.model import Features, Model, ModelManifest
from pocketlens.needs import foreign_features, has_need, lacking
from pocketlens.network import InversionNetwork
from pocketlens.picture import load_pixels
from pocketlens_export.gallery.build import build_bundle, pack_bundle
from tests.colours import SPACE
from tests.folders import add_isa, rewrite

FEATURES = Features(SPACE.id, 3, 2, 2)
OTHER = replace(FEATURES, id="light@" + "1" * 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Model:
    """The model with a network of its own features."""
    folder = Path(shutil.copytree(colours, tmp_path_factory.mktemp("seeing") / "model"))
    add_isa(folder, features=FEATURES)
    return Model.open(folder)


@pytest.fixture(scope="module")
def seeing(model: Model, pictures: Path) -> Path:
    """A bundle of it."""
    build_bundle(pictures, model.path.parent / "bundle", model=model, query_model=model)
    return model.path.parent / "bundle"


@pytest.fixture
def giving(model: Model, seeing: Path, tmp_path: Path) -> Callable[[Features | None], Path]:
    """Make a bundle whose text tower has the network, and whose image tower gives other features or none."""

    def make(features: Features | None) -> Path:
        folder = Path(shutil.copytree(model.path, tmp_path / "light"))
        assert model.manifest.image is not None
        light = rewrite(folder, replace(model.manifest, image=replace(model.manifest.image, features=features)))
        pack_bundle(tmp_path / "b", gallery=seeing / "gallery", text=model, image=light)
        return tmp_path / "b"

    return make


def by_hand(model: Model, pictures: list[Path], weights: list[float], text: str) -> np.ndarray:
    """Return isa's vector of pictures and one text of their total weight, float32 (dim,)."""
    encoder, network = ImageEncoder(model), InversionNetwork(model, "isa")
    maps = [encoder.encode_features(load_pixels(path, encoder.spec)[np.newaxis])[1] for path in pictures]
    tokens = [network.invert(each)[0].astype(np.float64) for each in maps]
    mean = sum(weight * each for weight, each in zip(weights, tokens, strict=True)) / sum(weights)
    prompt = f"a photo of $ that {text}"
    return np.asarray(TextEncoder(model).encode_prompts([prompt], np.asarray(mean, dtype=np.float32))[0])


def test_isa_is_the_sentence_of_the_pictures_pseudo_tokens(model: Model, seeing: Path, pictures: Path) -> None:
    with pocketlens.open(seeing) as lens:
        rows = lens.gallery.index.vectors()
        found = lens.search(text="green", image=pictures / "red.png", method="isa", k=4)
        assert (found.method, found.why) == ("isa", "asked for")
        expected = rows @ by_hand(model, [pictures / "red.png"], [1.0], "green")
        assert [hit.cosine for hit in found[:2]] == pytest.approx(np.sort(expected)[::-1][:2], abs=1e-5)


def test_several_pictures_are_the_weighted_mean_of_their_pseudo_tokens(
    model: Model, seeing: Path, pictures: Path
) -> None:
    red, blue = pictures / "red.png", pictures / "blue.png"
    parts: list[tuple[str, object, float]] = [("image", red, 1.0), ("image", blue, 3.0), ("text", "green", 4.0)]
    with pocketlens.open(seeing) as lens:
        rows = lens.gallery.index.vectors()
        found = lens.search(parts=parts, method="isa", k=1)  # type: ignore[arg-type]
        assert found[0].cosine == pytest.approx((rows @ by_hand(model, [red, blue], [1, 3], "green")).max(), abs=1e-5)
        other = (rows @ by_hand(model, [red, blue], [1, 1], "green")).max()
        assert abs(found[0].cosine - other) > 1e-4


@pytest.mark.parametrize("method", ["isa", "pdv-isa"])
def test_a_slider_costs_no_pass_of_the_image_tower(seeing: Path, pictures: Path, method: str) -> None:
    with pocketlens.open(seeing) as lens:
        image = pictures / "red.png"
        first = lens.search(text="green", image=image, negative="white", method=method)
        lens._towers.image_encoder = None

        def closed() -> ImageEncoder:
            raise AssertionError("the picture is remembered")

        lens._towers.image = closed  # type: ignore[method-assign]
        assert lens.search(text="green", image=image, negative="white", method=method) == first
        values: dict[str, float | str] = {"template": "plain"}
        assert lens.search(text="green", image=image, negative="white", method=method, parameters=values)
        with Image.open(image) as picture, pytest.raises(AssertionError, match="remembered"):
            lens.search(text="green", image=picture, method=method)


def test_features_are_not_made_for_a_method_without_need_of_them(
    seeing: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: ImageEncoder, pixels: np.ndarray) -> None:
        raise AssertionError("features are made")

    monkeypatch.setattr(ImageEncoder, "encode_features", refuse)
    with pocketlens.open(seeing) as lens:
        for method in ("sum", "auto"):
            assert lens.search(text="green", image=pictures / "red.png", method=method)
        assert lens.search(image=pictures / "red.png")
        with pytest.raises(AssertionError, match="features are made"):
            lens.search(text="green", image=pictures / "red.png", method="isa")


def test_auto_takes_isa_where_it_was_measured_best_and_fits(
    model: Model, seeing: Path, pictures: Path, tmp_path: Path, giving: Callable[[Features | None], Path]
) -> None:
    folder = Path(shutil.copytree(model.path, tmp_path / "measured"))
    quality = {"composed_isa_map_at_10": 0.5, "composed_sum_map_at_10": 0.25}
    measured = rewrite(folder, replace(model.manifest, quality=quality))
    foreign = Model.open(giving(OTHER) / "image")
    for image, expected in ((measured, "isa"), (foreign, "sum")):
        out = tmp_path / expected
        pack_bundle(out, gallery=seeing / "gallery", text=measured, image=image)
        with pocketlens.open(out) as lens:
            assert lens.search(text="green", image=pictures / "red.png").method == expected


@pytest.mark.parametrize(
    ("features", "error", "gives"),
    [
        (OTHER, pocketlens.EncoderMismatch, f"those of {OTHER.id}"),
        (None, pocketlens.MissingPart, "none"),
    ],
)
def test_a_tower_of_other_features_serves_everything_but_isa(
    giving: Callable[[Features | None], Path],
    pictures: Path,
    features: Features | None,
    error: type[pocketlens.PocketlensError],
    gives: str,
) -> None:
    bundle = giving(features)
    assert verify(bundle)
    reason = f"the inversion network isa takes features of {FEATURES.id}, and the image tower gives {gives}"
    with pocketlens.open(bundle) as lens:
        assert lens.search(text="green", image=pictures / "red.png").method == "weicom"
        assert lens.search(image=pictures / "red.png") and lens.search(text="red")
        for method in ("isa", "pdv-isa"):
            with pytest.raises(error, match=rf"method {method} cannot be used .*fit token-learner.*; {reason} "):
                lens.search(text="green", image=pictures / "red.png", method=method)
    listed = CliRunner().invoke(cli, ["methods", str(bundle), "--json"])
    lacks = {each["name"]: each["missing"] for each in json.loads(listed.output)["methods"]}
    assert lacks["sum"] == []
    assert lacks["isa"] == lacks["pdv-isa"]
    assert lacks["isa"][1:] == [reason]


def test_a_bundle_without_an_image_tower_says_so(model: Model, seeing: Path, pictures: Path, tmp_path: Path) -> None:
    pack_bundle(tmp_path / "b", gallery=seeing / "gallery", text=model, image=None)
    with pocketlens.open(tmp_path / "b") as lens, pytest.raises(pocketlens.MissingPart, match="no image tower"):
        lens.search(text="green", image=pictures / "red.png", method="isa")


def test_what_is_needed_is_read_from_both_manifests(model: Model) -> None:
    manifest = model.manifest
    assert manifest.image is not None

    def giving_others(features: Features | None) -> ModelManifest:
        assert manifest.image is not None
        return replace(manifest, image=replace(manifest.image, features=features))

    assert has_need(manifest, manifest, "inversion/isa")
    assert has_need(manifest, None, "inversion/isa")  # that there is no image tower is said elsewhere
    assert has_need(manifest, replace(manifest, image=None), "inversion/isa")
    assert not has_need(manifest, giving_others(OTHER), "inversion/isa")
    assert not has_need(manifest, giving_others(None), "inversion/isa")
    assert foreign_features(manifest, manifest, "isa") is None
    assert foreign_features(manifest, giving_others(None), "lincir") is None
    embedding = replace(manifest.inversion["isa"], input="embedding", features_id=None)
    assert not has_need(replace(manifest, inversion={"isa": embedding}), manifest, "inversion/isa")
    assert lacking(pocketlens.compose.METHODS["isa"], manifest, manifest) == []


def test_folders_say_what_the_network_was_trained_on(model: Model, seeing: Path) -> None:
    assert f"{model.path}: inversion network isa gives 2 pseudo-token(s) from features of {SPACE.id}" in verify(
        model.path
    )
    assert verify(seeing)
    described = describe(seeing)
    assert described["image"]["image"]["features"] == {"id": SPACE.id, "channels": 3, "height": 2, "width": 2}
    network = described["text"]["inversion"]["isa"]
    assert (network["input"], network["features_id"]) == ("features", SPACE.id)
    shown = CliRunner().invoke(cli, ["info", str(seeing)]).output
    assert shown.count(SPACE.id) >= 3 + 2  # the space of bundle, gallery and towers, the features, the network's own
