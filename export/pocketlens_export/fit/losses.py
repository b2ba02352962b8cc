"""The losses and the noise of the three recipes, each a pure function with its source.

Shapes: n embeddings of `dim` dimensions, float32. Embeddings of a text tower are of unit length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def add_noise(vectors: Tensor, amounts: Tensor, normal: Tensor, *, scale: float) -> Tensor:
    """Return unit vectors with LinCIR's noise, u · eps, brought back to length 1 (arXiv 2312.01998, §3.3).

    CLIP's noise has a norm of about u · √dim beside text embeddings whose norm is of that order too. Here they are of
    unit length, so that eps is divided by √dim: the noise's mean norm is scale / 2 of the vector's, in any dimension.

    Args:
        vectors: float32 (n, dim), of unit length.
        amounts: u, float32 (n, 1), drawn from 0 to 1.
        normal: eps, float32 (n, dim), drawn from a normal distribution.
        scale: largest norm of the noise, as a share of the vector's.
    """
    return functional.normalize(vectors + amounts * normal * (scale / math.sqrt(vectors.shape[1])), dim=-1)


def squared_distance(found: Tensor, target: Tensor) -> Tensor:
    """Return LinCIR's mean squared error times dim: the mean squared distance of n pairs (arXiv 2312.01998, eq. 2).

    The factor makes up for the unit length of embeddings, whose components are smaller than CLIP's by about √dim;
    AdamW's step does not depend on it, but for its epsilon.
    """
    return (found - target).square().sum(dim=-1).mean()


def cosine_loss(found: Tensor, target: Tensor) -> Tensor:
    """Return 1 - cosine, mean over n pairs: SEARLE's L_cos and L_gpt (arXiv 2303.15247, eq. 1 and 2)."""
    return (1 - functional.cosine_similarity(found, target, dim=-1)).mean()


def symmetric_info_nce(pictures: Tensor, texts: Tensor, *, scale: float) -> Tensor:
    """Return Pic2Word's contrastive loss: the mean of both directions' cross entropies (arXiv 2302.03084, eq. 1).

    Args:
        pictures, texts: float32 (n, dim), of unit length; row i of one belongs to row i of the other.
        scale: what cosines are multiplied by, CLIP's frozen exp(logit_scale).
    """
    logits = scale * pictures @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Return SEARLE's distillation loss, NT-Xent over 2n joint views (arXiv 2303.15247, eq. 4; SimCLR, 2002.05709).

    Every view's positive is its partner; the denominator has all other views, those of its own kind too.

    Args:
        first, second: float32 (n, width), of any length; row i of one belongs to row i of the other.
        temperature: what cosines are divided by.
    """
    views = functional.normalize(torch.cat([first, second]), dim=-1)  # (2n, width)
    logits = (views @ views.T / temperature).fill_diagonal_(-math.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return functional.cross_entropy(logits, partner)


def inversion_loss(cosine: Tensor, phrase: Tensor, *, phrase_weight: float) -> Tensor:
    """Return the loss of optimisation-based inversion, a weighted mean of L_cos and L_gpt (SEARLE, code)."""
    return (cosine + phrase_weight * phrase) / (1 + phrase_weight)


def distillation_loss(distil: Tensor, phrase: Tensor, *, phrase_weight: float) -> Tensor:
    """Return the loss of SEARLE's network: L_distil + weight · L_gpt (arXiv 2303.15247, eq. 5)."""
    return distil + phrase_weight * phrase
