from __future__ import annotations

import numpy as np
import pytest

from pocketlens.compose import Text
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import ROWS, X, Y, Z, composed_by, hand_kit, vector

PLAIN: dict[str, float | str] = {"centred": "no"}  # names are those nearest to the vectors as they are
ONE: dict[str, float | str] = {"names_per_picture": 1, **PLAIN}


def test_names_and_vector_by_hand() -> None:
    kit = hand_kit({"ball at night": Y, "tilted at night": Z})
    # The picture (0.8, 0.6, 0) is no row. Proxies: itself and (0.6, 0.8, 0), both tilted; and (1, 0, 0), a ball.
    values: dict[str, float | str] = {"neighbours": 3, **ONE}
    composed = composed_by("freedom", kit, Text("at night"), image=vector(0.8, 0.6, 0), values=values)
    assert composed.names == (("tilted", 1.0), ("ball", 0.5))
    assert kit.encoded == ["tilted at night", "ball at night"]
    np.testing.assert_allclose(composed.vectors, [np.array([0, 0.5, 1]) / 1.25**0.5], atol=1e-6)


def test_a_picture_of_the_gallery_is_not_counted_twice() -> None:
    rows = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 1, 0]], dtype=np.float32)
    values: dict[str, float | str] = {"neighbours": 2, **ONE}
    kit = hand_kit({}, rows=rows)
    inside = composed_by("freedom", kit, Text("at night"), image=vector(0.995, 0.0998749, 0), values=values)
    assert inside.names == (("tilted", 1.0), ("ball", 1.0)) or inside.names == (("ball", 1.0), ("tilted", 1.0))
    outside = composed_by("freedom", kit, Text("at night"), image=vector(0.96, 0.28, 0), values=values)
    assert dict(outside.names) == {"ball": 1.0}  # cosine 0.96 with the nearest: itself and that one


def test_equal_counts_stand_in_the_order_of_their_sums() -> None:
    values: dict[str, float | str] = {"neighbours": 1, "names_per_picture": 4, **PLAIN}
    kit = hand_kit({}, rows=ROWS[2:])  # far away: the only proxy is the picture
    names = composed_by("freedom", kit, Text("x"), image=vector(0.28, 0.96, 0), values=values).names
    assert names == (("cube", 1.0), ("tilted", 1.0), ("ball", 1.0), ("cone", 1.0))  # 0.96, 0.936, 0.28, 0
    kept = composed_by("freedom", kit, Text("x"), image=vector(0.28, 0.96, 0), values={**values, "names_kept": 2})
    assert [name for name, _ in kept.names] == ["cube", "tilted"]


def test_centred_names_say_what_sets_a_picture_apart() -> None:
    rows = np.stack([vector(0.8, 0.6, 0), vector(0.8, 0, 0.6)])  # all look like balls; the second also like a cone
    kit = hand_kit({}, rows=rows)
    values: dict[str, float | str] = {"neighbours": 1, **ONE}
    assert composed_by("freedom", kit, Text("x"), image=rows[1], values=values).names == (("ball", 1.0),)
    centred = composed_by("freedom", kit, Text("x"), image=rows[1], values={**values, "centred": "yes"})
    assert centred.names == (("cone", 1.0),)


def test_several_texts_are_merged_by_their_weights() -> None:
    kit = hand_kit({"ball a": Y, "ball b": Z, "a": Y, "b": Z})
    values: dict[str, float | str] = {"neighbours": 1, **ONE}
    composed = composed_by("freedom", kit, Text("a", 3.0), Text("b", 4.0), image_weight=7.0, values=values)
    np.testing.assert_allclose(composed.vectors, [[0, 0.6, 0.8]], atol=1e-6)
    text_heavy = composed_by("freedom", kit, Text("a", 3.0), Text("b", 1.0), image_weight=1.0, values=values)
    q = np.array([0, 3, 1]) / 10**0.5  # and 3 t, which is the same direction here
    np.testing.assert_allclose(text_heavy.vectors, [q], atol=1e-6)
    image_heavy = composed_by("freedom", kit, Text("a"), image_weight=2.0, values=values)  # n(q + v)
    np.testing.assert_allclose(image_heavy.vectors, [[0.5**0.5, 0.5**0.5, 0]], atol=1e-6)


def test_names_that_cancel_are_an_error() -> None:
    kit = hand_kit({"ball x": Y, "tilted x": -Y}, rows=np.stack([X]))
    with pytest.raises(BadQuery, match="the names of the picture cancel out"):
        composed_by("freedom", kit, Text("x"), values={"neighbours": 1, "names_per_picture": 2, **PLAIN})
