"""Edit: what the picture is called, edited by the text and read as names again; those names are searched for.

Naming the picture is FreeDom's idea. Three things differ. The edited sentence is not searched for itself, but the names
nearest to it. The name that the picture has already loses some of its score, because whoever edits wants something
else. And some of the text is searched for beside the names, which cannot say everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.codes import LEAST_DEVIATION
from pocketlens.compose.method import Composed, Kit, Method, Parameter, Query, Scores, Text, Values
from pocketlens.compose.scores import standardise
from pocketlens.compose.values import number, whole
from pocketlens.compose.weights import add_beyond_equal, image_vector, merge, unit
from pocketlens.concepts import Concepts

# Chosen on EmojiCIR's validation split, and so are the defaults of the parameters.
_SHARES = np.array([1.0, 0.5, 0.5], dtype=np.float32)  # of sentence, text and picture in a name's score
_SEEN_TEMPERATURE = 0.05  # of the softmax over the picture's names, whose scores are cosines
_FOUND_TEMPERATURE = 0.1  # of the one over the names searched for, whose scores are in deviations
_FOUND = 3  # names searched for


def _edit(query: Query, kit: Kit, values: Values) -> Composed:
    """Return an edited picture as one vector.

    The sentences of several texts are merged by the texts' weights. Weights beyond equal act on the whole vector, as in
    FreeDom.
    """
    concepts = kit.concepts
    seen = concepts.vectors @ image_vector(query)  # (names,)
    own, weights = _best(seen, whole(values, "names"), _SEEN_TEMPERATURE)
    sentence, text = _encoded([concepts.names[i] for i in own], weights, query.texts, kit)
    scores = _SHARES @ _standardised([concepts.vectors @ sentence, concepts.vectors @ text, seen], concepts)
    scores[own[0]] -= number(values, "own")
    found, weights = _best(scores, _FOUND, _FOUND_TEMPERATURE)
    wanted = unit(weights @ concepts.vectors[found], "the names of the edited picture cancel out")
    # The score wanted: two scores in deviations, added. Their means are the same for all rows, so a vector will do.
    vector = wanted / _deviation(wanted, kit) + number(values, "words") * text / _deviation(text, kit)
    vector = add_beyond_equal(unit(vector, "the text cancels the names of the edited picture out"), query, kit)
    names = tuple((concepts.names[i], float(weight / weights[0])) for i, weight in zip(found, weights, strict=True))
    return Composed(vector[np.newaxis], names=names)


def _best(scores: Float32s, count: int, temperature: float) -> tuple[Int64s, Float32s]:
    """Return the places of the `count` highest scores at most, best first, and their softmax, float32 (count,)."""
    count = min(count, len(scores))
    places = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
    places = places[np.argsort(-scores[places], kind="stable")]
    powers = np.exp((scores[places] - scores[places[0]]) / np.float32(temperature))
    return places, powers / powers.sum()


def _encoded(names: Sequence[str], weights: Float32s, texts: Sequence[Text], kit: Kit) -> tuple[Float32s, Float32s]:
    """Return the unit vectors, float32 (dim,), of the names edited by the texts, and of the texts; in one pass."""
    sentences = [f"{name}, {text.text}" for text in texts for name in names]
    encoded = kit.encode_texts([*(text.text for text in texts), *sentences])
    by_text = weights @ encoded[len(texts) :].reshape(len(texts), len(names), -1)  # (texts, dim)
    edited = np.stack([unit(vector, "the edited names of the picture cancel out") for vector in by_text])
    return merge(edited, texts), merge(encoded[: len(texts)], texts)


def _standardised(products: Sequence[Float32s], concepts: Concepts) -> Float32s:
    """Return inner products of p vectors with the names in deviations from their means over the names, (p, names)."""
    values = np.stack(products)
    scores = Scores(values, values.mean(axis=1), values.std(axis=1), lambda names: concepts.vectors[names])
    return standardise(scores)


def _deviation(vector: Float32s, kit: Kit) -> float:
    """Return the deviation of a vector's score over the gallery; 1 where only rounding tells scores apart."""
    deviation = float(np.sqrt(max(float(vector @ kit.covariance @ vector), 0.0)))
    return deviation if deviation >= LEAST_DEVIATION else 1.0


EDIT = Method(
    name="edit",
    about="what the picture is called once the text has edited its names, with some of the text; shows those names",
    formula="q = n(sum w_i T('{name_i}, {text}')), w = softmax(v·c_i / 0.05) of the names c_i nearest to v; "
    "s_c = z(q·c) + 0.5 z(t·c) + 0.5 z(v·c) - own [c = c_1], z over all names; "
    "u = n(sum softmax(s / 0.1)_j c_j) of the 3 best; u·g / sqrt(u'Σu) + words t·g / sqrt(t'Σt)",
    source="pocketlens; names as in FreeDom (arXiv 2412.03297)",
    needs=("image", "text", "concepts"),
    text_passes=4,
    compose=_edit,
    parameters={
        "names": Parameter(3.0, "names of the picture that the text edits", 1.0, 20.0, whole=True),
        "own": Parameter(1.0, "deviations that the picture's first name loses", most=10.0),
        "words": Parameter(0.3, "strength of the text beside the names", most=5.0),
    },
)
