from __future__ import annotations

from collections.abc import Callable
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens_quantize.queries import sample_queries

MANY = sample_queries(2_000)
PINNED = [
    "the blue tent we saw by the river at dawn",
    "seagull opening presents on a sunny day",
    "sunflower on a mountain",
    "the neighbours holding a balloon after the party",
]


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 5))
def test_the_first_of_a_longer_list_are_the_same(few: int, more: int, seed: int) -> None:
    few, more = sorted((few, more))
    assert sample_queries(more, seed=seed)[:few] == sample_queries(few, seed=seed)


def test_they_differ_even_where_case_is_ignored() -> None:
    assert len({query.lower() for query in MANY}) == len(MANY) == 2_000


def test_seeds_give_other_lists() -> None:
    assert len(set(sample_queries(200, seed=1)) & set(MANY[:200])) < 20


def test_the_list_is_the_same_in_every_release_that_does_not_say_otherwise() -> None:
    assert sample_queries(4) == PINNED


def test_every_query_can_stand_on_a_line_of_a_texts_file() -> None:
    for query in MANY:
        assert query == " ".join(query.split()) != ""
        assert not set(query) & set("{}\t\n"), query


def test_lengths_are_those_of_short_searches() -> None:
    words = [len(query.split()) for query in MANY]
    assert median(words) == 4
    assert max(words) <= 30
    assert sum(length < 12 for length in words) / len(words) > 0.94


@pytest.mark.parametrize(
    ("of_kind", "least", "most"),
    [
        pytest.param(lambda query: len(query.split()) == 1, 0.02, 0.08, id="one word"),
        pytest.param(lambda query: 15 <= len(query.split()) <= 30, 0.02, 0.045, id="a sentence"),
        pytest.param(lambda query: any(letter.isdigit() for letter in query), 0.02, 0.04, id="digits"),
        pytest.param(lambda query: not query.isascii(), 0.01, 0.03, id="not plain english"),
        pytest.param(lambda query: query[:1].isupper(), 0.1, 0.2, id="a capital letter"),
        pytest.param(lambda query: query[:1] in '.-"(#' or query[-1:] in "?!.-", 0.01, 0.03, id="stray punctuation"),
    ],
)  # fmt: skip
def test_odd_kinds_are_there_and_rare(of_kind: Callable[[str], bool], least: float, most: float) -> None:
    assert least <= sum(map(of_kind, MANY)) / len(MANY) <= most


def test_articles_fit_the_word_after_them() -> None:
    assert not [query for query in MANY if " a a" in query or query.lower().startswith(("a a", "a e", "a o"))]
    assert any("an old" in query for query in MANY)
