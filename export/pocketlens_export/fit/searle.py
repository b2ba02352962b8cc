"""SEARLE: pseudo-tokens found for some pictures by optimisation, then a network that imitates them (2303.15247)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pocketlens._types import Float32s, Int64s
from pocketlens.compose.method import Parameter
from pocketlens_export.fit.inversion import INVERTING, Phrases, invert_pictures
from pocketlens_export.fit.keywords import find_tagger, mask_keywords, tagger_parameter
from pocketlens_export.fit.losses import distillation_loss, nt_xent
from pocketlens_export.fit.recipe import Optimiser, Recipe, Setup, common_parameters, make_network

TEMPERATURE = 0.25
PHRASE_WEIGHT = 0.75
HELD_OUT = 64  # pictures inverted to measure the held-out loss on, at most


class Searle:
    """The network's tokens of a picture must be near those found for it, and work in the phrases near to it."""

    def __init__(self, setup: Setup) -> None:
        self.network = make_network(setup, activation="gelu")
        self._prompts = setup.prompts
        self._pictures = _some(setup.data.pictures, setup.count("pictures"), setup.seed)
        self._held = _some(setup.data.held_pictures, HELD_OUT, setup.seed)
        texts = _texts(setup)
        tag = find_tagger(str(setup.values["tagger"]))
        masked = [mask_keywords(text, tag, seed=setup.seed) for text in texts]
        rows = setup.prompts.rows(masked)
        targets = setup.encode(texts)
        self._phrases = Phrases(rows, targets, self._pictures)
        self._teacher = _inverted(setup, self._pictures, [*texts, *masked], self._phrases)
        self._held_teacher = _inverted(setup, self._held, [*texts, *masked], Phrases(rows, targets, self._held))
        # A step's length is that of the phrases drawn, which no order of the pictures foretells.
        self.lengths = np.ones(len(self._pictures), dtype=np.int64)

    def loss(self, rows: Int64s) -> Tensor:
        """Return L_distil + 0.75 · L_gpt of a batch of pictures."""
        device = self._prompts.device
        tokens = self.network(torch.from_numpy(self._pictures[rows]).to(device))
        teacher = torch.from_numpy(self._teacher[rows]).to(device)
        distil = nt_xent(teacher.flatten(1), tokens.flatten(1), temperature=TEMPERATURE)
        phrase = self._phrases.loss(self._prompts, rows, tokens)
        return distillation_loss(distil, phrase, phrase_weight=PHRASE_WEIGHT)

    def held_out_loss(self) -> float:
        """Return L_distil of the held-out pictures as one batch."""
        if len(self._held) == 0:
            return 0.0
        device = self._prompts.device
        tokens = self.network(torch.from_numpy(self._held).to(device))
        teacher = torch.from_numpy(self._held_teacher).to(device)
        return float(nt_xent(teacher.flatten(1), tokens.flatten(1), temperature=TEMPERATURE))


def _some(vectors: Float32s, count: int, seed: int) -> Float32s:
    chosen = np.random.default_rng(seed).permutation(len(vectors))[:count]
    return vectors[np.sort(chosen)]


def _texts(setup: Setup) -> list[str]:
    texts = setup.data.texts
    count = setup.count("phrases")
    chosen = np.random.default_rng(setup.seed).permutation(len(texts))[:count]
    return [texts[i] for i in np.sort(chosen)]


def _inverted(setup: Setup, pictures: Float32s, texts: list[str], phrases: Phrases) -> Float32s:
    """Return the tokens found for pictures; `texts` are all that `phrases` were made of."""
    tokens = setup.count("tokens")
    if len(pictures) == 0:
        return np.zeros((0, tokens, setup.token_dim), dtype=np.float32)
    steps, batch = setup.count("inversion_steps"), setup.count("inversion_batch")
    key = ["inverted", INVERTING, setup.seed, tokens, steps, batch, pictures.tobytes(), *texts]
    return setup.memory(key, lambda: invert_pictures(setup, pictures, phrases, steps=steps, batch=batch))


SEARLE = Recipe(
    name="searle",
    about="imitates pseudo-tokens that were found for some pictures by optimisation",
    source="SEARLE, arXiv 2303.15247",
    needs=("texts", "pictures"),
    steps=1_000,
    batch=256,
    warm_up=50,
    optimiser=Optimiser(),
    parameters={
        **common_parameters(hidden=0, dropout=0.5, rate=1e-4),
        "pictures": Parameter(1_024, "pictures that tokens are found for", 2, 1_000_000, whole=True),
        "inversion_steps": Parameter(150, "steps to find a picture's tokens", 1, 10_000, whole=True),
        "inversion_batch": Parameter(128, "pictures that tokens are found for together", 1, 65_536, whole=True),
        "phrases": Parameter(20_000, "texts of the regulariser, at most", 1, 10_000_000, whole=True),
        "tagger": tagger_parameter(),
    },
    departures=(
        "Tokens are found for 1,024 pictures in 150 steps each, for 100,000 pictures in 350 steps: a CPU's hours.",
        "The phrases of the regulariser are the texts of --data nearest to a picture, at most 15, with their keywords "
        "masked, for phrases that GPT-Neo made of a picture's nearest concepts.",
        "A dozen templates of our own stand for PALAVRA's.",
        "Embeddings are of unit length, as everywhere in pocketlens.",
    ),
)
