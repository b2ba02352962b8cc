"""What towers are trained by. Knows nothing of pictures and texts but their vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def both_ways(seen: Tensor, said: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss, pictures to texts and texts to pictures.

    Args:
        seen, said: unit vectors float32 (n, d) of pictures and of their texts.
        target: float32 (n, n), which shares of the texts belong to a picture, and of the pictures to a text.
    """
    scores = seen @ said.T / temperature
    return cross_entropy(scores, target) + cross_entropy(scores.T, target)


def contrast(seen: Tensor, said: Tensor, numbers: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss both ways; texts of the same thing share the target.

    Args:
        seen, said: unit vectors float32 (n, d) of pictures and of their texts.
        numbers: int64 (n,), equal for pictures of one thing.
    """
    same = (numbers[:, None] == numbers[None, :]).float()
    return both_ways(seen, said, same / same.sum(1, keepdim=True), temperature)


def same_thing(seen: Tensor, numbers: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss among pictures float32 (n, d); those alone of their thing do not count."""
    itself = torch.eye(len(seen), dtype=torch.bool)
    others = (numbers[:, None] == numbers[None, :]).masked_fill(itself, False).float()
    scores = (seen @ seen.T / temperature).masked_fill(itself, -1e4)
    paired = others.sum(1) > 0
    return cross_entropy(scores[paired], others[paired] / others[paired].sum(1, keepdim=True))


def attribute_loss(
    seen: Tensor, told: Sequence[dict[str, int]], texts: dict[str, Tensor], temperature: float
) -> Tensor:
    """Return how badly pictures find the words of their attributes, summed over attributes, shared by all pictures.

    Args:
        seen: unit vectors float32 (n, d).
        told: for each picture the place of the value that each of its attributes has.
        texts: for each attribute unit vectors float32 (values, d).
    """
    loss = torch.zeros(())
    for name, vectors in texts.items():
        rows = [row for row, own in enumerate(told) if name in own]
        if rows:
            wanted = torch.tensor([told[row][name] for row in rows])
            scores = seen[rows] @ vectors.T / temperature
            loss = loss + cross_entropy(scores, wanted) * len(rows) / len(told)
    return loss
