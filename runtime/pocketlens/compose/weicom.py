"""WeiCom: scores as shares of a normal distribution, so that those of picture and text weigh the same."""

from __future__ import annotations

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose.method import Composed, Kit, Method, Parameter, Query, Scores, Values
from pocketlens.compose.scores import standardise, upper_tail
from pocketlens.compose.values import number
from pocketlens.compose.weights import image_vector, shift_share, text_ratio, text_vector


def _weicom(query: Query, kit: Kit, values: Values) -> Composed:
    """Return WeiCom's score less 1: the order is the same, and in float32 the best rows do not round to the same 1.

    Mean and deviation are those of the whole gallery in closed form, and not the sample's that the code computes.
    """
    share = shift_share(number(values, "text_share"), text_ratio(query))

    def fuse(scores: Scores) -> Float32s:
        image, text = upper_tail(standardise(scores))
        return np.asarray(-((1.0 - share) * image + share * text), dtype=np.float32)

    return Composed(np.stack([image_vector(query), text_vector(query, kit)]), fuse)


WEICOM = Method(
    name="weicom",
    about="both scores as shares of the gallery that they exceed, averaged",
    formula="(1 - a) Phi((v·g - v·mu) / sqrt(v'Σv)) + a Phi((t·g - t·mu) / sqrt(t'Σt)) - 1, a = text_share",
    source="Psomas et al., IGARSS 2024, arXiv 2405.15587",
    needs=("image", "text"),
    text_passes=1,
    compose=_weicom,
    parameters={"text_share": Parameter(0.5, "share of the text: 0 is the picture, 1 the text")},
)
