"""The networks that turn an embedding into pseudo-tokens. Three linear layers all; activation and dropout differ."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketlens._types import Float32s


class Network(nn.Module):
    """A unit embedding, float32 (n, dim), to pseudo-tokens, float32 (n, tokens, token_dim).

    With "gelu" and dropout 0.5 it is the phi of SEARLE and LinCIR (arXiv 2303.15247, 2312.01998), with "relu", dropout
    0.1 and hidden 512 the IM2TEXT of Pic2Word (arXiv 2302.03084).

    Args:
        dim: width of the embedding.
        token_dim: width of a token of the text tower.
        hidden: width of the two hidden layers.
        tokens: pseudo-tokens of one embedding.
        activation: between the layers.
        dropout: share of hidden values dropped in training.
        shift: float32 (dim,), what is taken from a picture's embedding, which is then brought back to length 1; None:
            it is used as it is.
    """

    shift: Tensor | None

    def __init__(
        self,
        dim: int,
        token_dim: int,
        *,
        hidden: int,
        tokens: int,
        activation: Literal["gelu", "relu"],
        dropout: float,
        shift: Float32s | None = None,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.token_dim = token_dim
        self.activation: Literal["gelu", "relu"] = activation
        self.linears = [nn.Linear(dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, tokens * token_dim)]
        self.layers = nn.ModuleList(self.linears)  # makes their weights the network's
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("shift", None if shift is None else torch.from_numpy(shift))

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the pseudo-tokens of pictures: what is exported."""
        return self.of_texts(embedding if self.shift is None else functional.normalize(embedding - self.shift, dim=-1))

    def of_texts(self, embedding: Tensor) -> Tensor:
        """Return the pseudo-tokens of text embeddings, which need no shift."""
        value = embedding
        act = functional.gelu if self.activation == "gelu" else functional.relu
        for layer in self.linears[:-1]:
            value = self.dropout(act(layer(value)))
        tokens: Tensor = self.linears[-1](value)
        return tokens.view(-1, self.tokens, self.token_dim)
