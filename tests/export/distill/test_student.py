from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketlens.errors import EncoderMismatch, FormatError, PocketlensError, Refused
from pocketlens_export.architecture import Architecture, local_architecture
from pocketlens_export.distill.learning import Student
from pocketlens_export.distill.student import build_clip, checkpoint_bytes

PREPROCESSING = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "squash"}


def architecture(folder: Path, *, dim: int = 4, side: int = 32, **vision: Any) -> Architecture:
    """Return a small timm architecture from a config without a text part."""
    vision_cfg = {"image_size": side, "timm_model_name": "test_efficientnet", "timm_proj": "linear", **vision}
    config = {"model_cfg": {"embed_dim": dim, "vision_cfg": vision_cfg}, "preprocess_cfg": PREPROCESSING}
    (folder / "light.json").write_text(json.dumps(config))
    return local_architecture(folder / "light.json", needs_text=False)


def state_of(visual: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in visual.state_dict().items()}


def test_weights_come_from_the_seed(tmp_path: Path) -> None:
    light = architecture(tmp_path)
    first, again, other = (state_of(build_clip(light, dim=4, seed=seed, start=None).model.visual) for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_weights_come_from_a_checkpoint(tmp_path: Path) -> None:
    light = architecture(tmp_path)
    source = build_clip(light, dim=4, seed=3, start=None).model.visual
    (tmp_path / "own.safetensors").write_bytes(checkpoint_bytes(source))
    whole = {f"visual.{key}": value for key, value in source.state_dict().items()}
    torch.save({**whole, "text.token_embedding.weight": torch.zeros(3, 2)}, tmp_path / "whole.pt")
    for name in ("own.safetensors", "whole.pt"):
        found = state_of(build_clip(light, dim=4, seed=0, start=tmp_path / name).model.visual)
        assert all(torch.equal(found[key], value) for key, value in source.state_dict().items())


def test_a_checkpoint_of_another_tower_is_refused(tmp_path: Path) -> None:
    light = architecture(tmp_path)
    torch.save({"visual.trunk.conv_stem.weight": torch.zeros(3, 2)}, tmp_path / "other.pt")
    (tmp_path / "noise.pt").write_bytes(b"noise")
    for name in ("other.pt", "noise.pt", "missing.pt"):
        with pytest.raises(FormatError, match=f"{name} is no checkpoint with the image tower of light"):
            build_clip(light, dim=4, seed=0, start=tmp_path / name)


def test_only_towers_that_can_answer_in_the_space_are_taken(tmp_path: Path) -> None:
    with pytest.raises(
        EncoderMismatch, match=r"light: the head gives 5 dimensions \(embed_dim\), the heavy space has 4"
    ):
        build_clip(architecture(tmp_path, dim=5), dim=4, seed=0, start=None)
    with pytest.raises(EncoderMismatch, match=r"the image tower gives \(256,\), the heavy space has 4"):
        build_clip(architecture(tmp_path, timm_proj="none"), dim=4, seed=0, start=None)
    with pytest.raises(Refused, match="expected one of timm"):
        build_clip(architecture(tmp_path, timm_model_name=None), dim=4, seed=0, start=None)
    with pytest.raises(Refused, match=r'light: the image tower does not run at 32 pixels: .* timm_proj must be ""'):
        build_clip(architecture(tmp_path, timm_model_name="mobilenetv4_conv_small_035"), dim=4, seed=0, start=None)
    with pytest.raises(PocketlensError, match="no_such_net"):
        build_clip(architecture(tmp_path, timm_model_name="no_such_net"), dim=4, seed=0, start=None)


def test_the_trained_tower_takes_pictures_as_the_reference_does(tmp_path: Path) -> None:
    clip = build_clip(architecture(tmp_path), dim=4, seed=0, start=None)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    expected = clip.encode_pixels(pixels)
    student = Student(clip.model.visual, clip.preprocessing).eval()
    with torch.no_grad():
        np.testing.assert_allclose(student(torch.from_numpy(pixels)).numpy(), expected, atol=1e-5)


_STRIDED = """
import torch
from torch import nn
from pocketlens_export.architecture import Preprocessing
from pocketlens_export.distill.learning import Student

torch.manual_seed(0)
torch.set_num_threads(1)
wide = nn.Conv2d(3, 48, 1, stride=2, bias=False)
tower = nn.Sequential(wide, nn.AdaptiveAvgPool2d(1), nn.Flatten())
student = Student(tower, Preprocessing(64, "squash", "bicubic", (0, 0, 0), (1, 1, 1)))
pixels = torch.randint(0, 256, (32, 64, 64, 3), dtype=torch.uint8)
target, kept = torch.randn(32, 48), []
for length in range(20):  # what a stray write hits is found when memory is given back
    wide.weight.grad = None
    (student(pixels) * target).sum().backward()
    kept.append(torch.ones(100 + 37 * length))
pooled = pixels[:, ::2, ::2].double().mean((1, 2)) / 255
weight = wide.weight.detach().double().flatten(1).requires_grad_()
(nn.functional.normalize(pooled @ weight.T, dim=-1) * target).sum().backward()
torch.testing.assert_close(wide.weight.grad.double().flatten(1), weight.grad, rtol=1e-4, atol=1e-4)
"""


def test_a_strided_convolution_over_single_pixels_trains() -> None:
    """FastViT and MobileOne begin with one, whose gradient wrote past its buffer: in a process that may die of it."""
    checked = {**os.environ, "MALLOC_CHECK_": "3"}
    done = subprocess.run([sys.executable, "-c", _STRIDED], env=checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
