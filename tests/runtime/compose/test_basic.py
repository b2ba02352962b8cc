from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pocketlens.compose import Text
from pocketlens.compose.basic import BASIC, fuse_scores
from pocketlens.compose.weights import score_powers
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
    # s' = 1.8, 2.5: 4.5 - 0.1 * 4.3^2; then s' = 0, 2.5
    np.testing.assert_allclose(fused(composed, scores), [2.651, 0], atol=1e-5)
    heavy = composed_by("basic", line_kit(), Text("y", 3.0), values={"expansion": 0, "floor": 2.0, "harris": 0.0})
    np.testing.assert_allclose(fused(heavy, scores), [1.8**0.5 * 2.5**1.5, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("image", "text", "powers", "harris", "expected"),
    [
        (1.8, 2.5, (1, 1), 0.1, 4.5 - 0.1 * 4.3**2),  # the paper's
        (8.0, 2.0, (1, 1), 0.1, 16 - 0.1 * 10**2),  # on the edge, a = (1 / 2h - 1) b
        (9.0, 2.0, (1, 1), 0.1, 6),  # beyond it: held there, where the paper's falls to 5.9
        (2.0, 90.0, (1, 1), 0.1, 6),
        (6.0, 2.0, (2, 0), 0.1, 36 * (1 - 0.1 * (3 + 1 / 3 + 2))),
        (2.0, 6.0, (2, 0), 0.1, 4 * 0.6),  # what the weights leave out lifts no row
        (2.0, 3.0, (0.5, 1.5), 0.0, 2**0.5 * 3**1.5),
        (3.0, 0.0, (1, 1), 0.1, 0),
        (0.0, 0.0, (1, 1), 0.0, 0),
    ],
)
def test_the_fused_score_by_hand(
    image: float, text: float, powers: tuple[float, float], harris: float, expected: float
) -> None:
    found = fuse_scores(np.array([[image], [text]], dtype=np.float32), powers, harris)
    assert found == pytest.approx(expected, rel=1e-5)


NORMALISED = st.just(0.0) | st.floats(2.0**-20, 50, width=32)  # no product of two is lost in float32
SHARES = st.floats(0, 2)
HARRIS = st.floats(0, BASIC.parameters["harris"].most)


@given(scores=st.tuples(NORMALISED, NORMALISED), more=st.tuples(NORMALISED, NORMALISED), power=SHARES, harris=HARRIS)
def test_a_better_match_never_ranks_worse(
    scores: tuple[float, float], more: tuple[float, float], power: float, harris: float
) -> None:
    values = np.array([scores, np.add(scores, more)], dtype=np.float32).T
    worse, better = fuse_scores(values, (power, 2 - power), harris)
    assert 0 <= worse <= better * (1 + 1e-5) + 1e-6


@given(
    first=st.tuples(NORMALISED, NORMALISED), second=st.tuples(NORMALISED, NORMALISED),
    powers=st.tuples(SHARES, SHARES), harris=HARRIS,
)  # fmt: skip
@example(first=(1.0, 1.0), second=(2.0, 0.0), powers=(0.0, 1.0), harris=1.5e-224)  # its square is 0
def test_more_weight_on_the_picture_favours_the_better_match_of_it(
    first: tuple[float, float], second: tuple[float, float], powers: tuple[float, float], harris: float
) -> None:
    values = np.array([max(first, second), min(first, second)], dtype=np.float32).T  # the better match of it first
    light, heavy = (fuse_scores(values, (power, 2 - power), harris).astype(float) for power in sorted(powers))
    if light[0] >= light[1]:
        assert heavy[0] >= heavy[1] * (1 - 1e-4) - 1e-6


@pytest.mark.parametrize("weight", [1.0, 3.0, 20.0, 100.0])
def test_the_true_match_of_a_heavy_part_stays_on_top(weight: float) -> None:
    # The first matches the picture best and the text as usual; the others match the picture less and the text more.
    values = np.array([[4.0, 2.0, 1.5], [1.0, 1.1, 2.0]], dtype=np.float32)
    found = fuse_scores(values, score_powers(1 / weight), 0.1)
    assert weight == 1 or found.argmax() == 0


def test_a_gallery_without_deviation_scores_alike() -> None:
    composed = composed_by("basic", line_kit(), Text("y"))
    found = fused(composed, scores_of([[0.1, 0.1], [0.2, 0.2]], [0.1, 0.2], [0, 0]))
    np.testing.assert_allclose(found, [1 - 0.4, 1 - 0.4], atol=1e-6)


def test_a_picture_outside_the_subspace_is_named() -> None:
    kit = line_kit()
    kit._concepts = replace(NAMES, subspace=np.zeros((0, 3), dtype=np.float32))
    with pytest.raises(BadQuery, match="the picture has nothing in the vocabulary's subspace"):
        composed_by("basic", kit, Text("y"))
