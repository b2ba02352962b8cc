"""One vector by plain arithmetic: the picture, the text, their sum, and a point on the arc between them."""

from __future__ import annotations

import math

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose.method import Composed, Kit, Method, Parameter, Query, Values
from pocketlens.compose.values import number
from pocketlens.compose.weights import image_vector, shift_share, text_ratio, text_vector, unit

_STRAIGHT = 0.9995  # above this |cosine| the arc is taken for a line (slerp.py of the paper's code)
_CANCEL = "the text and the picture cancel out"


def _image(query: Query, kit: Kit, values: Values) -> Composed:
    return Composed(image_vector(query)[np.newaxis])


def _text(query: Query, kit: Kit, values: Values) -> Composed:
    return Composed(text_vector(query, kit)[np.newaxis])


def _sum(query: Query, kit: Kit, values: Values) -> Composed:
    share = shift_share(0.5, text_ratio(query))
    vector = (1.0 - share) * image_vector(query) + share * text_vector(query, kit)
    return Composed(unit(vector, _CANCEL)[np.newaxis])


def _slerp(query: Query, kit: Kit, values: Values) -> Composed:
    share = shift_share(number(values, "text_share"), text_ratio(query))
    vector = on_arc(image_vector(query), text_vector(query, kit), share)
    return Composed(unit(vector, _CANCEL)[np.newaxis])


def on_arc(start: Float32s, end: Float32s, share: float) -> Float32s:
    """Return the point at `share` of the way from a unit vector to another, float32 (dim,), along the great circle.

    Nearly parallel and nearly opposite vectors have no stable arc: there it is the point on the line.
    """
    cosine = float(start @ end)
    if abs(cosine) > _STRAIGHT:
        return start + share * (end - start)
    angle = math.acos(cosine)
    from_start, from_end = math.sin((1.0 - share) * angle), math.sin(share * angle)
    return np.asarray((from_start * start + from_end * end) / math.sin(angle), dtype=np.float32)


IMAGE = Method(
    name="image",
    about="the picture alone; a text is ignored",
    formula="v·g",
    source="baseline",
    needs=("image",),
    text_passes=0,
    compose=_image,
)

TEXT = Method(
    name="text",
    about="the texts alone; a picture is ignored",
    formula="t·g",
    source="baseline",
    needs=("text",),
    text_passes=1,
    compose=_text,
)

SUM = Method(
    name="sum",
    about="the sum of both vectors",
    formula="n(w_I v + w_T t)·g",
    source='the baseline "mixture" of Pic2Word: Saito et al., CVPR 2023, arXiv 2302.03084',
    needs=("image", "text"),
    text_passes=1,
    compose=_sum,
)

SLERP = Method(
    name="slerp",
    about="a point on the arc between both vectors",
    formula="n(sin((1 - a) θ) / sin θ v + sin(a θ) / sin θ t)·g, cos θ = v·t, a = text_share",
    source="Jang et al., ECCV 2024, arXiv 2405.00571",
    needs=("image", "text"),
    text_passes=1,
    compose=_slerp,
    # 0.8 to 0.9 in the paper; on EmojiCIR's validation split the middle was best, which is the sum's direction
    parameters={"text_share": Parameter(0.6, "where on the arc: 0 is the picture, 1 the text")},
)
