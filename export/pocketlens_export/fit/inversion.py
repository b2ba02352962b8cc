"""Optimisation-based textual inversion: pseudo-tokens found for each picture alone (SEARLE, arXiv 2303.15247, §3.1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pocketlens._types import Float32s, Int64s
from pocketlens_export.fit.losses import cosine_loss, inversion_loss
from pocketlens_export.fit.prompts import Prompts, Rows
from pocketlens_export.fit.recipe import Setup

TEMPLATES = (
    "a photo of $", "a picture of $", "an image of $", "a drawing of $", "a close view of $", "$ seen from afar",
    "a small picture of $", "a bright photo of $", "this is $", "there is $ here", "an icon of $", "one $",
)  # fmt: skip
PHRASES = 15  # texts nearest to a picture, of which one regularises each step
PHRASE_WEIGHT = 0.5
_INITIAL_DEVIATION = 0.02
_RATE, _WEIGHT_DECAY = 2e-2, 0.01
_LEFT_OF_START = 0.99**350  # the share of the first step in the mean over time, as SEARLE's decay and steps have it

INVERTING = (TEMPLATES, PHRASES, PHRASE_WEIGHT, _INITIAL_DEVIATION, _RATE, _WEIGHT_DECAY, _LEFT_OF_START)
"""The constants that tokens found for a picture depend on."""


class Phrases:
    """Texts with their keywords masked, and for each picture those whose embeddings are nearest to it.

    Attributes:
        rows: ids of the masked texts.
        targets: unit embeddings of the texts themselves, float32 (n, dim).
        nearest: int64 (pictures, at most 15), rows of texts.
    """

    def __init__(self, rows: Rows, targets: Float32s, pictures: Float32s) -> None:
        self.rows = rows
        self.targets = targets
        count = min(PHRASES, len(targets))
        scores = pictures @ targets.T  # (pictures, texts)
        self.nearest: Int64s = np.argpartition(-scores, count - 1, axis=1)[:, :count].astype(np.int64)

    def loss(self, prompts: Prompts, pictures: Int64s, tokens: Tensor) -> Tensor:
        """Return L_gpt: one of each picture's phrases, its keywords replaced by the pseudo-tokens, to itself."""
        drawn = torch.randint(self.nearest.shape[1], (len(pictures),)).numpy()
        chosen: Int64s = self.nearest[pictures, drawn]
        found = prompts.encode(self.rows.take(chosen), tokens)
        return cosine_loss(found, torch.from_numpy(self.targets[chosen]).to(prompts.device))


def invert_pictures(setup: Setup, pictures: Float32s, phrases: Phrases, *, steps: int, batch: int) -> Float32s:
    """Return pseudo-tokens found for every picture, float32 (n, tokens, token_dim): the mean over time, fading.

    Args:
        setup: the tower, seed and so on.
        pictures: unit vectors, float32 (n, dim).
        phrases: regularises them.
        steps: of AdamW, for every batch of pictures.
        batch: pictures that are searched for together; they do not see each other.
    """
    generator = torch.Generator().manual_seed(setup.seed)
    torch.manual_seed(setup.seed)
    tokens = setup.count("tokens")
    found = []
    batches = -(-len(pictures) // batch)
    for number in range(batches):
        rows = np.arange(number * batch, min((number + 1) * batch, len(pictures)), dtype=np.int64)
        start = torch.randn(len(rows), tokens, setup.token_dim, generator=generator) * _INITIAL_DEVIATION
        found.append(_invert(setup, pictures, rows, phrases, start, steps=steps, number=number, batches=batches))
    return np.concatenate(found)


def _invert(
    setup: Setup,
    pictures: Float32s,
    rows: Int64s,
    phrases: Phrases,
    start: Tensor,
    *,
    steps: int,
    number: int,
    batches: int,
) -> Float32s:
    templates = setup.prompts.rows(TEMPLATES)
    targets = setup.put(pictures[rows])
    tokens = start.to(targets.device).requires_grad_()
    mean = tokens.detach().clone()
    optimiser = torch.optim.AdamW([tokens], _RATE, weight_decay=_WEIGHT_DECAY)
    decay = _LEFT_OF_START ** (1 / steps)
    for step in range(steps):
        drawn = torch.randint(len(TEMPLATES), (len(rows),)).numpy()
        cosine = cosine_loss(setup.prompts.encode(templates.take(drawn), tokens), targets)
        phrase = phrases.loss(setup.prompts, rows, tokens)
        # The mean over pictures would divide each one's gradient by their number, which AdamW's step does not feel.
        loss = inversion_loss(cosine, phrase, phrase_weight=PHRASE_WEIGHT)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        mean.lerp_(tokens.detach(), 1 - decay if step else 1.0)
        setup.progress("inverting pictures", number * steps + step + 1, batches * steps)
    result: Float32s = mean.cpu().numpy()
    return result
