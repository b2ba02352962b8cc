from __future__ import annotations

import numpy as np
import pytest

from pocketlens.compose import Text
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import NAMES, ROWS, X, Y, composed_by, fused, hand_kit, scores_of, vector

KIT = hand_kit({"y": Y, "mean": NAMES.mean})


def test_product_by_hand() -> None:
    composed = composed_by("product", KIT, Text("y"))
    np.testing.assert_array_equal(composed.vectors, [X, Y])
    scores = scores_of(composed.vectors @ ROWS.T, [0, 0], [1, 1])
    np.testing.assert_allclose(fused(composed, scores), [0.48, 0, 0, 0], atol=1e-6)  # two below zero are not 0.48
    heavy = composed_by("product", KIT, Text("y", 3.0))  # 0.6^(1/2) 0.8^(3/2)
    np.testing.assert_allclose(fused(heavy, scores), [0.5542563, 0, 0, 0], atol=1e-6)


def test_centred_product_by_hand() -> None:
    composed = composed_by("centred-product", KIT, Text("y"))  # the gallery's mean is (0.1, 0.2, 0)
    np.testing.assert_allclose(composed.vectors, [[0.9, -0.2, 0], [-0.4, 0.55, -0.25]], atol=1e-6)
    means = composed.vectors @ vector(0.1, 0.2, 0)
    np.testing.assert_allclose(means, [0.05, 0.07], atol=1e-6)
    scores = scores_of(composed.vectors @ ROWS.T, means.tolist(), [1, 1])
    # s_v + mean: 0.38, 0.9, -0.38, -0.7; s_t + mean: 0.2, -0.4, -0.2, 0.68
    np.testing.assert_allclose(fused(composed, scores), [0.33 * 0.13, 0, 0, 0], atol=1e-6)


def test_what_centring_leaves_nothing_of_is_named() -> None:
    with pytest.raises(BadQuery, match="the picture is the mean of the gallery"):
        composed_by("centred-product", hand_kit({"y": Y}, rows=np.stack([X])), Text("y"))
    with pytest.raises(BadQuery, match="the text is the mean of the vocabulary"):
        same = type(NAMES)(("y",), np.stack([Y]), Y, NAMES.subspace)
        kit = hand_kit({"y": Y})
        kit._concepts = same
        composed_by("centred-product", kit, Text("y"))
