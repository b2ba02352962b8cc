"""Texts and vectors of any kind: a query is answered or refused with `BadQuery`, and nothing else happens."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import pocketlens
from pocketlens import BadQuery, Lens
from pocketlens.codes import read_vector

ANY_CHARACTER = st.characters() | st.characters(categories=["Cs"])
ODD = st.sampled_from(
    ["\0", "\ud800", "\udc00", "\u202e", "\u200d", "e" + "\u0301" * 50, "\ufeff", "[SEP]", "$", "./", "~/", " - ",
     " + ", "&#0;", "&#xD800;", "\U0010ffff", "\x1b[31m", "a" * 5_000, "../" * 2_000]
)  # fmt: skip
TEXTS = st.text(ANY_CHARACTER) | st.lists(ODD | st.text(ANY_CHARACTER, max_size=5), max_size=6).map("".join)
NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1e-7, 1e-30, 1e38, math.nan, math.inf, -math.inf])
SHAPES = st.sampled_from([(4,), (4,), (4,), (3,), (0,), (1, 4), (4, 1), ()])
TYPES = ("float16", "float32", "float64", "int8", "int64", "uint8", "bool", "complex64", "U3")
VECTORS: st.SearchStrategy[Any] = (
    arrays.arrays(np.float32, 4, elements=NUMBERS)
    | st.one_of([arrays.arrays(kind, SHAPES) for kind in TYPES])
    | arrays.arrays("O", SHAPES, elements=st.none() | st.integers(-(10**40), 10**40))
    | st.lists(NUMBERS | st.floats() | st.integers(-(10**400), 10**400), max_size=5)
    | st.sampled_from([None, "red", b"red", {}, [[1.0], [1.0, 2.0]], 3])
)
COUNTS = st.integers(-2, 12) | st.sampled_from([1_000, 1_001, 10**30, True, None, 2.0, "3"])
FEW = settings(max_examples=1_000, deadline=None)
MANY = settings(max_examples=10_000, deadline=None)


@pytest.fixture(scope="module")
def lens(bundle: Path) -> Iterator[Lens]:
    with pocketlens.open(bundle) as lens:
        yield lens


def check_text(lens: Lens, text: str, place: str) -> None:
    try:
        if place == "text":
            hits = lens.search(text=text, k=3)
        elif place == "negative":
            hits = lens.search(text="red", negative=text, k=3)
        else:
            hits = lens.search(parts=[("text", text), ("text", "red", 2.0)], k=3)
    except BadQuery:
        return
    assert len(hits) == 3
    assert all(math.isfinite(hit.score) for hit in hits)


def check_vector(lens: Lens, vector: Any, k: Any) -> None:
    try:
        hits = lens.search_vector(vector, k=k)
    except BadQuery:
        return
    given = np.asarray(vector, dtype=np.float64)
    assert given.shape == (4,) and np.isfinite(given).all() and np.linalg.norm(given) > 0.99e-6
    assert type(k) is int and 1 <= k <= 1_000
    assert len(hits) == min(k, 5)  # four pictures and a copy
    assert len({hit.id for hit in hits}) == len(hits)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)


@settings(max_examples=2_000, deadline=None)
@given(text=TEXTS, place=st.sampled_from(["text", "negative", "parts"]))
def test_2_000_texts(lens: Lens, text: str, place: str) -> None:
    check_text(lens, text, place)


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None)
@given(text=TEXTS, place=st.sampled_from(["text", "negative", "parts"]))
def test_20_000_texts(lens: Lens, text: str, place: str) -> None:
    check_text(lens, text, place)


@FEW
@given(vector=VECTORS, k=COUNTS)
def test_1_000_vectors(lens: Lens, vector: Any, k: Any) -> None:
    check_vector(lens, vector, k)


@pytest.mark.soak
@MANY
@given(vector=VECTORS, k=COUNTS)
def test_10_000_vectors(lens: Lens, vector: Any, k: Any) -> None:
    check_vector(lens, vector, k)


@pytest.mark.parametrize("text", [None, 3, b"red", ["red"], "", " \t", "\u3000"])
def test_what_is_no_text_is_a_bad_query(lens: Lens, text: Any) -> None:
    with pytest.raises(BadQuery):
        lens.search(text=text)


@pytest.mark.parametrize("size", [1, 1_000, 60_000])
@pytest.mark.parametrize("unit", ["red ", "\u00e9", "/"])
def test_a_text_of_any_length_takes_no_longer(lens: Lens, size: int, unit: str) -> None:
    text = unit * (size // len(unit) + 1)
    short = text[:4_096]
    for arguments in ({"text": text}, {"text": "red", "negative": text}):
        lens.search(**{name: value[:4_096] for name, value in arguments.items()})  # type: ignore[arg-type]
        start = time.perf_counter()
        hits = lens.search(**arguments)  # type: ignore[arg-type]
        assert time.perf_counter() - start < 0.05 + 1.0  # 50 ms, and as much as a busy machine may add
        assert len(hits) == 5
    found, expected = lens.encode(text=text), lens.encode(text=short)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [65_537, 100_000_000])
def test_what_is_longer_than_any_query_is_refused_at_once(lens: Lens, size: int) -> None:
    text = "é" * size
    asked: list[dict[str, Any]] = [{"text": text}, {"text": "red", "negative": text}, {"parts": [("text", text)]}]
    for arguments in asked:
        start = time.perf_counter()
        with pytest.raises(BadQuery, match="characters, expected at most 65,536"):
            lens.search(**arguments)
        assert time.perf_counter() - start < 0.05 + 1.0
    with pytest.raises(BadQuery, match="expected at most 65,536"):
        lens.encode(text=text)


def test_composed_and_decomposed_characters_are_the_same_text(lens: Lens) -> None:
    tokenizer = lens.text_encoder().tokenizer
    assert tokenizer.ids(["caf\u00e9 \uac00"]) == tokenizer.ids(["cafe\u0301 \u1100\u1161"])


def test_vectors_by_hand() -> None:
    np.testing.assert_array_equal(read_vector([1, 2], 2), np.array([1, 2], dtype=np.float32))
    np.testing.assert_array_equal(read_vector(np.arange(4)[::2], 2), np.array([0, 2], dtype=np.float32))
    for vector, message in (
        ([1.0], r"has shape \(1,\), expected \(2,\)"),
        ([0.0, 9e-7], "has the length 9e-07, expected at least 1e-06"),
        ([1.0, math.nan], "NaN"),
        ([1e300, 0.0], "float32"),
        (["a", "b"], "elements of type"),
        ([[1.0], [1.0, 2.0]], "must be 2 numbers"),
        ([True, False], "elements of type bool"),
    ):
        with pytest.raises(BadQuery, match=message):
            read_vector(vector, 2)
