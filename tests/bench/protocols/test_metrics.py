"""Metrics against values worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens_bench.protocols.metrics import (
    Ranking,
    average_precision_at,
    recall_at,
    subset_recall_at,
    unwanted_at,
)
from pocketlens_bench.protocols.task import Example

EXAMPLE = Example(id="q", families=(), group="g", reference=None, texts=("t",), answers=frozenset("ab"))


@pytest.mark.parametrize(
    ("ranking", "k", "expected"),
    [
        ("axb", 3, (1 / 1 + 2 / 3) / 2),  # the facts' toy check: 0.8333
        ("axb", 1, 1.0),  # min(1, 2) = 1
        ("xab", 1, 0.0),
        ("xab", 3, (1 / 2 + 2 / 3) / 2),
        ("xab", 2, (1 / 2) / 2),
        ("ab", 50, 1.0),  # fewer pictures than K
        ("", 5, 0.0),
    ],
)
def test_average_precision(ranking: str, k: int, expected: float) -> None:
    assert average_precision_at(k).of(EXAMPLE, Ranking(tuple(ranking))) == pytest.approx(expected)


def test_average_precision_divides_by_k_when_there_are_more_answers() -> None:
    example = replace(EXAMPLE, answers=frozenset("abcdef"))
    assert average_precision_at(5).of(example, Ranking(tuple("axbxx"))) == pytest.approx((1 + 2 / 3) / 5)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 40), st.integers(0, 10))
def test_average_precision_is_the_definition(hits: list[bool], k: int, more: int) -> None:
    names = [f"{'a' if hit else 'x'}{i}" for i, hit in enumerate(hits)]
    answers = {name for name in names if name[0] == "a"} | {f"gone{i}" for i in range(more)}
    relevant = np.array([name in answers for name in names[:k]], dtype=np.float64)
    precision = np.cumsum(relevant) / np.arange(1, len(relevant) + 1)
    expected = (precision * relevant).sum() / min(k, len(answers)) if answers else 0.0
    example = replace(EXAMPLE, answers=frozenset(answers))
    assert average_precision_at(k).of(example, Ranking(tuple(names))) == pytest.approx(expected)


def test_recall_counts_any_answer_or_the_target_alone() -> None:
    ranking = Ranking(tuple("xbya"))
    assert [recall_at(k).of(EXAMPLE, ranking) for k in (1, 2, 4)] == [0.0, 1.0, 1.0]
    targeted = replace(EXAMPLE, target="a")
    assert [recall_at(k).of(targeted, ranking) for k in (1, 2, 3, 4)] == [0.0, 0.0, 0.0, 1.0]


def test_subset_recall_looks_at_the_candidates_alone() -> None:
    ranking = Ranking(tuple("ab"), within=tuple("xya"))
    assert [subset_recall_at(k).of(EXAMPLE, ranking) for k in (1, 2, 3)] == [0.0, 0.0, 1.0]


def test_unwanted_is_a_share_of_the_first_places() -> None:
    example = replace(EXAMPLE, unwanted=frozenset("xyz"))
    assert unwanted_at(10).of(example, Ranking(tuple("axbycdefghz"))) == pytest.approx(0.2)
    assert unwanted_at(1).of(example, Ranking(tuple("x"))) == 1.0
