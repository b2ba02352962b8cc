from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from torchvision.transforms.functional import to_tensor

from pocketlens.errors import Refused
from pocketlens_export.clip import Clip, normalised
from pocketlens_export.samples import PROMPTS, sample_pictures
from pocketlens_export.spread import mean_pairwise_cosine, refuse_flat, spread_weights
from tests.export.conftest import sample_pixels


def test_mean_pairwise_cosine_equals_the_mean_over_all_pairs(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((7, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.mean([a @ b for a, b in itertools.combinations(rows, 2)])
    assert mean_pairwise_cosine(rows) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [0.9501, 0.9998, float("nan")])
def test_flat_weights_are_refused(value: float) -> None:
    with pytest.raises(Refused, match="60 pictures have embeddings of mean pairwise cosine"):
        refuse_flat("60 pictures", value)


def test_spread_weights_pass() -> None:
    refuse_flat("60 pictures", 0.95)


def mean_cosine_of_mobileclip(*, spread: bool) -> float:
    torch.manual_seed(0)
    visual = timm.create_model("fastvit_mci0", num_classes=64).eval()
    pictures = torch.stack([to_tensor(picture.resize((128, 128))) for picture in sample_pictures(14)])
    if spread:
        spread_weights(visual, torch.nn.Linear(1, 1), pictures[:6], seed=0)
    with torch.no_grad():
        return mean_pairwise_cosine(torch.nn.functional.normalize(visual(pictures), dim=-1).numpy())


def test_a_fresh_convolutional_tower_is_flat_until_it_is_spread() -> None:
    assert mean_cosine_of_mobileclip(spread=False) > 0.99
    assert mean_cosine_of_mobileclip(spread=True) < 0.9


def test_layer_scales_and_norms_are_drawn_and_statistics_fitted() -> None:
    torch.manual_seed(0)
    visual = timm.create_model("fastvit_t8", num_classes=4).eval()
    spread_weights(visual, torch.nn.Linear(1, 1), torch.rand(4, 3, 64, 64), seed=0)
    scales = [value.detach() for name, value in visual.named_parameters() if name.endswith("gamma")]
    assert scales
    assert all(0.5 <= float(scale.min()) < float(scale.max()) <= 1.5 for scale in scales)
    assert not visual.training
    norms = [module for module in visual.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert norm.momentum is not None
        assert norm.running_mean is not None
        assert float(norm.running_mean.abs().max()) > 0


def test_a_fresh_bidirectional_text_tower_is_flat_until_it_is_spread(configs: Path) -> None:
    text_cfg = {**open_clip.get_model_config("MobileCLIP2-S0")["text_cfg"], "layers": 4}
    ids = open_clip.tokenizer.SimpleTokenizer()(list(PROMPTS))
    found = []
    for spread in (False, True):
        torch.manual_seed(0)
        text = open_clip.model._build_text_tower(64, text_cfg).eval()
        if spread:
            spread_weights(torch.nn.Linear(1, 1), text, torch.zeros(1), seed=0)
        with torch.no_grad():
            found.append(mean_pairwise_cosine(torch.nn.functional.normalize(text(ids), dim=-1).numpy()))
    assert found[0] > 0.95 > 0.9 > found[1]


def test_seeded_models_tell_sixty_pictures_apart(clip: Clip) -> None:
    pixels = sample_pixels(clip.architecture, 60)
    assert mean_pairwise_cosine(clip.encode_pixels(pixels)) < 0.95
    assert normalised(torch.from_numpy(pixels), clip.preprocessing).shape == (60, 3, 32, 32)
