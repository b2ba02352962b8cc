from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlens.compose import METHODS, Composed, Negative, Query, Text, compose
from pocketlens.errors import BadQuery
from tests.colours import unit
from tests.runtime.compose.by_hand import X, Y, Z, composed_by, hand_kit, vector
from tests.runtime.compose.kit import ArrayKit, random_kit, random_query, vocabulary

ONE: dict[str, float | str] = {"names": 1, "words": 0.0}
ROWS = np.array([[0, 0.6, 0.8], [0, -0.6, 0.8], [0, 0.6, -0.8], [0, -0.6, -0.8]])  # deviations 0, 0.6 and 0.8
FEW = settings(max_examples=25, deadline=None)


def one_name_kit(**known: np.ndarray) -> ArrayKit:
    """Return a kit that can call everything but a cube: its scores are all alike, and u is Y."""
    return ArrayKit(ROWS, vocabulary(np.stack([Y]), ["cube"]), {"cube, x": X, **known})


def test_names_by_hand() -> None:
    # Products with ball, cube, cone, tilted: sentence (0, 1, 0, 0.8), text (0, 0, 1, 0), picture (1, 0, 0, 0.6).
    # Means 0.45, 0.25, 0.4, deviations 0.45552, 0.43301, 0.42426; so without `own` the scores are
    # -0.56945, 0.44733, -0.59326 and 0.71538.
    kit = hand_kit({"ball, at night": Y, "at night": Z})
    plain = composed_by("edit", kit, Text("at night"), values={**ONE, "own": 0.0})
    assert [name for name, _ in plain.names] == ["tilted", "cube", "ball"]
    weights = np.exp(np.array([0, 0.44733 - 0.71538, -0.56945 - 0.71538]) / 0.1)
    np.testing.assert_allclose([weight for _, weight in plain.names], weights, rtol=1e-3)
    np.testing.assert_allclose(plain.vectors[0], unit(vector(0.6, 0.8 + weights[1], 0)), atol=1e-5)
    assert kit.encoded == ["at night", "ball, at night"]
    lowered = composed_by("edit", kit, Text("at night"), values={**ONE, "own": 0.1})  # a ball at -0.66945
    assert [name for name, _ in lowered.names] == ["tilted", "cube", "cone"]
    assert lowered.names[0][1] == 1.0


def test_words_by_hand() -> None:
    values: dict[str, float | str] = {"words": 0.3}
    found = composed_by("edit", one_name_kit(x=Z), Text("x"), values=values)
    assert found.names == (("cube", 1.0),) and found.fuse is None
    np.testing.assert_allclose(found.vectors, [unit(vector(0, 1 / 0.6, 0.3 / 0.8))], atol=1e-6)
    flat = composed_by("edit", one_name_kit(x=X), Text("x"), values=values)  # rows do not differ in X: taken for 1
    np.testing.assert_allclose(flat.vectors, [unit(vector(0.3, 1 / 0.6, 0))], atol=1e-6)
    none = composed_by("edit", one_name_kit(x=Z), Text("x"), values={"words": 0.0})
    np.testing.assert_allclose(none.vectors, [Y], atol=1e-6)


def test_names_of_the_picture_weigh_by_their_likeness() -> None:
    a, b, y, z = np.eye(4)
    difference = 0.05 * np.log(2)  # so the one of the picture's two names is twice as heavy as the other
    low = (np.sqrt(2 - difference**2) - difference) / 2
    picture = (low + difference) * a + low * b
    known = {"a, x": y, "b, x": z, "x": (y + z) / 2**0.5}
    kit = ArrayKit(np.eye(4), vocabulary(np.stack([a, b, y, z]), ["a", "b", "y", "z"]), known)
    found = composed_by("edit", kit, Text("x"), image=picture, values={"names": 2}).names
    # The sentence is (0, 0, 2, 1) / 5^0.5, of variance 0.1375 over the names; but for it y and z are alike.
    assert [name for name, _ in found[:2]] == ["y", "z"]
    np.testing.assert_allclose(found[1][1], np.exp(-10 * (1 / 5**0.5) / 0.1375**0.5), rtol=1e-3)
    assert kit.encoded == ["x", "a, x", "b, x"]


def test_several_texts_are_merged_by_their_weights() -> None:
    names = vocabulary(np.stack([X, Y, Z]), ["ball", "cube", "cone"])
    known = {"ball, a": Y, "ball, b": Z, "a": Y, "b": Z}
    kit = ArrayKit(ROWS, names, known)
    first = composed_by("edit", kit, Text("a", 3.0), Text("b", 4.0), image_weight=7.0, values=ONE)
    assert kit.encoded == ["a", "b", "ball, a", "ball, b"]
    assert first.names[0][0] == "cone"
    second = composed_by("edit", kit, Text("a", 4.0), Text("b", 3.0), image_weight=7.0, values=ONE)
    assert second.names[0][0] == "cube"


def test_weights_beyond_equal_act_on_the_whole_vector() -> None:
    kit, values = one_name_kit(x=Z), {"words": 0.0}
    heavy_text = composed_by("edit", kit, Text("x", 3.0), values=values)  # n(u + 2 t)
    np.testing.assert_allclose(heavy_text.vectors, [unit(vector(0, 1, 2))], atol=1e-6)
    heavy_image = composed_by("edit", kit, Text("x"), image_weight=2.0, values=values)  # n(u + v)
    np.testing.assert_allclose(heavy_image.vectors, [unit(vector(1, 1, 0))], atol=1e-6)


def test_a_users_dollar_and_braces_are_text() -> None:
    kit = hand_kit({})
    composed_by("edit", kit, Text("for 5$ {x}"), values={"names": 1})
    assert kit.encoded == ["for 5$ {x}", "ball, for 5$ {x}"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_small_vocabulary_is_enough(count: int) -> None:
    found = compose(random_query(1), None, random_kit(1, names=count), METHODS["edit"], {"names": 20})
    assert len(found.names) == min(count, 3)
    assert np.isfinite(found.vectors).all()


@FEW
@given(seed=st.integers(0, 10_000), count=st.integers(1, 20))
def test_the_order_of_the_vocabulary_does_not_matter(seed: int, count: int) -> None:
    kit = random_kit(seed)
    order = np.random.default_rng(seed).permutation(len(kit.concepts.names))
    shuffled = vocabulary(kit.concepts.vectors[order], [kit.concepts.names[i] for i in order])
    found, again = (
        compose(random_query(seed), None, ArrayKit(kit.rows, concepts), METHODS["edit"], {"names": count})
        for concepts in (kit.concepts, shuffled)
    )
    np.testing.assert_allclose(again.vectors, found.vectors, atol=1e-4)
    assert [name for name, _ in again.names] == [name for name, _ in found.names]


class AddingKit(ArrayKit):
    """Reads "a, b" as the sum of what a and b are called."""

    def _vector(self, text: str) -> np.ndarray:
        names = dict(zip(self.concepts.names, self.concepts.vectors, strict=True))
        return unit(np.sum([names[part] for part in text.split(", ")], axis=0))


@FEW
@given(seed=st.integers(0, 10_000))
def test_a_text_that_is_a_name_brings_that_name(seed: int) -> None:
    rng = np.random.default_rng(seed)
    concepts = vocabulary(unit(rng.standard_normal((30, 64))))
    kit = AddingKit(unit(rng.standard_normal((40, 64))), concepts)
    image = unit(concepts.vectors[0] + 0.1 * rng.standard_normal(64) / 8)
    answers = [_edited(kit, image, f"thing {wanted}") for wanted in (7, 8)]
    for wanted, found in zip((7, 8), answers, strict=True):
        assert found.names[0][0] == f"thing {wanted}"
        assert found.names[0][1] > 2 * found.names[1][1]
    gain = concepts.vectors[[7, 8]] @ (answers[0].vectors[0] - answers[1].vectors[0])
    assert gain[0] > 0.5 and gain[1] < -0.5


def _edited(kit: ArrayKit, image: np.ndarray, text: str) -> Composed:
    return compose(Query(image, (Text(text),)), None, kit, METHODS["edit"])


def test_what_cancels_is_an_error() -> None:
    names = vocabulary(np.stack([X, Y]), ["ball", "cube"])
    between = vector(0.5**0.5, 0.5**0.5, 0)
    kit = ArrayKit(ROWS, names, {"ball, x": Z, "cube, x": -Z})
    with pytest.raises(BadQuery, match="the edited names of the picture cancel out"):
        composed_by("edit", kit, Text("x"), image=between)
    opposite = one_name_kit(x=-Y)  # both have the deviation 0.6
    with pytest.raises(BadQuery, match="the text cancels the names of the edited picture out"):
        composed_by("edit", opposite, Text("x"), values={"words": 1.0})


def test_what_is_not_wanted_is_taken_off_and_names_stay() -> None:
    negative = Negative(np.stack([Z]), vector(1.0))
    kept = composed_by("edit", one_name_kit(x=Y), Text("x"), negative=negative)
    assert kept.names == (("cube", 1.0),) and abs(kept.vectors[0] @ Z) > 0.1
