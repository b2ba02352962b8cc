"""Rankings: exact, and decided by the gallery's order where scores are equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens_bench.protocols.ranking import Pool

NAMES = ("a", "b", "c", "d", "e")
VECTORS = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)  # a = c, b = e


def scores(pool: Pool, query: list[float]) -> np.ndarray:
    return pool.vectors @ np.asarray(query, dtype=np.float32)


def test_equal_vectors_are_scored_once_and_named_in_order() -> None:
    pool = Pool(NAMES, VECTORS)
    assert pool.vectors.tolist() == VECTORS[[0, 1, 3]].tolist()
    assert pool.best(scores(pool, [1, 0]), 5) == ("a", "c", "d", "b", "e")
    assert pool.best(scores(pool, [1, 0]), 1) == ("a",)
    assert pool.best(scores(pool, [0, 1]), 2) == ("b", "e")
    assert pool.best(scores(pool, [0, 0]), 3) == ("a", "b", "c")  # all tie
    assert pool.vector("d").tolist() == VECTORS[3].tolist()


def test_excluded_pictures_give_their_place_away() -> None:
    pool = Pool(NAMES, VECTORS)
    assert pool.best(scores(pool, [1, 0]), 2, excluded=frozenset("a")) == ("c", "d")
    assert pool.best(scores(pool, [1, 0]), 2, excluded=frozenset("xyz")) == ("a", "c")
    assert pool.best(scores(pool, [1, 0]), 50, excluded=frozenset("abcd")) == ("e",)


def test_candidates_are_ordered_by_score_then_by_their_place_in_the_gallery() -> None:
    pool = Pool(NAMES, VECTORS)
    assert pool.order(scores(pool, [1, 0]), ("e", "b", "c")) == ("c", "b", "e")
    assert pool.order(scores(pool, [1, 0]), ()) == ()
    with pytest.raises(KeyError):
        pool.order(scores(pool, [1, 0]), ("gone", "d"))


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(1, 12),
    st.sets(st.integers(0, 39), max_size=6),
)
def test_best_is_a_stable_sort(levels: list[int], count: int, excluded: set[int]) -> None:
    vectors = np.array([[level, 1] for level in levels], dtype=np.float32)
    pool = Pool([str(i) for i in range(len(levels))], vectors)
    expected = [str(i) for i in sorted(range(len(levels)), key=lambda i: (-levels[i], i)) if i not in excluded]
    names = frozenset(map(str, excluded))
    assert pool.best(scores(pool, [1, 0]), count, excluded=names) == tuple(expected[:count])


def test_copies_in_different_places_tie_exactly(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((1_000, 37)).astype(np.float32)
    vectors[[3, 501, 997]] = vectors[3]
    pool = Pool([str(i) for i in range(1_000)], vectors)
    best = pool.best(pool.vectors @ vectors[3], 3)
    assert best == ("3", "501", "997")
    assert len(pool.vectors) == 998


def test_an_unknown_name_is_not_in_the_pool() -> None:
    pool = Pool(NAMES, VECTORS)
    assert "a" in pool
    assert "x" not in pool
    with pytest.raises(KeyError):
        pool.vector("x")
