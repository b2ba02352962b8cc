"""LinCIR: a network learnt from texts alone (arXiv 2312.01998). See docs/composition.md for what was chosen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pocketlens._types import Int64s
from pocketlens.compose.method import Parameter
from pocketlens_export.fit.keywords import find_tagger, mask_keywords, tagger_parameter
from pocketlens_export.fit.losses import add_noise, squared_distance
from pocketlens_export.fit.recipe import Optimiser, Recipe, Setup, common_parameters, make_network

HELD_OUT = 512  # texts that the held-out loss is taken over, at most
_BATCH = 100


class LinCir:
    """Self-masking projection: the text with its keywords replaced by the pseudo-token must mean what the text does."""

    def __init__(self, setup: Setup) -> None:
        tag = find_tagger(str(setup.values["tagger"]))
        self.network = make_network(setup, activation="gelu")
        texts, held = setup.data.texts, setup.data.held_texts[:HELD_OUT]
        self._prompts = setup.prompts
        self._noise = setup.number("noise")
        self._rows = setup.prompts.rows([mask_keywords(text, tag, seed=setup.seed) for text in texts])
        self._held_rows = setup.prompts.rows([mask_keywords(text, tag, seed=setup.seed) for text in held])
        self._targets = setup.encode(texts)
        self._held_targets = setup.encode(held)
        self.lengths = self._rows.lengths

    def loss(self, rows: Int64s) -> Tensor:
        """Return the squared distance of masked texts to their texts, the pseudo-tokens made of noisy embeddings."""
        targets = torch.from_numpy(self._targets[rows]).to(self._prompts.device)
        amounts = torch.rand(len(rows), 1, device=targets.device)
        noisy = add_noise(targets, amounts, torch.randn_like(targets), scale=self._noise)
        found = self._prompts.encode(self._rows.take(rows), self.network.of_texts(noisy))
        return squared_distance(found, targets)

    def held_out_loss(self) -> float:
        """Return the loss of held-out texts without noise."""
        total = 0.0
        for start in range(0, len(self._held_targets), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(self._held_targets)))
            targets = torch.from_numpy(self._held_targets[rows]).to(self._prompts.device)
            found = self._prompts.encode(self._held_rows.take(rows), self.network.of_texts(targets))
            total += float(squared_distance(found, targets)) * len(rows)
        return total / max(len(self._held_targets), 1)


LINCIR = Recipe(
    name="lincir",
    about="learns from texts alone: a text whose keywords are replaced by its pseudo-token must keep its meaning",
    source="LinCIR, arXiv 2312.01998",
    needs=("texts",),
    steps=2_000,
    batch=256,
    warm_up=50,
    optimiser=Optimiser(),
    parameters={
        **common_parameters(hidden=0, dropout=0.1, rate=3e-4),
        "noise": Parameter(1.0, "largest norm of the noise, as a share of the embedding's", 0.0, 10.0),
        "tagger": tagger_parameter(),
    },
    departures=(
        "Embeddings are of unit length in training and in use, where LinCIR's are not: the runtime has no others.",
        "The noise is scaled to that length (u · eps · noise / √dim) and the sum brought back to length 1.",
        "2,000 steps of 256 texts at a rate of 3e-4 and dropout 0.1, for 20,000 of 512 at 1e-4 and 0.5: a network for "
        "one CPU's hours sees too few texts to overfit.",
        "At most three `$` stand in a text.",
    ),
)
