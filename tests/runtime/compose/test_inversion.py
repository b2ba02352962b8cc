from __future__ import annotations

import numpy as np
import pytest

from pocketlens.compose import METHODS, Text
from pocketlens.compose.inversion import TEMPLATES, fill
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import X, Y, Z, composed_by, hand_kit

LOOKING = {
    "lincir": "a photo of $ that is red",
    "searle": "a photo of $ that is red",
    "pic2word": "a photo of $ , is red",
}


@pytest.mark.parametrize("recipe", LOOKING)
def test_the_sentence_is_the_papers(recipe: str) -> None:
    kit = hand_kit({LOOKING[recipe]: Z})
    np.testing.assert_array_equal(composed_by(recipe, kit, Text("is red")).vectors, [Z])
    assert kit.encoded == [LOOKING[recipe]] and kit.touched == {f"inversion/{recipe}"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_has_one_place_for_the_picture_and_one_for_the_text(template: str) -> None:
    plain, edited = TEMPLATES[template]
    assert plain.count("$") == 1 and edited.count("$") == 1 and edited.count("{text}") == 1
    kit = hand_kit({})
    composed_by("lincir", kit, Text("is red"), values={"template": template})
    assert kit.encoded == [edited.replace("{text}", "is red")]
    assert METHODS["pdv-lincir"].parameters["template"].choices == tuple(TEMPLATES)


def test_what_a_user_types_is_only_text() -> None:
    kit = hand_kit({})
    composed_by("lincir", kit, Text("costs 5$ {text} {0} $$"))
    assert kit.encoded == ["a photo of $ that costs 5  {text} {0}   "]
    assert fill("$ {text}", "$") == "$  "


def test_weights_by_hand() -> None:
    kit = hand_kit(
        {"a photo of $ that a": Y, "a photo of $ that b": Z, "a": Y, "b": Z, "c": X, "a photo of $ that c": Z}
    )
    even = composed_by("lincir", kit, Text("a", 3.0), Text("b", 4.0), image_weight=7.0)
    np.testing.assert_allclose(even.vectors, [[0, 0.6, 0.8]], atol=1e-6)
    assert kit.encoded == ["a photo of $ that a", "a photo of $ that b"]  # plain texts only when they weigh more
    image_heavy = composed_by("lincir", kit, Text("a"), image_weight=3.0)  # n(q + 2 v)
    np.testing.assert_allclose(image_heavy.vectors, [np.array([2, 1, 0]) / 5**0.5], atol=1e-6)
    text_heavy = composed_by("lincir", kit, Text("c", 1.75))  # n(q + 0.75 t) = n(0.75, 0, 1)
    np.testing.assert_allclose(text_heavy.vectors, [[0.6, 0, 0.8]], atol=1e-6)


def test_vectors_that_cancel_are_an_error() -> None:
    kit = hand_kit({"a photo of $ that a": Y, "a": -Y, "a photo of $ that b": -Y, "b": -Y})
    with pytest.raises(BadQuery, match="the texts cancel the composed vector out"):
        composed_by("lincir", kit, Text("a", 2.0))
    with pytest.raises(BadQuery, match="the picture cancels the composed vector out"):
        composed_by("lincir", kit, Text("a"), image=-Y, image_weight=2.0)
    with pytest.raises(BadQuery, match="the texts cancel out"):
        composed_by("lincir", kit, Text("a"), Text("b"), image_weight=2.0)
