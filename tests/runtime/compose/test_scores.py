from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketlens.compose.scores import centre, standardise, upper_tail
from tests.runtime.compose.by_hand import scores_of


@given(st.floats(-40, 35))
def test_the_tail_is_pythons(z: float) -> None:
    found = float(upper_tail(np.array([z]))[0])
    np.testing.assert_allclose(found, 0.5 * math.erfc(z / math.sqrt(2)), rtol=2e-7)


def test_the_tail_falls_all_the_way() -> None:
    assert (np.diff(upper_tail(np.linspace(-5, 30, 2_000))) < 0).all()


def test_standard_scores_by_hand() -> None:
    scores = scores_of([[0.5, 0.1], [0.7, 0.9]], [0.3, 0.7], [0.2, 0.0])
    np.testing.assert_allclose(centre(scores), [[0.2, -0.2], [0.0, 0.2]], atol=1e-6)
    np.testing.assert_allclose(standardise(scores), [[1, -1], [0, 0]], atol=1e-6)
    assert standardise(scores).dtype == np.float32
    rounding = scores_of([[0.5002, 0.4998]], [0.5], [2e-4])  # of float16 rows: no row stands out
    assert standardise(rounding).tolist() == [[0, 0]]
