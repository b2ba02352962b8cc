"""The frozen text tower behind its tokenizer: texts and prompts with `$` to ids, and ids to embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketlens._types import Float32s, Int64s
from pocketlens.model import PLACEHOLDER_ID
from pocketlens.text import Tokenizer
from pocketlens_export.fit.data import Progress
from pocketlens_export.fit.keywords import PLACE
from pocketlens_export.fit.tower import TextTower

PLAIN = f"a photo of {PLACE}"
_ENCODED_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Ids of many prompts, each cut to its own length.

    Attributes:
        ids: int64 (n, l), padded to the longest.
        lengths: int64 (n,).
    """

    ids: Int64s
    lengths: Int64s

    def take(self, rows: Int64s) -> Int64s:
        """Return the ids of some rows, padded to the longest of them."""
        ids: Int64s = self.ids[rows, : int(self.lengths[rows].max())]
        return ids


class Prompts:
    """Encodes texts, and prompts in which every `$` stands for pseudo-tokens, through the frozen tower.

    Args:
        tower: the text tower in torch.
        tokenizer: its tokenizer.
        tokens: pseudo-tokens of a `$`.
    """

    def __init__(self, tower: TextTower, tokenizer: Tokenizer, *, tokens: int) -> None:
        self._tower = tower
        self._tokenizer = tokenizer
        self._tokens = tokens
        self.device = tower.device

    def rows(self, prompts: Sequence[str]) -> Rows:
        """Return the ids of prompts; every `$` becomes places for pseudo-tokens."""
        return self._pad([self._tokenizer.prompt_ids(prompt.split(PLACE), self._tokens) for prompt in prompts])

    def encode(self, ids: Int64s, pseudo_tokens: Tensor) -> Tensor:
        """Return unit embeddings, float32 (n, dim), of prompts with one picture's pseudo-tokens each.

        Args:
            ids: int64 (n, l), padded.
            pseudo_tokens: float32 (n, tokens, token_dim); every `$` of a row takes the same.
        """
        places = int((ids == PLACEHOLDER_ID).sum(axis=1).max(initial=0))
        repeats = -(-places // self._tokens)  # of every row's tokens, for its prompt with the most places
        return self._tower(torch.from_numpy(ids).to(self.device), pseudo_tokens.repeat(1, max(repeats, 1), 1))

    def encode_texts(self, texts: Sequence[str], *, progress: Progress) -> Float32s:
        """Return unit embeddings, float32 (n, dim), of texts; a `$` in one is a sign like any other."""
        rows = self._pad(self._tokenizer.ids(texts))
        out = np.zeros((len(texts), self._tower.dim), dtype=np.float32)
        order = np.argsort(rows.lengths, kind="stable")
        for start in range(0, len(order), _ENCODED_AT_ONCE):
            some = order[start : start + _ENCODED_AT_ONCE]
            ids = torch.from_numpy(rows.take(some)).to(self.device)
            with torch.no_grad():
                out[some] = self._tower(ids, ids.new_zeros((len(some), 0, self._tower.spec.token_dim)).float()).cpu()
            progress("encoding texts", start + len(some), len(order))
        return out

    def _pad(self, found: Sequence[Sequence[int]]) -> Rows:
        spec = self._tower.spec
        width = max(map(len, found), default=1) if spec.trim else spec.context_length
        ids = np.full((len(found), width), spec.pad_id, dtype=np.int64)
        for row, values in zip(ids, found, strict=True):
            row[: len(values)] = values
        return Rows(ids, np.array([len(values) if spec.trim else width for values in found], dtype=np.int64))
