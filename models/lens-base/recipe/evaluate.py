"""Measures text-to-picture retrieval: a caption is the query, the pictures with exactly this caption are its answers.

Every group is its own gallery: the pictures of one kind and one split. Recall@k is the share of captions with an answer
among the k nearest pictures. Knows nothing of how the pictures were encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from texts import TextBank

Vectors = NDArray[np.float32]
Encoder = Callable[[Vectors], Vectors]
CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Group:
    """A gallery with captions: trunk features float32 (n, 1280) and one caption a picture."""

    features: Vectors
    captions: Sequence[str]


def recall(embeddings: Vectors, captions: Sequence[str], bank: TextBank) -> dict[str, float]:
    """Return recall@1, 5 and 10 in percent, and the numbers of queries and pictures.

    Args:
        embeddings: float32 (n, d), of any length; they are normalised here.
        captions: n captions; pictures with equal captions answer the same query.
    """
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    queries = sorted(set(captions))
    scores = bank.vectors[bank.rows(queries)] @ units.T  # (q, d) @ (d, n) -> (q, n)
    relevant = np.array(queries)[:, None] == np.array(captions)[None, :]
    best = np.where(relevant, scores, -np.inf).max(1, keepdims=True)
    ahead = (scores > best).sum(1)
    table = {f"recall@{k}": round(100 * float((ahead < k).mean()), 1) for k in CUTOFFS}
    return table | {"queries": len(queries), "pictures": len(captions)}


def measure(encoder: Encoder, groups: dict[str, Group], bank: TextBank) -> dict[str, dict[str, float]]:
    """Return the recall of every group under one picture encoder."""
    return {name: recall(encoder(group.features), group.captions, bank) for name, group in groups.items()}
