"""FreeDom: what the picture and its neighbours are called, each name with the text behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose.method import Composed, Kit, Method, Parameter, Query, Text, Values
from pocketlens.compose.values import choice, whole
from pocketlens.compose.weights import add_beyond_equal, image_vector, merge, unit

SAME = 0.98  # cosine from which the nearest row is the picture itself (the paper's code)

Names = tuple[tuple[str, float], ...]


def name_picture(query: Query, kit: Kit, values: Values) -> Names:
    """Return what the picture is taken for: names with weights up to 1, the most frequent among its proxies first.

    Equally frequent names stand in the order of their summed similarities.
    """
    concepts = kit.concepts
    proxies = _proxies(image_vector(query), kit, whole(values, "neighbours"))
    if choice(values, "centred") == "yes":
        proxies = proxies - kit.mean
    nearest, similarities = concepts.nearest(proxies, whole(values, "names_per_picture"))  # (proxies, count)
    found, places = np.unique(nearest, return_inverse=True)
    counts = np.bincount(places.ravel())
    sums = np.bincount(places.ravel(), weights=similarities.ravel())
    order = np.lexsort((found, -sums, -counts))[: whole(values, "names_kept")]
    return tuple((concepts.names[found[i]], float(counts[i] / counts.max())) for i in order)


def _proxies(image: Float32s, kit: Kit, count: int) -> Float32s:
    """Return `count` pictures at most that stand for a picture, float32 (n, dim): itself and its neighbours."""
    neighbours = kit.nearest(image, count)
    if len(neighbours) and float(neighbours[0] @ image) >= SAME:
        return neighbours
    return np.concatenate([image[np.newaxis], neighbours[: count - 1]])


def _freedom(query: Query, kit: Kit, values: Values) -> Composed:
    names = name_picture(query, kit, values)
    vector = add_beyond_equal(_named_texts(names, query.texts, kit), query, kit)
    return Composed(vector[np.newaxis], names=names)


def _named_texts(names: Names, texts: Sequence[Text], kit: Kit) -> Float32s:
    """Return the unit vector, float32 (dim,), of every text behind every name."""
    encoded = kit.encode_texts([f"{name} {text.text}" for text in texts for name, _ in names])
    weights = np.array([weight for _, weight in names], dtype=np.float32)
    by_text = weights @ encoded.reshape(len(texts), len(names), -1)  # (texts, dim)
    return merge(np.stack([unit(vector, "the names of the picture cancel out") for vector in by_text]), texts)


PARAMETERS = {
    "neighbours": Parameter(20.0, "pictures that are named: the own one and its nearest", 1.0, 100.0, whole=True),
    "names_per_picture": Parameter(7.0, "names of each of them", 1.0, 50.0, whole=True),
    "names_kept": Parameter(7.0, "most frequent names that are used", 1.0, 50.0, whole=True),
    "centred": Parameter("yes", "name what sets a picture apart from the gallery", choices=("no", "yes")),
}

FREEDOM = Method(
    name="freedom",
    about="the picture's most frequent names, each with the text behind it; shows the names",
    formula="n(sum w_i T('{name_i} {text}'))·g, w_i = count_i / max count",
    source="Efthymiadis et al., WACV 2025, arXiv 2412.03297",
    needs=("image", "text", "concepts"),
    text_passes=7,
    compose=_freedom,
    parameters=PARAMETERS,
)
