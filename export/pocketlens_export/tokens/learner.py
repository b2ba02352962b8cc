"""The token learner: each pseudo-token looks at its own part of a feature map (ISA, arXiv 2403.01431).

The paper's exact network could not be verified. This one is a spatial attention per token, a mean weighted by it, and
two linear layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketlens._types import Float32s
from pocketlens_export.fit.network_graph import NetworkGraph

_EPSILON = 1e-5  # of the layer norm


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """What the values of a feature map are brought to mean 0 and deviation 1 by.

    Attributes:
        mean, deviation: of every channel, float32 (channels,).
    """

    mean: Float32s
    deviation: Float32s


class TokenLearner(nn.Module):
    """A feature map F, float32 (n, c, h, w), to pseudo-tokens, float32 (n, tokens, token_dim).

    With x the h·w cells of F, every channel scaled to mean 0 and deviation 1:

        A = softmax over the cells of (x · W_A + b_A)     (n, h·w, tokens)
        z_k = sum over the cells of A_k · x               (n, tokens, c)
        u_k = gelu(LayerNorm(z_k) · W_1 + b_1k) · W_2 + b_2
        t_k = s_k · u_k / |u_k|

    The tokens share W_1 and W_2; b_1k tells them apart where a map has few cells. s_k begins as the norm of a word of
    the text tower and is trained: a tower whose norms come first hardly sees a token that is much shorter.

    Args:
        channels: c, of the map.
        token_dim: width of a token of the text tower.
        tokens: pseudo-tokens of a picture.
        hidden: width of the hidden layer.
        norm: of a token, to begin with.
        dropout: share of hidden values dropped in training.
        scale: of the map's channels.
    """

    mean: Tensor
    factor: Tensor

    def __init__(
        self, channels: int, token_dim: int, *, tokens: int, hidden: int, norm: float, dropout: float, scale: Scale
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.token_dim = token_dim
        self.attention = nn.Linear(channels, tokens)
        self.first = nn.Linear(channels, hidden, bias=False)
        self.offsets = nn.Parameter(0.02 * torch.randn(tokens, hidden))
        self.second = nn.Linear(hidden, token_dim)
        self.dropout = nn.Dropout(dropout)
        self.norms = nn.Parameter(torch.full((tokens, 1), norm))
        self.register_buffer("mean", torch.from_numpy(scale.mean))
        self.register_buffer("factor", torch.from_numpy(1 / scale.deviation))

    def forward(self, features: Tensor) -> Tensor:
        """Return the pseudo-tokens: what is exported."""
        tokens, _ = self.look(features)
        return tokens

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pseudo-tokens, and where each looks: shares of the cells, float32 (n, h·w, tokens)."""
        cells = (features.flatten(2).transpose(1, 2) - self.mean) * self.factor  # (n, c, h, w) -> (n, h·w, c)
        shares = self.attention(cells).softmax(dim=1)
        seen = shares.transpose(1, 2) @ cells  # (n, tokens, c)
        hidden = functional.gelu(self.first(functional.layer_norm(seen, seen.shape[-1:], eps=_EPSILON)) + self.offsets)
        return self.norms * functional.normalize(self.second(self.dropout(hidden)), dim=-1), shares


def write_learner(learner: TokenLearner, path: Path, *, height: int, width: int) -> None:
    """Write features float32 (n, c, height, width) to pseudo_tokens float32 (n, tokens, token_dim), int8 weights."""
    graph = NetworkGraph()
    channels = learner.first.in_features
    shape = graph.constant("cells.shape", np.array([0, channels, height * width], dtype=np.int64))
    flat = graph.add("Reshape", "cells.flat", "features", shape)
    cells = graph.add("Transpose", "cells.rows", flat, perm=[0, 2, 1])
    cells = graph.add("Sub", "cells.centred", cells, graph.constant("mean", _array(learner.mean)))
    cells = graph.add("Mul", "cells", cells, graph.constant("factor", _array(learner.factor)))
    looked = _linear(graph, "attention", cells, learner.attention.weight, learner.attention.bias)
    shares = graph.add("Transpose", "turned", graph.add("Softmax", "shares", looked, axis=1), perm=[0, 2, 1])
    seen = graph.add("MatMul", "seen", shares, cells)
    ones = graph.constant("ones", np.ones(channels, dtype=np.float32))
    normed = graph.add("LayerNormalization", "normed", seen, ones, axis=-1, epsilon=_EPSILON)
    hidden = graph.add("Gelu", "hidden", _linear(graph, "first", normed, learner.first.weight, learner.offsets))
    rows = _linear(graph, "second", hidden, learner.second.weight, learner.second.bias)
    units = graph.add("LpNormalization", "units", rows, axis=-1, p=2)
    graph.add("Mul", "pseudo_tokens", units, graph.constant("norms", _array(learner.norms)))
    graph.save(path, "features", [channels, height, width], [learner.tokens, learner.token_dim])


def _linear(graph: NetworkGraph, name: str, value: str, weight: Tensor, bias: Tensor) -> str:
    product = graph.add("MatMul", f"{name}.product", value, graph.weight(f"{name}.weight", _array(weight).T))
    return graph.add("Add", f"{name}.sum", product, graph.constant(f"{name}.bias", _array(bias)))


def _array(value: Tensor) -> Float32s:
    array: Float32s = value.detach().cpu().numpy()
    return array
