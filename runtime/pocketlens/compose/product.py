"""Scores multiplied: a row must be like the picture and like the text.

Scores below zero count as zero, so that two of them do not make a good row. Rows whose product is zero tie, and a
search keeps ties in row order: the formula says no more about them.
"""

from __future__ import annotations

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose.method import Composed, Kit, Method, Query, Scores, Values
from pocketlens.compose.scores import centre
from pocketlens.compose.weights import image_vector, length, score_powers, text_ratio, text_vector


def _product(query: Query, kit: Kit, values: Values) -> Composed:
    powers = score_powers(text_ratio(query))

    def fuse(scores: Scores) -> Float32s:
        return multiply(scores.values, powers)

    return Composed(np.stack([image_vector(query), text_vector(query, kit)]), fuse)


def _centred_product(query: Query, kit: Kit, values: Values) -> Composed:
    powers = score_powers(text_ratio(query))

    def fuse(scores: Scores) -> Float32s:
        return multiply(centre(scores), powers)  # q·(g - mu) = q·g - q·mu

    return Composed(np.stack([centred_image(query, kit), centred_text(query, kit)]), fuse)


def multiply(values: Float32s, powers: tuple[float, float]) -> Float32s:
    """Return max(0, s_v)^p_v * max(0, s_t)^p_t, float32 (n,), of scores float32 (2, n)."""
    image, text = np.maximum(values, 0.0)
    return np.asarray(image ** powers[0] * text ** powers[1], dtype=np.float32)


def centred_image(query: Query, kit: Kit) -> Float32s:
    """Return v - mu_v, float32 (dim,): what sets the picture apart from the gallery."""
    vector = image_vector(query) - kit.mean
    length(vector, "the picture is the mean of the gallery, so centring leaves nothing of it")
    return vector


def centred_text(query: Query, kit: Kit) -> Float32s:
    """Return t - mu_t, float32 (dim,): what sets the text apart from the vocabulary."""
    vector = text_vector(query, kit) - kit.concepts.mean
    length(vector, "the text is the mean of the vocabulary, so centring leaves nothing of it")
    return vector


_SOURCE = "Psomas et al. (i-CIR and BASIC), NeurIPS 2025, arXiv 2510.25387"

PRODUCT = Method(
    name="product",
    about="both cosines multiplied, those below zero taken as zero",
    formula="max(0, v·g)^(2 / (1 + r)) max(0, t·g)^(2 r / (1 + r)), r = w_T / w_I",
    source=f"the baseline of {_SOURCE}",
    needs=("image", "text"),
    text_passes=1,
    compose=_product,
)

CENTRED_PRODUCT = Method(
    name="centred-product",
    about="the product of scores without what all pictures, or all texts, have in common",
    formula="max(0, (v - mu_v)·(g - mu_v))^(2 / (1 + r)) max(0, (t - mu_t)·(g - mu_v))^(2 r / (1 + r))",
    source=_SOURCE,
    needs=("image", "text", "concepts"),
    text_passes=1,
    compose=_centred_product,
)
