from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens.rows import Rows


@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    picked=st.lists(st.integers(0, 10**6), max_size=12),
    bounds=st.tuples(st.integers(0, 25), st.integers(0, 25)),
)
def test_rows_are_those_of_the_arrays_one_after_the_other(
    sizes: list[int], picked: list[int], bounds: tuple[int, int]
) -> None:
    whole = np.arange(3 * sum(sizes), dtype=np.int8).reshape(-1, 3)
    rows = Rows(np.split(whole, np.cumsum(sizes)[:-1]))
    assert len(rows) == len(whole)
    numbers = np.array([number % len(whole) for number in picked], dtype=np.int64)
    np.testing.assert_array_equal(rows[numbers], whole[numbers])
    part = slice(*bounds)
    np.testing.assert_array_equal(rows[part], whole[part])
    assert rows[part].dtype == rows[numbers].dtype == np.int8


@pytest.mark.parametrize("parts", [1, 3])
def test_a_stretch_of_one_array_is_no_copy(parts: int) -> None:
    arrays = [np.zeros((4, 2), dtype=np.float16) for _ in range(parts)]
    found = Rows(arrays)[1:3]
    assert np.shares_memory(found, arrays[0])
