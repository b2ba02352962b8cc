"""BASIC without a language model: centring, projection, query expansion, min-normalisation, Harris fusion.

Deviations from the paper, each for lack of its data on a device:
- The means are those of the gallery and of the model's vocabulary, not of LAION-1M and of a generated list of subjects.
- The projection is the vocabulary's own subspace, fitted once when the vocabulary is made.
- The text is taken as it is. The paper averages it over 200 sentences about generated subjects: 200 encoder passes.
- The least score that min-normalisation starts from comes from a synthetic calibration set of CLIP in the paper, with
  one figure for both scores. Here it is `floor` standard deviations below the mean, by the gallery's covariance.
- The paper's a b - h (a + b)^2 falls in a as soon as a > (1 / 2h - 1) b: of two pictures that fit the text alike, the
  better match may rank lower. Here a score is held at the edge of the region in which it rises (`fuse_scores`).
- The paper has no weights. Here they stand outside the Harris term, whose balance is that of the plain scores.
"""

from __future__ import annotations

import math

import numpy as np

from pocketlens._types import Float32s
from pocketlens.codes import LEAST_DEVIATION
from pocketlens.compose.method import Composed, Kit, Method, Parameter, Query, Scores, Values
from pocketlens.compose.product import centred_image, centred_text
from pocketlens.compose.scores import centre
from pocketlens.compose.values import number, whole
from pocketlens.compose.weights import length, score_powers, text_ratio

_SHARPNESS = 0.1  # of the softmax over neighbours; the paper's preset
_NO_EDGE = 1e100  # no ratio of scores is larger; its product with a score, and its square, are finite


def _basic(query: Query, kit: Kit, values: Values) -> Composed:
    powers = score_powers(text_ratio(query))
    floor, harris = number(values, "floor"), number(values, "harris")

    def fuse(scores: Scores) -> Float32s:
        return fuse_scores(_min_normalised(scores, floor), powers, harris)

    image = _expanded(_projected(centred_image(query, kit), kit), kit, whole(values, "expansion"))
    return Composed(np.stack([image, centred_text(query, kit)]), fuse)


def fuse_scores(values: Float32s, powers: tuple[float, float], harris: float) -> Float32s:
    """Return the highest a^p b^q (1 - h (a / b + b / a + 2)) of all a <= s_v, b <= s_t, float32 (n,); from 0 on.

    With powers of 1 that is a b - h (a + b)^2, the paper's, wherever that rises with both scores. It never falls when a
    score rises; and of two rows, the one with the better s_v never drops behind the other as p grows: d ln f / dp is
    ln(a / b).

    Args:
        values: s_v and s_t, float32 (2, n), from 0 on.
        powers: p and q, from 0 on, with p + q = 2.
        harris: h, 0 to less than 0.25, where nothing but (a - b)^2 would be left.
    """
    image, text = values.astype(np.float64)
    held_image = np.minimum(image, _edge(powers[0], harris) * text)
    held_text = np.minimum(text, _edge(powers[1], harris) * image)
    some = (held_image > 0) & (held_text > 0)
    ratios = np.where(some, held_image, 1.0) / np.where(some, held_text, 1.0)
    balance = 1.0 - harris * (ratios + 1.0 / ratios + 2.0)
    return np.asarray(np.where(some, held_image ** powers[0] * held_text ** powers[1] * balance, 0.0), dtype=np.float32)


def _edge(power: float, harris: float) -> float:
    """Return the ratio t up to which t^p (1 - h (t + 1/t + 2)) rises: the larger root of its derivative's numerator."""
    if harris < 1 / _NO_EDGE:
        return _NO_EDGE
    linear = power * (1.0 - 2.0 * harris)
    return (linear + math.sqrt(linear**2 - 4.0 * harris**2 * (power**2 - 1.0))) / (2.0 * harris * (power + 1.0))


def _projected(vector: Float32s, kit: Kit) -> Float32s:
    """Return P v, float32 (dim,), with P the projection on the vocabulary's subspace."""
    subspace = kit.concepts.subspace  # (k, dim), orthonormal rows
    projected = subspace.T @ (subspace @ vector)
    length(projected, "the picture has nothing in the vocabulary's subspace")
    return projected


def _expanded(vector: Float32s, kit: Kit, count: int) -> Float32s:
    """Return the weighted mean, projected, of a projected vector and its `count` nearest centred neighbours."""
    if count == 0:
        return vector
    neighbours = kit.nearest(vector, count) - kit.mean  # (at most count, dim)
    similarities = np.append(neighbours @ vector, np.float32(1))  # the query is its own neighbour, at 1
    weights = np.exp(_SHARPNESS * (similarities - similarities.max()))
    mean = (weights / weights.sum()) @ np.concatenate([neighbours, vector[np.newaxis]])
    return _projected(np.asarray(mean, dtype=np.float32), kit)


def _min_normalised(scores: Scores, floor: float) -> Float32s:
    """Return max(0, (s + floor sigma) / (floor sigma)), float32 (p, n), of scores s less their means."""
    least = np.maximum(floor * scores.deviations, LEAST_DEVIATION)[:, np.newaxis]
    return np.asarray(np.maximum(1.0 + centre(scores) / least, 0.0), dtype=np.float32)


BASIC = Method(
    name="basic",
    about="centred scores of a projected and expanded picture and of the text, fused like a corner detector",
    formula="s_v = P(v - mu_v)·(g - mu_v) after expansion, s_t = (t - mu_t)·(g - mu_v); "
    "s' = max(0, 1 + s / (floor sigma_s)); the highest a^(2 / (1 + r)) b^(2 r / (1 + r)) (1 - harris (a/b + b/a + 2)) "
    "of a <= s_v', b <= s_t', r = w_T / w_I",
    source="Psomas et al., NeurIPS 2025, arXiv 2510.25387, without contextualised texts",
    needs=("image", "text", "concepts"),
    text_passes=1,
    compose=_basic,
    parameters={
        "expansion": Parameter(25.0, "neighbours that join the picture; 0 for none", most=100.0, whole=True),
        "harris": Parameter(0.1, "how much a row must match in both respects", most=0.2),
        "floor": Parameter(3.0, "deviations below the mean that count as no likeness", least=0.5, most=10.0),
    },
)
