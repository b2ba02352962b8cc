from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens.compose import Query, Text
from pocketlens.compose.weights import merge, score_powers, shift_share, text_ratio, unit
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import X, Y, Z, vector

RATIOS = st.floats(1e-3, 1e3)


@given(st.floats(0.01, 0.99), RATIOS)
def test_a_share_shifts_in_log_odds(share: float, ratio: float) -> None:
    shifted = shift_share(share, ratio)
    assert math.isclose(
        math.log(shifted / (1 - shifted)), math.log(share / (1 - share)) + math.log(ratio), rel_tol=1e-6, abs_tol=1e-6
    )
    assert shift_share(0, ratio) == 0 and shift_share(1, ratio) == 1


@given(RATIOS)
def test_powers_have_the_ratio_and_a_mean_of_one(ratio: float) -> None:
    image, text = score_powers(ratio)
    assert math.isclose(text / image, ratio) and math.isclose(image + text, 2)


def test_the_ratio_by_hand() -> None:
    assert text_ratio(Query(X, (Text("a", 2.0), Text("b", 1.0)), 4.0)) == 0.75
    assert score_powers(3.0) == (0.5, 1.5)
    assert Query(X, ()).text_weight == 0


def test_texts_merge_by_weight_whatever_its_size() -> None:
    for factor in (1e-9, 1.0, 1e9):
        merged = merge(np.stack([Y, Z]), [Text("a", 3 * factor), Text("b", 4 * factor)])
        np.testing.assert_allclose(merged, [0, 0.6, 0.8], atol=1e-6)


def test_a_vector_without_direction_is_an_error() -> None:
    np.testing.assert_allclose(unit(vector(0, 2e-6, 0), "never"), Y)
    with pytest.raises(BadQuery, match=r"^this went wrong: no direction is left"):
        unit(vector(0, 5e-7, 0), "this went wrong")
    with pytest.raises(BadQuery, match="a vector of the query holds NaN or infinity"):
        unit(vector(0, np.nan, 0), "never")
