"""The token learner's losses against values worked by hand and second implementations in numpy, float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pocketlens_export.fit.losses import symmetric_info_nce
from pocketlens_export.tokens.losses import local_alignment, token_drift


def test_global_contrast_at_a_temperature_by_hand() -> None:
    heavy = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    sentences = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # cosines: own 0.6 and 1; sentence 0 to heavy 1 is 0.8, sentence 1 to heavy 0 is 0. At temperature 0.5 they double.
    of_heavy = math.log(1 + math.exp(-1.2)) + math.log(1 + math.exp(1.6 - 2))  # among sentences
    of_sentences = math.log(1 + math.exp(1.6 - 1.2)) + math.log(1 + math.exp(-2))  # among heavy embeddings
    expected = (of_heavy / 2 + of_sentences / 2) / 2
    assert float(symmetric_info_nce(heavy, sentences, scale=1 / 0.5)) == pytest.approx(expected)


def test_local_alignment_by_hand() -> None:
    shares = torch.tensor([[[1.0, 0.5], [0.0, 0.5]]])  # token 0 looks at cell 0, token 1 at both
    cells = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    told = torch.tensor([[[0.0, 3.0], [2.0, 2.0]]])  # at a right angle to its cell; along the mean of both
    assert float(local_alignment(told, shares, cells)) == pytest.approx((1 + 0) / 2)


def test_local_alignment_in_numpy(rng: np.random.Generator) -> None:
    told, cells = rng.standard_normal((3, 2, 6)), rng.standard_normal((3, 5, 6))
    shares = rng.random((3, 5, 2))
    shares /= shares.sum(axis=1, keepdims=True)
    total = 0.0
    for n in range(3):
        for k in range(2):
            target = sum(shares[n, c, k] * cells[n, c] for c in range(5))
            total += 1 - told[n, k] @ target / np.linalg.norm(told[n, k]) / np.linalg.norm(target)
    found = local_alignment(torch.from_numpy(told), torch.from_numpy(shares), torch.from_numpy(cells))
    assert float(found) == pytest.approx(total / 6)


def test_local_alignment_moves_what_is_told_and_not_where_tokens_look(rng: np.random.Generator) -> None:
    told = torch.from_numpy(rng.standard_normal((2, 3, 4))).requires_grad_()
    shares = torch.from_numpy(rng.random((2, 5, 3))).requires_grad_()
    local_alignment(told, shares, torch.from_numpy(rng.standard_normal((2, 5, 4)))).backward()  # type: ignore[no-untyped-call]
    assert told.grad is not None and told.grad.abs().min() > 0
    assert shares.grad is None


def test_token_drift_by_hand() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 4.0]]])  # their mean is (1, 1)
    assert float(token_drift(tokens, torch.tensor([0.0, 3.0]), spread=2.0)) == pytest.approx((1 + 4) / 2)


def test_token_drift_in_numpy(rng: np.random.Generator) -> None:
    tokens, mean = rng.standard_normal((4, 3, 5)), rng.standard_normal(5)
    expected = ((tokens.reshape(12, 5).mean(axis=0) - mean) ** 2).sum() / 7.0
    assert float(token_drift(torch.from_numpy(tokens), torch.from_numpy(mean), spread=7.0)) == pytest.approx(expected)
