from __future__ import annotations

import numpy as np
import pytest

from pocketlens.compose import METHODS, Negative, Query, Text, compose
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import X, Y, composed_by, fused, hand_kit, scores_of, vector
from tests.runtime.compose.kit import ArrayKit, vocabulary

VECTOR: dict[str, float | str] = {"negative_level": "vector", "negative_strength": 1.0}
SCORE: dict[str, float | str] = {"negative_level": "score", "negative_strength": 1.0, "negative_floor": 1.0}
UNWANTED = Negative(vector(0.6, 0.8, 0)[np.newaxis], vector(1.0))


def kit_with_mean(*mean: float) -> ArrayKit:
    kit = hand_kit({"y": Y, "-x": -X})
    kit._concepts = vocabulary(np.array([mean]))
    return kit


def test_vectors_by_hand() -> None:
    kit = kit_with_mean(0.1, 0.3, 0)  # what is not wanted is (0.5, 0.5, 0)
    found = composed_by("image", kit, negative=UNWANTED, values=VECTOR)
    np.testing.assert_allclose(found.vectors, [[0.5**0.5, -(0.5**0.5), 0]], atol=1e-6)
    half = composed_by("image", kit, negative=UNWANTED, values={**VECTOR, "negative_strength": 0.5})
    np.testing.assert_allclose(half.vectors, [np.array([0.75, -0.25, 0]) / 0.625**0.5], atol=1e-6)
    light = Negative(UNWANTED.vectors, vector(0.5))  # a weight is a share of the strength
    np.testing.assert_allclose(
        composed_by("image", kit, negative=light, values=VECTOR).vectors, half.vectors, atol=1e-6
    )
    bare = composed_by("image", ArrayKit(kit.rows), negative=UNWANTED, values=VECTOR)  # n(0.4, -0.8, 0)
    np.testing.assert_allclose(bare.vectors, [[0.2**0.5, -(0.8**0.5), 0]], atol=1e-6)


def test_vectors_of_a_fused_method_keep_their_lengths() -> None:
    plain = composed_by("centred-product", kit_with_mean(0.1, 0.3, 0), Text("y")).vectors
    found = composed_by("centred-product", kit_with_mean(0.1, 0.3, 0), Text("y"), negative=UNWANTED, values=VECTOR)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), np.linalg.norm(plain, axis=1), atol=1e-6)
    assert found.negatives == 0 and np.abs(found.vectors - plain).max() > 0.1


def test_scores_by_hand() -> None:
    composed = composed_by("image", kit_with_mean(0, 0, 1), negative=UNWANTED, values=SCORE)
    np.testing.assert_array_equal(composed.vectors, [X, UNWANTED.vectors[0]])
    assert composed.negatives == 1
    # The unwanted is 2, 1 and -3 deviations from its mean: the first row loses 0.1 * (2 - 1).
    scores = scores_of([[0.5, 0.5, 0.5], [0.9, 0.7, -0.1]], [0.2, 0.5], [0.1, 0.2])
    np.testing.assert_allclose(fused(composed, scores), [0.4, 0.5, 0.5], atol=1e-6)
    values = {**SCORE, "negative_strength": 2.0, "negative_floor": 0.0}
    strong = composed_by("image", kit_with_mean(0, 0, 1), negative=UNWANTED, values=values)
    np.testing.assert_allclose(fused(strong, scores), [0.1, 0.3, 0.5], atol=1e-6)


def test_scores_of_several_parts_and_negatives_by_hand() -> None:
    negative = Negative(np.stack([X, Y]), vector(1.0, 0.5))
    composed = composed_by("product", kit_with_mean(0, 0, 1), Text("y"), negative=negative, values=SCORE)
    # z = 3 and 2: a loss of 1 * 2 + 0.5 * 1 = 2.5 deviations of each score
    scores = scores_of([[0.9], [0.8], [0.6], [0.4]], [0, 0, 0, 0], [0.1, 0.2, 0.2, 0.2])
    np.testing.assert_allclose(fused(composed, scores), [(0.9 - 0.25) * (0.8 - 0.5)], atol=1e-6)


def test_a_negative_that_scores_all_alike_takes_nothing() -> None:
    composed = composed_by("image", kit_with_mean(0, 0, 1), negative=UNWANTED, values=SCORE)
    scores = scores_of([[0.5], [0.9]], [0.2, 0.9], [0.1, 0.0])
    np.testing.assert_array_equal(fused(composed, scores), vector(0.5))


def test_names_stay_with_a_query() -> None:
    for values in (VECTOR, SCORE):
        plain = composed_by("freedom", hand_kit({}), Text("y"))
        assert composed_by("freedom", hand_kit({}), Text("y"), negative=UNWANTED, values=values).names == plain.names


def test_errors_name_what_is_wrong() -> None:
    kit = ArrayKit(kit_with_mean(1, 0, 0).rows)
    with pytest.raises(BadQuery, match="what is not wanted cancels the query out at negative_strength 1"):
        composed_by("image", kit, negative=Negative(np.stack([X]), vector(1.0)), values=VECTOR)
    for weight in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(BadQuery, match=r"weights of negatives are \[.*\], expected positive numbers"):
            Negative(np.stack([X]), vector(weight))
    nothing = Query(None, (), 0.0)
    for method in METHODS.values():
        with pytest.raises(BadQuery, match=r"a query needs something wanted, .* found only what is not wanted"):
            compose(nothing, UNWANTED, kit, method)
        with pytest.raises(BadQuery, match=r"a query needs something wanted, .* found neither"):
            compose(nothing, None, kit, method)
