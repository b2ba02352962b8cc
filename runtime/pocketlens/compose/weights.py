"""What weights mean: how several texts become one vector, and what more weight on text or picture does to a method.

A query's weights say how much text there is to a picture: r = text weight / image weight, 1 unless asked otherwise.
With r = 1 every method is what its paper says. Beyond that
- a share a of the text shifts in log-odds, logit a' = logit a + ln r (slerp, WeiCom, WeiMoCIR);
- two scores that are multiplied are raised to powers whose mean stays 1 (product, centred product, BASIC);
- a vector that no share controls gets what goes beyond equal weights as plain vectors (inversion, FreeDom).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Float32s
from pocketlens.codes import LEAST_NORM as LEAST_NORM
from pocketlens.compose.method import Kit, Query, Text
from pocketlens.errors import BadQuery


def unit(vector: NDArray[np.floating[Any]], complaint: str) -> Float32s:
    """Return a vector, (dim,), at length 1, float32.

    Raises:
        BadQuery: it holds NaN or infinity, or it is shorter than 1e-6; then `complaint` says why.
    """
    return np.asarray(vector / np.float32(length(vector, complaint)), dtype=np.float32)


def length(vector: NDArray[np.floating[Any]], complaint: str) -> float:
    """Return the length of a vector, (dim,), that has a direction; see `unit` for the errors."""
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm):
        raise BadQuery("a vector of the query holds NaN or infinity, expected finite numbers")
    if norm < LEAST_NORM:
        raise BadQuery(f"{complaint}: no direction is left to search in")
    return norm


def merge(vectors: Float32s, texts: Sequence[Text]) -> Float32s:
    """Return n(sum w_i vectors_i), float32 (dim,), of one unit vector a text, float32 (texts, dim)."""
    total = sum(text.weight for text in texts)
    shares = np.array([text.weight / total for text in texts], dtype=np.float32)
    return unit(shares @ vectors, "the texts cancel out" if len(texts) > 1 else "the text has a zero vector")


def image_vector(query: Query) -> Float32s:
    """Return the picture's unit vector, float32 (dim,)."""
    assert query.image is not None  # compose() has checked that the query has the parts that the method needs
    return unit(query.image, "the picture has a zero vector")


def text_vector(query: Query, kit: Kit) -> Float32s:
    """Return the unit vector, float32 (dim,), of the weighted texts, encoded as they are."""
    return merge(kit.encode_texts([text.text for text in query.texts]), query.texts)


def text_ratio(query: Query) -> float:
    """Return r, the text's weight over the picture's, of a query that has both."""
    return query.text_weight / query.image_weight


def shift_share(share: float, ratio: float) -> float:
    """Return the text's share, 0 to 1, shifted in log-odds by ln r; 0 and 1 stay."""
    return share * ratio / (share * ratio + (1.0 - share))  # the brackets keep 1 exactly 1


def score_powers(ratio: float) -> tuple[float, float]:
    """Return the powers of the picture's and of the text's score: 2 / (1 + r) and 2 r / (1 + r)."""
    return 2.0 / (1.0 + ratio), 2.0 * ratio / (1.0 + ratio)


def add_beyond_equal(vector: Float32s, query: Query, kit: Kit) -> Float32s:
    """Return n(q + (r - 1) t) for r > 1 and n(q + (1/r - 1) v) for r < 1 of a unit vector q, float32 (dim,).

    The texts are encoded as they are, and only when r > 1.
    """
    ratio = text_ratio(query)
    if ratio > 1.0:
        return unit(vector + (ratio - 1.0) * text_vector(query, kit), "the texts cancel the composed vector out")
    if ratio < 1.0:
        return unit(vector + (1.0 / ratio - 1.0) * image_vector(query), "the picture cancels the composed vector out")
    return vector
