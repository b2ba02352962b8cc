"""Pic2Word: a network learnt from pictures alone, by contrast through the text tower (arXiv 2302.03084)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pocketlens._types import Float32s, Int64s
from pocketlens.compose.method import Parameter
from pocketlens_export.fit.losses import symmetric_info_nce
from pocketlens_export.fit.prompts import PLAIN
from pocketlens_export.fit.recipe import Optimiser, Recipe, Setup, common_parameters, make_network

HELD_OUT = 1_024  # pictures that the held-out loss is taken over, at most


class Pic2Word:
    """`a photo of $` must be nearer to its own picture than to the other pictures of a batch."""

    def __init__(self, setup: Setup) -> None:
        self.network = make_network(setup, activation="relu")
        self._prompts = setup.prompts
        self._scale = setup.number("scale")
        self._pictures = setup.data.pictures
        self._held = setup.data.held_pictures[:HELD_OUT]
        self._row = setup.prompts.rows([PLAIN]).ids  # (1, l)
        self.lengths = np.full(len(self._pictures), self._row.shape[1], dtype=np.int64)

    def loss(self, rows: Int64s) -> Tensor:
        """Return the contrastive loss of a batch of pictures."""
        return self._contrast(self._pictures[rows])

    def held_out_loss(self) -> float:
        """Return the contrastive loss of the held-out pictures as one batch."""
        return float(self._contrast(self._held)) if len(self._held) else 0.0

    def _contrast(self, vectors: Float32s) -> Tensor:
        pictures = torch.from_numpy(vectors).to(self._prompts.device)
        ids: Int64s = np.repeat(self._row, len(vectors), axis=0)
        return symmetric_info_nce(pictures, self._prompts.encode(ids, self.network(pictures)), scale=self._scale)


PIC2WORD = Recipe(
    name="pic2word",
    about="learns from pictures alone: 'a photo of $' must find its picture among those of the batch",
    source="Pic2Word, arXiv 2302.03084",
    needs=("pictures",),
    steps=2_000,
    batch=256,
    warm_up=100,
    optimiser=Optimiser(weight_decay=0.1, betas=(0.9, 0.98), epsilon=1e-6),
    parameters={
        **common_parameters(hidden=512, dropout=0.1, rate=1e-4),
        "scale": Parameter(100.0, "what cosines are multiplied by; a model folder does not say its own", 1.0, 1_000.0),
    },
    departures=(
        "2,000 steps of 256 pictures after a warm-up of 100, for 30 epochs of 3 million pictures by 1,024 after a "
        "warm-up of 10,000: what a CPU can do with thousands of pictures.",
        "Embeddings are of unit length where Pic2Word's network takes them as they are: the runtime has no others.",
        "The frozen logit scale is CLIP's usual 100: a model folder does not hold its model's own.",
    ),
)
