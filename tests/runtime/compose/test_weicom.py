from __future__ import annotations

import numpy as np

from pocketlens.compose import METHODS, Text
from tests.runtime.compose.by_hand import X, Y, composed_by, fused, hand_kit, scores_of

KIT = hand_kit({"y": Y})
# In deviations: (1, -1), (0, 2), (6, 6.5), (6, 6)
SCORES = scores_of([[0.5, 0.3, 1.5, 1.5], [0.0, 0.6, 1.5, 1.4]], [0.3, 0.2], [0.2, 0.2])


def test_weicom_by_hand() -> None:
    assert METHODS["weicom"].formula.startswith("(1 - a) Phi(") and " - 1, a" in METHODS["weicom"].formula
    composed = composed_by("weicom", KIT, Text("y"))
    np.testing.assert_array_equal(composed.vectors, [X, Y])
    found = fused(composed, SCORES) + 1  # Phi(1) = 0.841345, Phi(-1) = 0.158655, Phi(2) = 0.977250
    np.testing.assert_allclose(found[:2], [0.5, (0.5 + 0.977250) / 2], atol=1e-6)
    quarter = fused(composed_by("weicom", KIT, Text("y"), values={"text_share": 0.25}), SCORES) + 1
    np.testing.assert_allclose(quarter[:2], [0.6706725, 0.75 * 0.5 + 0.25 * 0.977250], atol=1e-6)
    weighted = fused(composed_by("weicom", KIT, Text("y"), image_weight=3.0), SCORES) + 1  # 1 : 3 is a share of 0.25
    np.testing.assert_allclose(weighted, quarter, atol=1e-6)


def test_the_best_rows_do_not_round_to_the_same() -> None:
    best, second = fused(composed_by("weicom", KIT, Text("y")), SCORES)[2:]
    assert best > second and np.float32(1) + best == np.float32(1) + second
