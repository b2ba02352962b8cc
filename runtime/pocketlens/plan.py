"""From the parts of a query to a composed one: which method, which values, and what must be encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose import (
    METHODS,
    REMAKE,
    Composed,
    FeatureMap,
    Kit,
    Method,
    Negative,
    Query,
    Text,
    check_values,
    choose,
    compose,
    find_method,
)
from pocketlens.compose.method import Value
from pocketlens.compose.negative import PARAMETERS as NEGATIVE
from pocketlens.compose.weights import LEAST_NORM
from pocketlens.errors import BadQuery, EncoderMismatch, MissingPart
from pocketlens.model import ModelManifest
from pocketlens.needs import gives_others, has_need, lacking, measured_figures
from pocketlens.parts import Part

AUTO = "auto"
ASKED = "asked for"
See: TypeAlias = Callable[[Part], tuple[Float32s, Float32s]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query will be composed.

    Attributes:
        parts: of the query.
        method: that composes them.
        values: of its parameters.
        why: why this method, in one line.
    """

    parts: tuple[Part, ...]
    method: Method
    values: dict[str, Value]
    why: str

    def compose(self, kit: Kit, encode: Callable[[Part], Float32s], see: See) -> Composed:
        """Return the composed query.

        Args:
            kit: what the method may ask for.
            encode: returns a part's unit vector, float32 (dim,).
            see: returns a picture's unit vector and its features, float32 (channels, height, width).

        Raises:
            BadQuery: parts cancel out, or the method needs a part that the query lacks.
            BadImage: a picture cannot be decoded.
            MissingPart: the bundle lacks a tower.
        """
        wanted = [part for part in self.parts if part.kind == "image" and part.weight > 0]
        pictures = wanted if "image" in self.method.needs else []  # the method text ignores them: a tower may be absent
        features: tuple[FeatureMap, ...] = ()
        if "features" in self.method.needs:
            seen = [see(part) for part in pictures]
            vectors = [vector for vector, _ in seen]
            features = tuple(FeatureMap(each, part.weight) for (_, each), part in zip(seen, pictures, strict=True))
        else:
            vectors = [encode(part) for part in pictures]
        query = replace(_query(self.parts, _merged(vectors, pictures)), features=features)
        unwanted = [part for part in self.parts if part.weight < 0]
        negative = None
        if unwanted:
            weights = np.array([-part.weight for part in unwanted], dtype=np.float32)
            negative = Negative(np.stack([encode(part) for part in unwanted]), weights)
        return compose(query, negative, kit, self.method, self.values)


def plan_query(
    parts: Sequence[Part],
    name: str,
    parameters: Mapping[str, Value] | None,
    text: ModelManifest | None,
    image: ModelManifest | None,
) -> Plan:
    """Return how to compose a query, before anything is encoded.

    Args:
        parts: of the query, at least one of them wanted.
        name: of the method, or "auto".
        parameters: values of the method's parameters.
        text: manifest of the text tower, which names the bundle's networks, vocabulary and measured figures.
        image: manifest of the image tower, which says whose features it gives.

    Raises:
        BadQuery: the method or a parameter is unknown, a value is out of range, the method needs a part that the query
            lacks, or a parameter is about what is unwanted and nothing is.
        MissingPart: the bundle lacks what the method needs; everything that is missing is listed.
        EncoderMismatch: the method's network was trained on the features of another image tower.
    """
    if parameters is not None and not isinstance(parameters, Mapping):
        raise BadQuery(f"parameters is of type {type(parameters).__name__}, expected values by name")
    seen = np.zeros(0, dtype=np.float32) if any(part.kind == "image" and part.weight > 0 for part in parts) else None
    query = _query(parts, seen)  # to choose by; the pictures are encoded later
    if name == AUTO:
        figures = measured_figures(text)
        method = choose(query, lambda need: has_need(text, image, need), figures)
        why = _reason(query, method, figures)
        _check_names(method, parameters or {})
    else:
        method, why = find_method(name), ASKED
        _check_parts(method, query)
        if lacks := lacking(method, text, image):
            error = EncoderMismatch if gives_others(method, text, image) else MissingPart
            raise error(
                f"method {method.name} cannot be used with this bundle, which lacks {'; '.join(lacks)} (fit writes a "
                f"model folder NEW; {REMAKE} makes a bundle B2 of it and this one, B)"
            )
    values = check_values(method, parameters)
    if not any(part.weight < 0 for part in parts):
        values = _without_negatives(values, parameters or {})
    return Plan(tuple(parts), method, values, why)


def reason_for_one(part: Part, name: str) -> str:
    """Return why a query of one part is searched with this part's vector, in one line."""
    words = "text" if part.kind == "text" else "picture"
    return ASKED if name != AUTO else f"the query is one {words}"


def _query(parts: Sequence[Part], image: Float32s | None) -> Query:
    texts = [Text(str(part.value), part.weight) for part in parts if part.kind == "text" and part.weight > 0]
    weight = sum(part.weight for part in parts if part.kind == "image" and part.weight > 0)
    return Query(image, tuple(texts), float(weight))


def _merged(vectors: Sequence[Float32s], pictures: Sequence[Part]) -> Float32s | None:
    """Return n(sum w_i v_i), float32 (dim,), of pictures' unit vectors, or None without any."""
    if not vectors:
        return None
    if len(vectors) == 1:
        return vectors[0]
    total = np.sum([part.weight * vector for part, vector in zip(pictures, vectors, strict=True)], axis=0)
    norm = float(np.linalg.norm(total))
    if norm < LEAST_NORM * sum(part.weight for part in pictures):
        raise BadQuery("the pictures cancel out: their weighted sum has no direction")
    return np.asarray(total / norm, dtype=np.float32)


def _check_parts(method: Method, query: Query) -> None:
    for need, words, found in (("image", "a picture", query.image is not None), ("text", "a text", query.texts)):
        if need in method.needs and not found:
            raise BadQuery(f"method {method.name} needs {words}, and the query wants none")


def _check_names(chosen: Method, given: Mapping[str, Value]) -> None:
    """Refuse a parameter that other methods have than the one that "auto" chose."""
    for name in given:
        others = [method.name for method in METHODS.values() if name in method.parameters]
        if others and name not in chosen.parameters:
            raise BadQuery(
                f"{AUTO} chose the method {chosen.name}, which has no parameter {name}; methods that have it: "
                f"{', '.join(others)}"
            )


def _without_negatives(values: Mapping[str, Value], given: Mapping[str, Value]) -> dict[str, Value]:
    for name in given:
        if name in NEGATIVE:
            raise BadQuery(f"{name} is given, and nothing is unwanted in the query")
    return {name: value for name, value in values.items() if name not in NEGATIVE}


def _reason(query: Query, method: Method, figures: Mapping[str, float]) -> str:
    if query.image is None or not query.texts:
        return f"only {'texts are' if query.image is None else 'pictures are'} wanted"
    if method.name in figures:
        return f"best of the measured methods that this bundle has: mAP@10 {figures[method.name]:.3f}"
    return "none of the usable methods was measured with this model; the first of a fixed order"
