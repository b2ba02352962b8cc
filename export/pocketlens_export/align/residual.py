"""The residual MLP: the ridge map and a hidden layer beside it, trained on cosines and on likeness to other pictures.

Drift-Adapter (EMNLP 2025, arXiv 2509.23471) has x + MLP(x); a ridge map in the place of x lets dimensions differ, and
is where training starts, for the hidden layer's output is 0 at first. Its paper's settings could not be read: width,
rate and patience are ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketlens._types import Int64s
from pocketlens.errors import Refused
from pocketlens_export.align.linear import choose_ridge
from pocketlens_export.align.maps import Fitted, Float64s, Hidden, Map, Pairs, Progress, Tried, mean_cosine
from pocketlens_export.fit.batches import Batches

CROSS_WEIGHT = 0.7482  # RAML's lambda 1 (WACV 2023), by its code
_WIDTH = 512
_BATCH, _RATE, _DECAY = 256, 1e-3, 0.01
_ROUND = 100  # steps between two looks at the validation pairs
_ROUNDS, _PATIENCE = 40, 5


class Residual(nn.Module):
    """A map in training; x, float32 (n, light dim), to unit vectors (n, heavy dim)."""

    def __init__(self, start: Map) -> None:
        super().__init__()
        light, heavy = start.weight.shape
        self.linear, self.inner = nn.Linear(light, heavy), nn.Linear(light, _WIDTH)
        self.outer = nn.Linear(_WIDTH, heavy, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(start.weight.T))
            self.linear.bias.copy_(torch.from_numpy(start.bias))
            self.outer.weight.zero_()

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the mapped vectors."""
        beside: Tensor = self.outer(functional.relu(self.inner(vectors)))
        return functional.normalize(self.linear(vectors) + beside, dim=-1)

    def to_map(self) -> Map:
        """Return what it computes now."""
        hidden = Hidden(_wide(self.inner.weight).T, _wide(self.inner.bias), _wide(self.outer.weight).T)
        return Map(_wide(self.linear.weight).T, _wide(self.linear.bias), hidden)


def alignment_loss(found: Tensor, target: Tensor) -> Tensor:
    """Return mean_i (1 - g_i·f_i) + 0.7482 mean over i ≠ j of (g_i·f_j - f_i·f_j)².

    The second is RAML's cross term (WACV 2023): a mapped picture is to be as like the others as the heavy one is.

    Args:
        found: g, float32 (n, dim), of length 1; n at least 2.
        target: f, float32 (n, dim), of length 1.
    """
    cosines = (found * target).sum(dim=-1)
    difference = found @ target.T - target @ target.T  # (n, n)
    others = ~torch.eye(len(found), dtype=torch.bool, device=found.device)
    return (1 - cosines).mean() + CROSS_WEIGHT * difference[others].square().mean()


def fit_residual(
    train: Pairs, validation: Pairs, *, seed: int, progress: Progress, threads: int | None = None
) -> Fitted:
    """Return the map with the highest mean cosine on the validation pairs, which are looked at every 100 steps.

    Step 0 is the ridge map. Training ends 500 steps after the best one, and after 4,000 in any case. The same seed and
    threads give the same map.

    Args:
        train: n pairs.
        validation: other pairs.
        seed: of weights and order.
        progress: told of steps.
        threads: of torch, from now on; None: as it is.

    Raises:
        Refused: the loss is no longer a number.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    network = Residual(choose_ridge(train, validation).map)
    layers = [*network.inner.parameters(), *network.outer.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": layers, "weight_decay": _DECAY},
        {"params": list(network.linear.parameters()), "weight_decay": 0.0},  # ridge has its own penalty
    ]
    optimiser = torch.optim.AdamW(groups, _RATE)
    batches = Batches(np.ones(len(train), dtype=np.int64), _BATCH, seed=seed)
    best = network.to_map()
    tried = [Tried("step 0", mean_cosine(best, validation))]
    since = 0
    while since < _PATIENCE and len(tried) <= _ROUNDS:
        for step in range((len(tried) - 1) * _ROUND, len(tried) * _ROUND):
            _take_step(network, optimiser, train, batches.rows(step))
            progress("training the map", step + 1, _ROUNDS * _ROUND)
        found = network.to_map()
        cosine = mean_cosine(found, validation)
        since += 1
        if cosine > max(each.cosine for each in tried):
            best, since = found, 0
        tried.append(Tried(f"step {len(tried) * _ROUND}", cosine))
    chosen = max(tried, key=lambda each: each.cosine)
    return Fitted(best, chosen.name, tuple(tried))


def _take_step(network: Residual, optimiser: torch.optim.Optimizer, train: Pairs, rows: Int64s) -> None:
    light, heavy = (torch.from_numpy(side[rows].astype(np.float32)) for side in (train.light, train.heavy))
    loss = alignment_loss(network(light), heavy)
    if not torch.isfinite(loss):
        value = float(loss.detach())
        raise Refused(f"the loss of the residual MLP is {value}; fit a linear map instead (--map ridge)")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _wide(parameter: Tensor) -> Float64s:
    return parameter.detach().numpy().astype(np.float64)
