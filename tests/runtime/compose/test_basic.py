from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pocketlens.compose import Text
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import NAMES, X, Y, composed_by, fused, hand_kit, scores_of
from tests.runtime.compose.kit import ArrayKit


def line_kit() -> ArrayKit:
    """A gallery whose mean is (0.1, 0.2, 0), and a vocabulary that knows only the first direction."""
    kit = hand_kit({"y": Y})
    kit._concepts = replace(NAMES, subspace=X[np.newaxis])
    return kit


def test_projection_and_expansion_by_hand() -> None:
    bare = composed_by("basic", line_kit(), Text("y"), values={"expansion": 0})
    np.testing.assert_allclose(bare.vectors, [[0.9, 0, 0], [-0.4, 0.55, -0.25]], atol=1e-6)
    # The nearest to (0.9, 0, 0) is (1, 0, 0), centred (0.9, -0.2, 0), similarity 0.81; the query's own is 1.
    one = composed_by("basic", line_kit(), Text("y"), values={"expansion": 1})
    np.testing.assert_allclose(one.vectors[0], [0.9, 0, 0], atol=1e-6)
    # And (0.6, 0.8, 0), centred (0.5, 0.6, 0), similarity 0.45: weights e^0.081, e^0.045, e^0.1 over their sum.
    two = composed_by("basic", line_kit(), Text("y"), values={"expansion": 2})
    shares = np.exp([0.081, 0.045, 0.1]) / np.exp([0.081, 0.045, 0.1]).sum()
    np.testing.assert_allclose(two.vectors[0], [shares @ [0.9, 0.5, 0.9], 0, 0], atol=1e-6)


def test_fusion_by_hand() -> None:
    composed = composed_by("basic", line_kit(), Text("y"), values={"expansion": 0, "floor": 2.0})
    # Scores less means: (0.32, 0.3), (-0.5, 0.3); deviations 0.2 and 0.1, so that least scores are -0.4 and -0.2.
    scores = scores_of([[0.42, -0.4], [0.5, 0.5]], [0.1, 0.2], [0.2, 0.1])
    # s' = 1.8, 2.5: 4.5 - 0.1 * 4.3^2; then s' = 0, 2.5: -0.1 * 2.5^2
    np.testing.assert_allclose(fused(composed, scores), [2.651, -0.625], atol=1e-5)
    heavy = composed_by("basic", line_kit(), Text("y", 3.0), values={"expansion": 0, "floor": 2.0, "harris": 0.0})
    np.testing.assert_allclose(fused(heavy, scores), [1.8**0.5 * 2.5**1.5, 0], rtol=1e-5)


def test_a_gallery_without_deviation_scores_alike() -> None:
    composed = composed_by("basic", line_kit(), Text("y"))
    found = fused(composed, scores_of([[0.1, 0.1], [0.2, 0.2]], [0.1, 0.2], [0, 0]))
    np.testing.assert_allclose(found, [1 - 0.4, 1 - 0.4], atol=1e-6)


def test_a_picture_outside_the_subspace_is_named() -> None:
    kit = line_kit()
    kit._concepts = replace(NAMES, subspace=np.zeros((0, 3), dtype=np.float32))
    with pytest.raises(BadQuery, match="the picture has nothing in the vocabulary's subspace"):
        composed_by("basic", kit, Text("y"))
