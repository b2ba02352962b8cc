"""What lens-tiny's training starts from: thinned channels stay silent in training, the head is a ridge regression."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from pocketlens.encoder import ImageEncoder
from pocketlens.model import Model, find_model

RECIPE = Path(__file__).parents[1] / "models" / "lens-tiny" / "recipe"


@pytest.fixture(scope="module")
def start() -> Iterator[ModuleType]:
    sys.path.insert(0, str(RECIPE))
    yield importlib.import_module("start")
    sys.path.remove(str(RECIPE))
    del sys.modules["start"]


def test_thinned_channels_stay_silent_in_training_and_the_others_do_not(
    start: ModuleType, tmp_path: Path, rng: np.random.Generator
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    torch.manual_seed(0)
    trunk = timm.create_model("tf_efficientnet_lite0", num_classes=8).eval()
    spec = dataclasses.replace(ImageEncoder(Model.open(find_model("lens-base"))).spec, side=64)
    start.thin(trunk, paths, spec)
    trunk.train()
    optimiser = torch.optim.AdamW(trunk.parameters(), lr=1e-2, weight_decay=0.05)
    for _ in range(2):
        optimiser.zero_grad()
        trunk(start.pixels_of(paths, spec)).square().mean().backward()
        optimiser.step()
    trunk.eval()
    for name, kept in start.KEPT.items():
        seen: list[torch.Tensor] = []
        block: Any = trunk.get_submodule(name)
        block.conv_pwl.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].detach()))
        trunk(start.pixels_of(paths, spec))
        silent = (block.conv_pw.weight == 0).all(dim=(1, 2, 3)) & (block.bn1.bias == 0) & (block.bn2.bias == 0)
        assert int(silent.sum()) == start.WIDTH - kept
        assert not seen[0][:, silent].any()
        assert seen[0][:, ~silent].any()


def test_the_head_is_the_ridge_regression_that_least_squares_find(start: ModuleType, rng: np.random.Generator) -> None:
    features = rng.standard_normal((50, 7)).astype(np.float32) + 3
    vectors = rng.standard_normal((50, 4)).astype(np.float32)
    weight, bias = start.ridge(features, vectors)
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    penalty = start.PENALTY * np.square(centred).sum() / 7  # rows of the penalty, below the rows of the pictures
    rows = np.concatenate([centred, np.sqrt(penalty) * np.eye(7)])
    targets = np.concatenate([vectors - vectors.mean(0, dtype=np.float64), np.zeros((7, 4))])
    expected, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    np.testing.assert_allclose(weight, expected.T, atol=1e-5)
    np.testing.assert_allclose(bias, vectors.mean(0) - features.mean(0) @ expected, atol=1e-4)
