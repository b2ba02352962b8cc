"""ConSE, the training-free join of an ImageNet classifier with a sentence space, and stand-ins for photographs.

ConSE (arXiv 1312.5650) places a picture at the convex combination of its classes' text vectors. It is the baseline, and
half of the teacher. `Photographs` draws feature vectors as photographs of ImageNet's classes would give them, because
no photograph is trained on: the mean and covariance come from the training drawings, and each class's direction from
the classifier's own weights (linear discriminant analysis: mean of class c - mean = covariance @ weight of c).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from texts import TextBank, class_texts, phrases
from torch import Tensor
from torch.nn.functional import normalize

Vectors = NDArray[np.float32]
HALF = torch.bfloat16
"""Products in training run in bfloat16: six times as fast as float32 on a processor that has it."""


def plain_classes(bank: TextBank) -> Tensor:
    """Return float32 (1000, 384): the vector of each class's name alone, as ConSE has it."""
    return torch.from_numpy(bank.vectors[bank.rows(IMAGENET_CLASSNAMES)])


def rich_classes(bank: TextBank) -> Tensor:
    """Return float32 (1000, 384): names in several phrasings, and names with synonyms and gloss, in equal parts."""
    vectors = torch.from_numpy(bank.vectors)
    said = torch.stack([vectors[bank.rows(phrases(name))].mean(0) for name in IMAGENET_CLASSNAMES])
    meant = torch.stack([vectors[bank.rows(texts)].mean(0) for texts in class_texts()])
    return normalize(normalize(said, dim=1) + normalize(meant, dim=1), dim=1)


class Conse:
    """Trunk features float32 (n, 1280) -> unit vectors float32 (n, 384)."""

    def __init__(self, weight: Tensor, bias: Tensor, classes: Tensor, temperature: float, top: int) -> None:
        self.weight, self.bias, self.classes = weight.float(), bias.float(), classes.float()
        self.temperature, self.top = temperature, top

    def __call__(self, features: Tensor) -> Tensor:
        """Return the convex combination of the `top` likeliest classes' vectors."""
        logits = ((features.to(HALF) @ self.weight.T.to(HALF)).float() + self.bias) / self.temperature
        best = logits.topk(self.top, dim=1)
        share = torch.softmax(best.values, dim=1)
        spread = torch.zeros_like(logits).scatter(1, best.indices, share)
        return normalize((spread.to(HALF) @ self.classes.to(HALF)).float(), dim=1)


class Photographs:
    """Draws feature vectors of imagined photographs of one or two ImageNet classes."""

    def __init__(self, features: Tensor, weight: Tensor) -> None:
        """Take the moments of `features` float32 (n, 1280) and the classifier's `weight` float32 (1000, 1280)."""
        self.mean = features.mean(0)
        centred = features - self.mean
        covariance = (centred.T.to(HALF) @ centred.to(HALF)).float() / len(features)
        self.shift = covariance @ weight.float().T  # (1280, 1000)
        self.root = torch.linalg.cholesky(covariance + 0.01 * torch.eye(len(covariance))).to(HALF)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return float32 (count, 1280), within the range of ReLU6."""
        noise = (torch.randn(count, len(self.mean), generator=generator).to(HALF) @ self.root.T).float()
        drawn = self.mean + 0.7 * noise
        for most in (10.0, 2.0):
            classes = torch.randint(0, self.shift.shape[1], (count,), generator=generator)
            strength = torch.rand(count, 1, generator=generator) * most
            drawn += strength * self.shift.T[classes]
        clamped: Tensor = drawn.clamp(0, 6)
        return clamped
