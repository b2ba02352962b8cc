"""All methods by name, and how one is applied to a query."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from pocketlens.compose import basic, freedom, inversion, pdv, product, simple, weicom, weimocir
from pocketlens.compose.method import Composed, Kit, Method, Query, Value
from pocketlens.compose.negative import PARAMETERS, Negative, apply_negative
from pocketlens.compose.values import check_values, unknown
from pocketlens.compose.weights import LEAST_NORM
from pocketlens.errors import BadQuery

_RECORDS = (
    simple.IMAGE,
    simple.TEXT,
    simple.SUM,
    simple.SLERP,
    product.PRODUCT,
    product.CENTRED_PRODUCT,
    basic.BASIC,
    weicom.WEICOM,
    weimocir.WEIMOCIR,
    freedom.FREEDOM,
    *inversion.METHODS,
    *pdv.METHODS,
)

METHODS: Mapping[str, Method] = MappingProxyType(
    {record.name: replace(record, parameters={**record.parameters, **PARAMETERS}) for record in _RECORDS}
)
"""Every method by name, in the order of docs/composition.md; its parameters include those of negatives."""

_PARTS = {"image": "a picture", "text": "a text"}


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        BadQuery: there is none of that name; the message lists those there are.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise BadQuery(unknown("method", name, METHODS))
    return METHODS[name]


def compose(
    query: Query, negatives: Negative | None, kit: Kit, method: Method, values: Mapping[str, Value] | None = None
) -> Composed:
    """Return a query composed by a method, with what is not wanted taken out of it.

    Args:
        query: the wanted parts.
        negatives: what is not wanted.
        kit: encoders, gallery statistics, vocabulary.
        method: one of `METHODS`.
        values: of the method's parameters; those that are left out take their defaults.

    Raises:
        BadQuery: nothing is wanted, a part that the method needs is not there, a weight or a value is out of range, or
            parts cancel out.
        MissingPart: the bundle lacks what the method needs.
    """
    check_wanted(query, unwanted=negatives is not None and len(negatives.weights) > 0)
    for need, words in _PARTS.items():
        if need in method.needs and not (query.texts if need == "text" else query.image is not None):
            raise BadQuery(f"method {method.name} needs {words}, and the query has none")
    if "features" in method.needs and not query.features:
        raise BadQuery(
            f"method {method.name} needs the features of a picture, and the query has its vector alone; ask with the "
            "picture itself, as a file, bytes or a PIL image"
        )
    checked = check_values(method, values)
    composed = method.compose(query, kit, checked)
    if negatives is not None:
        composed = apply_negative(composed, negatives, kit, checked)
    norms = np.linalg.norm(composed.vectors, axis=1)
    if not np.isfinite(norms).all() or norms.min() < LEAST_NORM:
        raise BadQuery(f"method {method.name}: a vector of the query is zero or not finite, so it has no direction")
    return composed


def check_wanted(query: Query, *, unwanted: bool = False) -> None:
    """Raise `BadQuery` unless the query wants something, with weights that are positive numbers."""
    if query.image is None and not query.texts:
        found = "found only what is not wanted" if unwanted else "found neither"
        raise BadQuery(f"a query needs something wanted, a picture or a text; {found}")
    weights = [text.weight for text in query.texts] + ([] if query.image is None else [query.image_weight])
    weights += [seen.weight for seen in query.features]
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise BadQuery(f"a wanted part has the weight {weight!r}, expected a positive number")
