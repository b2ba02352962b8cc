from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from pocketlens.errors import FormatError, PocketlensError, Refused
from pocketlens.files import sha256_of
from pocketlens_export.architecture import local_architecture, registered_architecture
from pocketlens_export.clip import Clip, Weights, load_clip
from pocketlens_export.samples import PROMPTS
from tests.export.conftest import Load, sample_pixels
from tests.export.tiny import clip_config


@pytest.fixture(scope="module")
def reference() -> Any:
    """open_clip's own CLIP class, whose checkpoints have the older layout."""
    torch.manual_seed(7)
    return open_clip.CLIP(**clip_config()["model_cfg"]).eval()


@pytest.fixture(scope="module")
def checkpoint(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.pt"
    torch.save({"state_dict": reference.state_dict(), "epoch": 3}, path)
    return path


def load_file(configs: Path, path: Path, name: str = "tiny") -> Clip:
    architecture = local_architecture(configs / f"{name}.json")
    return load_clip(architecture, Weights(path=path), sample_pixels(architecture, 2))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_of_the_older_layout_encodes_as_open_clip_does(
    configs: Path, reference: Any, checkpoint: Path, tmp_path: Path, suffix: str
) -> None:
    if suffix == ".safetensors":
        checkpoint = tmp_path / "tiny.safetensors"
        save_file({key: value.contiguous() for key, value in reference.state_dict().items()}, checkpoint)
    clip = load_file(configs, checkpoint)
    ids = open_clip.tokenizer.SimpleTokenizer()(list(PROMPTS))
    with torch.no_grad():
        expected = reference.encode_text(ids, normalize=True).numpy()
    np.testing.assert_allclose(clip.encode_ids(ids.numpy()), expected, atol=1e-6)
    assert clip.source == f"sha256:{sha256_of(checkpoint)}"


def test_pixels_are_fed_as_open_clips_transform_feeds_them(configs: Path, reference: Any, checkpoint: Path) -> None:
    clip = load_file(configs, checkpoint)
    pixels = sample_pixels(clip.architecture, 3)
    preprocessing = clip.preprocessing
    transform = image_transform_v2(
        PreprocessCfg(size=32, mean=preprocessing.mean, std=preprocessing.std, interpolation="bilinear"), is_train=False
    )
    inputs = torch.stack([transform(Image.fromarray(picture)) for picture in pixels])
    with torch.no_grad():
        expected = reference.encode_image(inputs, normalize=True).numpy()
    np.testing.assert_allclose(clip.encode_pixels(pixels), expected, atol=1e-6)


def test_a_seed_gives_the_same_weights_again_and_leaves_the_global_generator_alone(load: Load, clip: Clip) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    again = load("tiny")
    assert torch.equal(torch.rand(1), expected)
    for key, value in clip.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key
    assert clip.source == "random:0"
    architecture = clip.architecture
    other = load_clip(architecture, Weights(seed=1), sample_pixels(architecture, 4))
    assert not torch.equal(other.model.visual.proj, clip.model.visual.proj)


def test_a_checkpoint_of_another_architecture_is_refused(
    configs: Path, checkpoint: Path, reference: Any, tmp_path: Path
) -> None:
    state = dict(reference.state_dict())
    del state["visual.proj"]
    state["visual.extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(
        FormatError,
        match=r"1 weights are missing \(visual\.proj\), 1 are unknown \(visual\.extra\)",
    ):
        load_file(configs, tmp_path / "other.pt")
    with pytest.raises(FormatError, match=r"tiny\.pt is not a checkpoint of tiny-bert"):
        load_file(configs, checkpoint, "tiny-bert")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hostile",)


def test_a_checkpoint_that_runs_code_is_refused(configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Hostile()}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(FormatError, match=f"{name} is not a checkpoint of tiny"):
            load_file(configs, tmp_path / name)
    assert not (tmp_path / "hostile").exists()


def test_a_file_that_is_no_checkpoint_is_told_by_the_kind_of_error(configs: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk" * 99)
    with pytest.raises(FormatError, match=r"junk\.pt is not a checkpoint of tiny: [A-Z]\w*Error: "):
        load_file(configs, tmp_path / "junk.pt")


@pytest.mark.parametrize("name", ["x.npz", "x.pt", "x.safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused(configs: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no checkpoint")
    with pytest.raises(FormatError, match=name):
        load_file(configs, tmp_path / name)


def test_a_tag_of_another_activation_is_refused() -> None:
    architecture = registered_architecture("ViT-B-32", "openai")
    with pytest.raises(Refused, match="use --model ViT-B-32-quickgelu"):
        load_clip(architecture, Weights(tag="openai"), np.zeros((1, 224, 224, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"multimodal_cfg": {}}, Refused, "CoCa"),
        ({"embed_dim": "many"}, FormatError, "open_clip cannot build tiny"),
        ({"vision_cfg": {"timm_model_name": "no_such_model"}}, FormatError, "open_clip cannot build tiny"),
        ({"text_cfg": {"hf_model_name": "nobody/nothing"}}, PocketlensError, "text model nobody/nothing must be down"),
        ({"text_cfg": {"hf_model_name": "/no/such/folder"}}, PocketlensError, "hf_model_name is a local folder"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(clip: Clip, change: Any, kind: type[Exception], message: str) -> None:
    architecture = dataclasses.replace(clip.architecture, model_cfg={**clip.architecture.model_cfg, **change})
    with pytest.raises(kind, match=message) as caught:
        load_clip(architecture, Weights(seed=0), np.zeros((1, 32, 32, 3), dtype=np.uint8))
    assert "\n" not in str(caught.value)


def test_a_tower_over_two_gigabytes_is_refused(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketlens_export.clip._MAX_BYTES", 1_000_000)
    with pytest.raises(Refused, match=r"the text tower has 0\.0 GB of float32 weights"):
        load("tiny")
