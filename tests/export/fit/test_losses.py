"""Every loss against a value worked by hand or a second implementation in numpy, float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pocketlens_export.fit.losses import (
    add_noise,
    cosine_loss,
    distillation_loss,
    inversion_loss,
    nt_xent,
    squared_distance,
    symmetric_info_nce,
)


def units(rng: np.random.Generator, count: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    values = rng.standard_normal((count, width))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def test_squared_distance_by_hand() -> None:
    found = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    target = torch.tensor([[0.0, 1.0], [0.6, -0.8]])
    assert float(squared_distance(found, target)) == pytest.approx((2 + 1.6**2) / 2)


def test_squared_distance_is_dim_times_the_papers_mean(rng: np.random.Generator) -> None:
    found, target = units(rng, 5, 8), units(rng, 5, 8)
    value = float(squared_distance(torch.from_numpy(found), torch.from_numpy(target)))
    assert value == pytest.approx(8 * np.mean((found - target) ** 2))


def test_cosine_loss_by_hand() -> None:
    found = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    target = torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    assert float(cosine_loss(found, target)) == pytest.approx((1 + 0) / 2)


def test_info_nce_by_hand() -> None:
    eye = torch.eye(2)
    own = math.log(1 + math.exp(-3.0))  # logits 3 and 0 in both directions
    assert float(symmetric_info_nce(eye, eye, scale=3.0)) == pytest.approx(own)


def test_info_nce_in_numpy(rng: np.random.Generator) -> None:
    pictures, texts = units(rng, 6, 4), units(rng, 6, 4)
    logits = 7.0 * pictures @ texts.T
    rows = np.mean([np.log(np.exp(logits[i]).sum()) - logits[i, i] for i in range(6)])
    columns = np.mean([np.log(np.exp(logits[:, i]).sum()) - logits[i, i] for i in range(6)])
    value = float(symmetric_info_nce(torch.from_numpy(pictures), torch.from_numpy(texts), scale=7.0))
    assert value == pytest.approx((rows + columns) / 2)
    assert rows != pytest.approx(columns)  # so that leaving one direction out would show


def test_nt_xent_in_numpy(rng: np.random.Generator) -> None:
    first, second = 3 * units(rng, 5, 4), 0.1 * units(rng, 5, 4)
    views = np.concatenate([first, second])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    total = 0.0
    for i in range(10):
        others = [math.exp(views[i] @ views[k] / 0.25) for k in range(10) if k != i]
        total -= math.log(math.exp(views[i] @ views[(i + 5) % 10] / 0.25) / sum(others))
    value = float(nt_xent(torch.from_numpy(first), torch.from_numpy(second), temperature=0.25))
    assert value == pytest.approx(total / 10)


def test_weights_of_the_sums() -> None:
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert float(inversion_loss(one, two, phrase_weight=0.5)) == pytest.approx((1 + 0.5 * 2) / 1.5)
    assert float(distillation_loss(one, two, phrase_weight=0.75)) == pytest.approx(2.5)


def test_noise_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    noisy = add_noise(vectors, torch.tensor([[0.5]]), torch.tensor([[0.0, 3.0, 0.0, 0.0]]), scale=2.0)
    # 0.5 * 3 * 2 / sqrt(4) = 1.5 beside 1
    assert noisy[0].tolist() == pytest.approx([1 / math.sqrt(3.25), 1.5 / math.sqrt(3.25), 0, 0])


@pytest.mark.parametrize("dim", [64, 512])
def test_noise_has_its_share_in_any_dimension(dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(4_000, dim, generator=generator), dim=-1)
    amounts = torch.rand(4_000, 1, generator=generator)
    normal = torch.randn(4_000, dim, generator=generator)
    cosines = (add_noise(vectors, amounts, normal, scale=1.0) * vectors).sum(dim=-1)
    # noise of length u is nearly at a right angle: the cosine is about 1 / sqrt(1 + u^2), whose mean is asinh(1)
    assert float(cosines.mean()) == pytest.approx(math.asinh(1), abs=0.01)
