from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from pocketlens_quantize.metrics import agreement, cosines, recall, scores

MATRIX = numpy_st.arrays(np.float32, (4, 6), elements=st.floats(-1, 1, width=32), unique=True)


def test_cosines_are_products_of_pairs() -> None:
    expected = np.array([[1, 0], [0.6, 0.8]], np.float32)
    found = np.array([[0, 1], [0.8, 0.6]], np.float32)
    np.testing.assert_allclose(cosines(expected, found), [0, 0.96], rtol=1e-6)


def test_a_query_does_not_find_itself() -> None:
    rows = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    found = scores(rows, rows, leave_own_out=True)
    np.testing.assert_array_equal(np.isneginf(found), np.eye(3, dtype=bool))
    np.testing.assert_allclose(scores(rows, rows, leave_own_out=False), rows @ rows.T)


def test_agreement_counts_shared_rows_in_any_order() -> None:
    expected = np.array([[5, 4, 3, 2], [1, 2, 3, 4]])
    found = np.array([[4, 5, 1, 2], [4, 1, 2, 3]])
    assert agreement(expected, found, 1) == 0  # rows 0 and 1; 3 and 0
    assert agreement(expected, found, 2) == (1 + 0.5) / 2  # {0, 1} both; {3, 2} and {0, 3}
    assert agreement(expected, found, 10) == 1  # there are four


@given(MATRIX, MATRIX, st.integers(1, 6))
def test_agreement_is_the_share_of_the_same_best(expected: np.ndarray, found: np.ndarray, k: int) -> None:
    def best(row: np.ndarray) -> set[int]:
        return set(sorted(range(6), key=lambda column: -row[column])[:k])

    by_hand = [len(best(a) & best(b)) / k for a, b in zip(expected, found, strict=True)]
    assert agreement(expected, found, k) == pytest.approx(sum(by_hand) / 4)
    assert agreement(expected, expected, k) == 1


def test_recall_counts_labelled_queries_alone() -> None:
    found = np.array([[9, 1, 5], [1, 9, 5], [1, 2, 3]])
    labels = [[2], [0, 2], []]
    assert recall(found, labels, 1) == 0
    assert recall(found, labels, 2) == 1
    assert recall(found, [[0], [0], []], 2) == 0.5
    assert math.isnan(recall(found, [[], [], []], 1))
