from __future__ import annotations

import math

import numpy as np
import pytest

from pocketlens.compose import Text
from pocketlens.compose.simple import on_arc
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import X, Y, Z, composed_by, hand_kit, vector

KIT = hand_kit({"y": Y, "z": Z, "-x": -X, "-y": -Y})


def test_picture_or_text_alone() -> None:
    np.testing.assert_array_equal(composed_by("image", KIT, Text("y")).vectors, [X])
    np.testing.assert_array_equal(
        composed_by("text", KIT, Text("y"), Text("z")).vectors, [(Y + Z) / np.float32(2**0.5)]
    )


def test_sum_by_hand() -> None:
    even = composed_by("sum", KIT, Text("y")).vectors
    np.testing.assert_allclose(even, [[0.5**0.5, 0.5**0.5, 0]], atol=1e-6)
    weighted = composed_by("sum", KIT, Text("y", 2.0)).vectors  # n(1, 2, 0)
    np.testing.assert_allclose(weighted, [[0.4472136, 0.8944272, 0]], atol=1e-6)
    several = composed_by("sum", KIT, Text("y", 3.0), Text("z", 4.0), image_weight=7.0).vectors  # t = (0, 0.6, 0.8)
    np.testing.assert_allclose(several, [[0.7071068, 0.4242641, 0.5656854]], atol=1e-6)


def test_slerp_by_hand() -> None:
    text_heavy = composed_by("slerp", KIT, Text("y"), values={"text_share": 0.8}).vectors  # 72 of 90 degrees
    np.testing.assert_allclose(text_heavy, [[0.3090170, 0.9510565, 0]], atol=1e-6)
    halfway = composed_by("slerp", KIT, Text("y"), values={"text_share": 0.5}).vectors
    np.testing.assert_allclose(halfway, [[0.7071068, 0.7071068, 0]], atol=1e-6)
    heavy = composed_by("slerp", KIT, Text("y", 3.0), values={"text_share": 0.5}).vectors  # share 0.75: 67.5 degrees
    np.testing.assert_allclose(heavy, [[0.3826834, 0.9238795, 0]], atol=1e-6)
    for share, end in ((0.0, X), (1.0, Y)):
        vectors = composed_by("slerp", KIT, Text("y", 9.0), values={"text_share": share}).vectors
        np.testing.assert_allclose(vectors, [end], atol=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 1.0, 1.8, 1.82, 5.0, 90.0, 178.0])
def test_the_arc_has_no_step_where_it_becomes_a_line(degrees: float) -> None:
    end = vector(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0)
    point = on_arc(X, end, 0.8).astype(np.float64)
    expected = math.radians(0.8 * degrees)
    np.testing.assert_allclose(math.atan2(point[1], point[0]), expected, atol=2e-5)


@pytest.mark.parametrize(("name", "values"), [("sum", None), ("slerp", {"text_share": 0.5})])
def test_opposites_cancel(name: str, values: dict[str, float | str] | None) -> None:
    with pytest.raises(BadQuery, match="the text and the picture cancel out: no direction is left"):
        composed_by(name, KIT, Text("-x"), values=values)
    with pytest.raises(BadQuery, match="the texts cancel out"):
        composed_by(name, KIT, Text("y", 2.0), Text("-y", 2.0), values=values)
