from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import CorruptFile, FormatError, MissingPart, PocketlensError, Refused
from pocketlens.files import sha256_of
from pocketlens.inspect import verify
from pocketlens.model import Features, Model
from pocketlens_export import folder, parity
from pocketlens_export.architecture import local_architecture
from pocketlens_export.clip import Clip, Weights
from pocketlens_export.folder import Request, export_model
from pocketlens_export.parity import Agreement
from pocketlens_export.space import space_id
from pocketlens_export.tokenizer import text_rules
from pocketlens_export.towers import text_tower
from tests.export.conftest import Load, sample_pixels

NAMES = ["tiny", "bidirectional", "tiny-bert"]


def request_of(configs: Path, name: str = "tiny", pictures: Path | None = None) -> Request:
    return Request(local_architecture(configs / f"{name}.json"), Weights(seed=0), name, "none", None, pictures)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_verifies_and_encodes_as_the_reference_does(load: Load, exported: Path, name: str) -> None:
    model, opened = load(name), Model.open(exported / name)
    assert any("golden texts replayed" in line for line in verify(exported / name))
    texts = ["a red boat", "", "THE dogs & the cats on a street in the street"]
    reference = text_rules(model, text_tower(model), None).reference
    assert reference is not None
    np.testing.assert_allclose(TextEncoder(opened).encode(texts), model.encode_ids(reference(texts)), atol=2e-6)
    pixels = sample_pixels(model.architecture, 3)
    np.testing.assert_allclose(ImageEncoder(opened).encode_pixels(pixels), model.encode_pixels(pixels), atol=2e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "tiny",
            {"clean": "lower", "context_length": 77, "pad_id": 0, "end_id": 49407, "pooling": "end", "trim": True},
        ),
        ("bidirectional", {"clean": "lower", "pooling": "end", "trim": False}),
        ("tiny-bert", {"clean": "whitespace", "context_length": 24, "end_id": 3, "pooling": "mean", "trim": True}),
    ],
)
def test_the_manifest_says_what_the_model_is(load: Load, exported: Path, name: str, expected: dict[str, Any]) -> None:
    model, manifest = load(name), Model.open(exported / name).manifest
    written = json.loads((exported / name / "model.json").read_text())
    assert {key: written["text"][key] for key in expected} == expected
    assert written["text"]["placeholder_id"] == -1
    assert written["image"] == {
        "file": "image.onnx", "precision": "float32", "opset": 20, "side": 32, "mode": "shortest",
        "interpolation": "bilinear", "features": None,
    }  # fmt: skip
    assert manifest.space.id == space_id(name, model.model.visual, model.preprocessing)
    assert manifest.space.dim == 16
    assert (manifest.source.architecture, manifest.source.weights) == (name, "random:0")
    assert set(manifest.files) == {"golden.npz", "image.onnx", "text.onnx", "tokenizer.json"}
    assert manifest.quality["parity_text_min_cosine"] >= 0.99999
    assert manifest.quality["parity_image_max_abs"] <= 1e-4
    assert manifest.quality["mean_pairwise_cosine"] <= 0.95
    packages = {"pocketlens", "torch", "open_clip_torch", "timm", "onnx", "onnxscript", "onnxruntime"}
    assert set(manifest.made_with) == packages | ({"transformers"} if name == "tiny-bert" else set())


def test_a_tower_with_a_map_gives_it_beside_the_embedding(fastvit: Clip, configs: Path, tmp_path: Path) -> None:
    manifest = export_model(request_of(configs, fastvit.architecture.name), tmp_path / "model", lambda line: None)
    assert manifest.image is not None
    assert manifest.image.features == Features(manifest.space.id, 768, 2, 2)
    assert manifest.quality["parity_features_min_cosine"] >= 0.99999
    assert manifest.quality["parity_features_max_abs"] <= 1e-4
    pixels = sample_pixels(fastvit.architecture, 3)
    encoder = ImageEncoder(Model.open(tmp_path / "model"))
    embeddings, features = encoder.encode_features(pixels)
    np.testing.assert_array_equal(embeddings, encoder.encode_pixels(pixels))
    assert features.shape == (3, 768, 2, 2) and features.std(axis=0).min() > 0


def test_a_changed_golden_value_is_noticed(exported: Path, tmp_path: Path) -> None:
    """What the last check of an export rests on: golden values of another model do not replay."""
    other = tmp_path / "other"
    other.mkdir()
    for path in (exported / "tiny").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    with np.load(other / "golden.npz") as file:
        arrays = dict(file)
    arrays["text_embedding"] = np.roll(arrays["text_embedding"], 1, axis=0)
    np.savez(other / "golden.npz", **arrays)
    manifest = json.loads((other / "model.json").read_text())
    manifest["files"]["golden.npz"] = {
        "sha256": sha256_of(other / "golden.npz"), "size_bytes": (other / "golden.npz").stat().st_size,
    }  # fmt: skip
    (other / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptFile, match="golden text embeddings"):
        verify(other)


@pytest.mark.parametrize("check", ["check_reparameterization", "check_image", "check_text", "check_trimming"])
def test_nothing_is_left_when_a_check_refuses(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        parity.gate(check, Agreement(0.5, 0.5))

    monkeypatch.setattr(parity, check, refuse)
    for other in ("check_reparameterization", "check_image", "check_text"):
        if other != check:
            monkeypatch.setattr(parity, other, lambda *args, **kwargs: Agreement(1.0, 0.0))
    with pytest.raises(Refused, match=f"{check}: least cosine"):
        export_model(request_of(configs), tmp_path / "out", lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_flat_weights_are_refused_and_leave_nothing(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "sample_pictures", lambda count: [Image.new("RGB", (40, 40), "grey")] * count)
    with pytest.raises(Refused, match=r"60 different pictures have embeddings of mean pairwise cosine 1\.0000"):
        export_model(request_of(configs), tmp_path / "out", lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_refused_before_any_work(configs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(FormatError, match="exists already"):
        export_model(request_of(configs), tmp_path, said.append)
    assert said == []


def test_own_pictures_are_compared_too(clip: Clip, tmp_path: Path) -> None:
    spec, generated = folder.picture_spec(clip.architecture), sample_pixels(clip.architecture, 2)
    expected = clip.encode_pixels(generated)
    (tmp_path / "sub").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    Image.new("RGB", (50, 40), "red").save(tmp_path / "sub" / "red.png")
    pixels, embeddings = folder._with_own(tmp_path, spec, clip, generated, expected)
    assert len(pixels) == len(embeddings) == 3
    np.testing.assert_array_equal(pixels[2], np.full((32, 32, 3), (255, 0, 0)))
    np.testing.assert_allclose(embeddings, clip.encode_pixels(pixels), atol=1e-6)


def test_a_folder_without_a_picture_is_named(clip: Clip, tmp_path: Path) -> None:
    pixels = sample_pixels(clip.architecture, 2)
    spec = folder.picture_spec(clip.architecture)
    with pytest.raises(PocketlensError, match="holds no readable picture, expected files of jpeg, png, webp"):
        folder._with_own(tmp_path, spec, clip, pixels, clip.encode_pixels(pixels))
    with pytest.raises(PocketlensError, match="holds no readable picture"):
        folder._with_own(tmp_path / "none", spec, clip, pixels, clip.encode_pixels(pixels))


def test_without_a_tokenizer_towers_are_exported_and_texts_refused(configs: Path, tmp_path: Path) -> None:
    config = json.loads((configs / "bidirectional.json").read_text())
    config["model_cfg"]["text_cfg"] |= {
        "context_length": 12, "vocab_size": 100, "pool_type": "last", "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }  # fmt: skip
    (tmp_path / "siglip.json").write_text(json.dumps(config))
    said: list[str] = []
    export_model(request_of(tmp_path, "siglip"), tmp_path / "out", said.append)
    assert any("no tokenizer: its tokenizer is on the hub (timm/ViT-B-16-SigLIP)" in line for line in said)
    opened = Model.open(tmp_path / "out")
    assert set(opened.manifest.files) == {"golden.npz", "image.onnx", "text.onnx"}
    verify(tmp_path / "out")
    with pytest.raises(MissingPart, match="exported without a tokenizer"):
        TextEncoder(opened)
