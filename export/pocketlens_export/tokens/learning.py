"""A token learner in training: frozen towers' maps and embeddings in, contrast through the text tower out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pocketlens._types import Float32s, Int64s
from pocketlens.compose.method import Parameter, Value
from pocketlens_export.fit.losses import symmetric_info_nce
from pocketlens_export.fit.prompts import PLAIN, Prompts
from pocketlens_export.fit.recipe import Optimiser, Recipe, common_parameters
from pocketlens_export.split import Split
from pocketlens_export.tokens.learner import TokenLearner
from pocketlens_export.tokens.losses import local_alignment, token_drift
from pocketlens_export.tokens.maps import Maps

HELD_OUT = 1_024  # validation pictures that the held-out loss is taken over, at most

_COMMON = common_parameters(hidden=512, dropout=0.1, rate=1e-3)
ISA = Recipe(
    name="isa",
    about=(
        "looks at the light tower's feature map once for each token; 'a photo of $' with the tokens must find the "
        "heavy tower's embedding of the same view among those of the batch"
    ),
    source="Image2Sentence (ISA), arXiv 2403.01431",
    needs=("pictures",),
    steps=2_000,
    batch=128,
    warm_up=100,
    optimiser=Optimiser(weight_decay=0.01),
    parameters={
        **{name: _COMMON[name] for name in ("hidden", "dropout", "rate", "precision")},
        "decay": Parameter("cosine", _COMMON["decay"].about, choices=("constant", "cosine")),
        "temperature": Parameter(0.05, "what cosines are divided by in the contrast", 0.005, 1.0),
        "alignment": Parameter(0.5, "weight of the local alignment", 0.0, 100.0),
        "views": Parameter(4, "views of a picture that are encoded; the first is the picture", 1, 64, whole=True),
    },
    departures=(
        "The losses are a reconstruction: the paper's formulas could not be verified. They are InfoNCE in both "
        "directions between sentences and the heavy tower's embeddings, and 1 - cosine between what each token tells "
        "and what the heavy tower's map has where that token looks. Where the heavy tower gives no map, the mean token "
        "is held near the mean word instead.",
        "The light tower is frozen: its map is computed once for every view.",
    ),
)
"""How a token learner is trained, with the values that --set may give."""


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """What is known of the text tower's own token embeddings.

    Attributes:
        mean: float32 (token_dim,).
        spread: mean squared distance to the mean.
        norm: the median length.
    """

    mean: Float32s
    spread: float
    norm: float


def describe_words(table: Float32s) -> Words:
    """Return what a table of token embeddings, float32 (words, token_dim), is like."""
    mean = table.mean(axis=0, dtype=np.float64)
    spread = float(((table - mean) ** 2).sum(axis=1).mean())
    return Words(mean.astype(np.float32), spread, float(np.median(np.linalg.norm(table, axis=1))))


class Pupil(nn.Module):
    """What is trained: the learner, and a linear map that tells a token in the heavy map's channels, never exported."""

    def __init__(self, learner: TokenLearner, channels: int | None) -> None:
        super().__init__()
        self.learner = learner
        self.teller = None if channels is None else nn.Linear(learner.token_dim, channels)


class Learning:
    """The task of the training loop. A row is a picture, of which every step draws a view.

    Args:
        prompts: the frozen text tower behind its tokenizer.
        maps: what the picture towers made of the views.
        split: which pictures are trained on, and by which the held-out loss is taken.
        words: of the text tower.
        tokens: pseudo-tokens of a picture.
        values: of ISA's parameters.
        seed: of the weights.
    """

    def __init__(
        self,
        prompts: Prompts,
        maps: Maps,
        split: Split,
        words: Words,
        *,
        tokens: int,
        values: Mapping[str, Value],
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        learner = TokenLearner(
            maps.features.shape[2],
            len(words.mean),
            tokens=tokens,
            hidden=int(values["hidden"]),
            norm=words.norm,
            dropout=float(values["dropout"]),
            scale=maps.scale(split.train),
        )
        self._prompts, self._maps, self._split = prompts, maps, split
        self._scale, self._alignment = 1 / float(values["temperature"]), float(values["alignment"])
        self._row = prompts.rows([PLAIN]).ids  # (1, l)
        self.network = Pupil(learner, None if maps.cells is None else maps.cells.shape[-1]).to(prompts.device)
        self.lengths = np.full(len(split.train), self._row.shape[1], dtype=np.int64)
        self._cell_mean = None if maps.cells is None else self._put(maps.cell_mean(split.train))
        self._word_mean, self._word_spread = self._put(words.mean), words.spread

    def loss(self, rows: Int64s) -> Tensor:
        """Return the loss of a batch of training pictures, a view drawn of each."""
        views = torch.randint(self._maps.features.shape[1], (len(rows),)).numpy()
        return self._loss(self._split.train[rows], views)

    def held_out_loss(self) -> float:
        """Return the loss of the validation pictures themselves, as one batch."""
        rows = self._split.validation[:HELD_OUT]
        return float(self._loss(rows, np.zeros(len(rows), dtype=np.int64)))

    def _loss(self, pictures: Int64s, views: Int64s) -> Tensor:
        tokens, shares = self.network.learner.look(self._put(self._maps.features[pictures, views]))
        sentences = self._prompts.encode(np.repeat(self._row, len(pictures), axis=0), tokens)
        heavy = self._put(self._maps.vectors[pictures, views])
        loss = symmetric_info_nce(heavy, sentences, scale=self._scale)
        return loss + self._alignment * self._local(tokens, shares, pictures, views)

    def _local(self, tokens: Tensor, shares: Tensor, pictures: Int64s, views: Int64s) -> Tensor:
        if self.network.teller is None or self._cell_mean is None or self._maps.cells is None:
            return token_drift(tokens, self._word_mean, spread=self._word_spread)
        cells = self._put(self._maps.cells[pictures, views]) - self._cell_mean
        return local_alignment(self.network.teller(tokens), shares, cells)

    def _put(self, array: Float32s | np.ndarray[tuple[int, ...], np.dtype[np.float16]]) -> Tensor:
        return torch.from_numpy(np.asarray(array, dtype=np.float32)).to(self._prompts.device)
