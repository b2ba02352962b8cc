from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from pocketlens.encoder import ImageEncoder
from pocketlens.model import Model
from pocketlens_bench.asymmetric_foreign import TEMPERATURE, Discrimination, main
from pocketlens_export.architecture import Preprocessing
from pocketlens_export.distill.learning import Student
from pocketlens_export.distill.reinforced import ReinforcedSet
from pocketlens_export.split import Split
from tests.bench.asymmetric_models import SAME, write_seeing, write_shades

PLAIN = Preprocessing(2, "squash", "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class MeanColour(nn.Module):
    """The mean colour, and a weight for a device to be read from."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (n, 3)."""
        return self.scale * pixels.mean(dim=(2, 3))


def test_the_loss_is_that_of_simclr_over_a_picture_and_its_view() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 2, 3), dtype=np.uint8)
    views = ReinforcedSet(pixels, np.zeros((6, 2, 4), np.float16), "0" * 64)
    parts = Split(np.array([1, 3, 5]), np.array([0, 2]), np.array([4]))
    task = Discrimination(Student(MeanColour(), PLAIN), views, parts, batch=2)
    means = pixels.astype(np.float64).mean(axis=(2, 3))  # (6, 2, 3)
    means /= np.linalg.norm(means, axis=2, keepdims=True)

    def expected(pictures: list[int]) -> float:
        vectors = np.concatenate([means[pictures, 0], means[pictures, 1]])
        scores = np.exp(vectors @ vectors.T / TEMPERATURE)
        np.fill_diagonal(scores, 0)
        count = len(pictures)
        own = [scores[row, (row + count) % (2 * count)] for row in range(2 * count)]
        return float(-np.log(np.array(own) / scores.sum(axis=1)).mean())

    assert float(task.loss(np.array([0, 2])).detach()) == pytest.approx(expected([1, 5]), abs=1e-5)
    with torch.no_grad():
        assert task.held_out_loss() == pytest.approx(expected([0, 2]), abs=1e-5)
    assert task.lengths.shape == (3,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's exporter
def test_a_tower_without_a_teacher_is_a_model_of_its_own_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLENS_CACHE", str(tmp_path / "cache"))
    vision_cfg = {"image_size": 32, "timm_model_name": "test_efficientnet", "timm_proj": "linear"}
    preprocess_cfg = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": {"embed_dim": 6, "vision_cfg": vision_cfg}, "preprocess_cfg": preprocess_cfg}
    (tmp_path / "light.json").write_text(json.dumps(config))
    heavy = write_seeing(tmp_path / "heavy", SAME, name="heavy", reads=True)
    pictures = write_shades(tmp_path / "shades", count=22)
    arguments = [
        "--light",
        tmp_path / "light.json",
        "--heavy",
        heavy,
        "--pictures",
        pictures,
        "--out",
        tmp_path / "out",
    ]
    arguments += ["--steps", 30, "--batch", 16, "--rate", 0.01]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exception is None, result.output
    model = Model.open(tmp_path / "out")
    assert model.manifest.space.dim == 6
    assert model.manifest.space != Model.open(heavy).manifest.space
    assert model.manifest.text is None
    assert ImageEncoder(model, threads=1).dim == 6
