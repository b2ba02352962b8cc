from __future__ import annotations

import numpy as np
import pytest

from pocketlens.compose import METHODS, Text
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import X, Y, Z, composed_by, hand_kit, vector

T0, TC = vector(1, 0, 0), vector(0.6, 0.8, 0)  # the direction is (-0.4, 0.8, 0)
STRENGTHS: dict[str, float | str] = {"text_strength": 1.0, "image_strength": 1.2, "balance": 0.8}
KIT = hand_kit({"a photo of $": T0, "a photo of $ that runs": TC})


def n(*numbers: float) -> np.ndarray:
    return np.asarray(np.array(numbers) / np.linalg.norm(numbers))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"direction": "text"}, TC),  # strength 1 is the inversion itself
        ({"direction": "text", "text_strength": 0.0}, T0),
        ({"direction": "text", "text_strength": 2.0}, n(0.2, 1.6, 0)),
        ({"direction": "text", "text_strength": -1.0}, n(1.4, -0.8, 0)),
        ({"direction": "image"}, n(-0.48, 0.96, 1)),  # 1.2
        ({"direction": "image", "image_strength": 0}, Z),
        ({}, n(0.2 * -0.48 + 0.8 * 0.6, 0.2 * 0.96 + 0.8 * 0.8, 0.2)),
        ({"balance": 1.0}, TC),
        ({"balance": 0.0}, n(-0.48, 0.96, 1)),
    ],
)
def test_directions_by_hand(values: dict[str, float | str], expected: np.ndarray) -> None:
    found = composed_by("pdv-lincir", KIT, Text("runs"), image=Z, values={**STRENGTHS, **values}).vectors
    np.testing.assert_allclose(found, [expected], atol=1e-6)


def test_the_ratio_of_weights_is_how_far_to_go() -> None:
    weighted = composed_by("pdv-lincir", KIT, Text("runs", 1.5), image=Z, values=STRENGTHS).vectors
    strengths = {**STRENGTHS, "text_strength": 1.5, "image_strength": 1.8}
    np.testing.assert_allclose(
        weighted, composed_by("pdv-lincir", KIT, Text("runs"), image=Z, values=strengths).vectors
    )


def test_several_texts_make_one_direction() -> None:
    kit = hand_kit({"a photo of $": X, "a photo of $ that a": Y, "a photo of $ that b": Z})
    values = {**STRENGTHS, "direction": "text"}
    composed = composed_by("pdv-searle", kit, Text("a", 3.0), Text("b", 4.0), image_weight=7.0, values=values)
    np.testing.assert_allclose(composed.vectors, [[0, 0.6, 0.8]], atol=1e-6)
    assert kit.encoded == ["a photo of $", "a photo of $ that a", "a photo of $ that b"]


def test_a_plain_template_starts_from_a_plain_sentence() -> None:
    kit = hand_kit({})
    composed_by("pdv-pic2word", kit, Text("runs"), values={"template": "plain"})
    composed_by("pdv-pic2word", kit, Text("runs"))
    assert kit.encoded == ["$", "$ runs", "a photo of $", "a photo of $ , runs"]


def test_names_stand_in_for_a_network() -> None:
    kit = hand_kit({"a photo of tilted, ball": T0, "a photo of tilted, ball that costs 5$": TC})
    values: dict[str, float | str] = {
        "neighbours": 3,
        "names_per_picture": 1,
        "centred": "no",
        "direction": "text",
        "text_strength": 1.0,
    }
    composed = composed_by("pdv-names", kit, Text("costs 5$"), image=vector(0.8, 0.6, 0), values=values)
    assert composed.names == (("tilted", 1.0), ("ball", 0.5))
    np.testing.assert_allclose(composed.vectors, [TC], atol=1e-6)
    parameters = METHODS["pdv-names"].parameters
    defaults = [parameters[name].default for name in ("balance", "image_strength", "text_strength", "names_kept")]
    assert defaults == [0.3, 1.2, 1.3, 3.0]


def test_strengths_that_cancel_are_an_error() -> None:
    kit = hand_kit({"a photo of $": X, "a photo of $ that runs": -X})
    with pytest.raises(BadQuery, match="text_strength, image_strength and balance cancel"):
        composed_by("pdv-lincir", kit, Text("runs"), values={"direction": "text", "text_strength": 0.5})
