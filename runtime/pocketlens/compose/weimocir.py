"""WeiMoCIR: a weighted sum, and a second look at what the best rows are called.

Two deviations. The paper adds vectors that are not of unit length; towers here give unit vectors only. And the paper
has a language model write three captions of every gallery picture; here the three names of the vocabulary nearest to a
picture stand in for them, found when a query asks, and only for the rows that may come first. The captions are
compared with what is wanted alone: a negative changes the sum's part of the score, not theirs.
"""

from __future__ import annotations

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.compose.method import Composed, Fuse, Kit, Method, Parameter, Query, Scores, Values
from pocketlens.compose.values import number
from pocketlens.compose.weights import image_vector, shift_share, text_ratio, text_vector, unit
from pocketlens.concepts import Concepts

CAPTIONED = 200  # rows that get captions; the nearest names of a new row cost as much as thousands of rows' cosines
_CAPTIONS = 3  # a row, as in the paper


def _weimocir(query: Query, kit: Kit, values: Values) -> Composed:
    share = shift_share(number(values, "text_share"), text_ratio(query))
    mixed = (1.0 - share) * image_vector(query) + share * text_vector(query, kit)
    vector = unit(mixed, "the text and the picture cancel out")
    caption_share = number(values, "caption_share")
    fuse = _with_captions(vector, kit.concepts, caption_share) if caption_share > 0.0 else None
    return Composed(vector[np.newaxis], fuse)


def _with_captions(vector: Float32s, concepts: Concepts, share: float) -> Fuse:
    usual = float(concepts.mean @ vector)

    def fuse(scores: Scores) -> Float32s:
        best = _best(scores.values[0], CAPTIONED)
        nearest, _ = concepts.nearest(scores.rows(best), _CAPTIONS)  # (best, captions)
        names, places = np.unique(nearest, return_inverse=True)
        named = concepts.vectors[names] @ vector  # (distinct names,)
        captions = np.full(scores.values.shape[1], usual, dtype=np.float32)
        captions[best] = named[places.reshape(nearest.shape)].mean(axis=1)
        return np.asarray((1.0 - share) * scores.values[0] + share * captions, dtype=np.float32)

    return fuse


def _best(values: Float32s, count: int) -> Int64s:
    """Return the positions of the `count` highest values, int64 (at most count,); equal ones in row order."""
    if len(values) <= count:
        return np.arange(len(values))
    least = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > least)
    return np.concatenate([above, np.flatnonzero(values == least)[: count - len(above)]])


WEIMOCIR = Method(
    name="weimocir",
    about="a weighted sum, and for the best rows the names nearest to them as captions (none at caption_share 0)",
    formula="q = n((1 - a) v + a t); (1 - b) q·g + b mean of q·c over the 3 names c nearest to g; "
    "a = text_share, b = caption_share; c = mu_t beyond the best 200 rows",
    source="Wu et al., TAAI 2024, arXiv 2409.04918",
    needs=("image", "text", "concepts"),
    text_passes=1,
    compose=_weimocir,
    parameters={
        "text_share": Parameter(0.8, "share of the text in the sum: 0 is the picture, 1 the text"),
        "caption_share": Parameter(0.1, "share of the captions in the score"),
    },
)
