"""PDV: the direction from a sentence about the picture to the same sentence with the text, walked from text or picture.

Both sentences come from an inversion network, or from FreeDom's names (the paper uses captions by a language model).
Directions are differences of unit vectors; only the end is brought to unit length, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose import freedom
from pocketlens.compose.inversion import (
    SOURCES,
    TEMPLATES,
    fill,
    input_name,
    inversion_needs,
    pseudo_tokens,
    template_parameter,
)
from pocketlens.compose.method import Composed, Kit, Method, Parameter, Query, Values
from pocketlens.compose.values import choice, number
from pocketlens.compose.weights import image_vector, merge, text_ratio, unit

_MOST_NAMES = 3.0  # in one sentence


def _over_inversion(recipe: str) -> Callable[[Query, Kit, Values], Composed]:
    def compose(query: Query, kit: Kit, values: Values) -> Composed:
        plain, edited = TEMPLATES[choice(values, "template")]
        prompts = [plain, *(fill(edited, text.text) for text in query.texts)]
        encoded = kit.encode_prompts(prompts, pseudo_tokens(recipe, query, kit))
        return Composed(_directed(query, encoded, values)[np.newaxis])

    return compose


def _over_names(query: Query, kit: Kit, values: Values) -> Composed:
    names = freedom.name_picture(query, kit, values)
    plain = f"a photo of {', '.join(name for name, _ in names)}"
    encoded = kit.encode_texts([plain, *(f"{plain} that {text.text}" for text in query.texts)])
    return Composed(_directed(query, encoded, values)[np.newaxis], names=names)


def _directed(query: Query, encoded: Float32s, values: Values) -> Float32s:
    """Return the unit vector, float32 (dim,), from float32 (1 + texts, dim): plain sentence first, then edited ones."""
    start = unit(encoded[0], "the sentence about the picture has a zero vector")
    change = merge(encoded[1:], query.texts) - start
    ratio = text_ratio(query)
    from_text = start + ratio * number(values, "text_strength") * change
    from_image = image_vector(query) + ratio * number(values, "image_strength") * change
    balance = {"text": 1.0, "image": 0.0}.get(choice(values, "direction"), number(values, "balance"))
    walked = (1.0 - balance) * from_image + balance * from_text
    return unit(walked, "text_strength, image_strength and balance cancel the picture and the text out")


# The paper's strengths lie at 1 to 1.4; these and the balance were best on EmojiCIR's validation split, where more of
# the picture's side than the paper's 0.6 to 0.9 of the text's is right (models/lens-base/recipe/composed_tried.json).
PARAMETERS = {
    "direction": Parameter("fused", "where the walk starts", choices=("text", "image", "fused")),
    "text_strength": Parameter(1.3, "how far from the sentence; 1 is the edited sentence", -2.0, 4.0),
    "image_strength": Parameter(1.2, "how far from the picture", -2.0, 4.0),
    "balance": Parameter(0.3, "share of the text's side when fused"),
}


_FORMULA = "d = tc - t0; n((1 - b)(v + a_I r d) + b (t0 + a_T r d))·g, b = balance, a_I and a_T the strengths; "
_SOURCE = "Tursun et al., WACV 2026, arXiv 2502.07215"


def _method(recipe: str) -> Method:
    parameter = template_parameter(recipe)
    plain, edited = TEMPLATES[str(parameter.default)]
    return Method(
        name=f"pdv-{recipe}",
        about=f"from the picture and from its sentence by {recipe}, walk where the text leads",
        formula=f"{_FORMULA}t0 = T('{plain}'), tc = T('{edited}'), $ = phi({input_name(recipe)})",
        source=f"{_SOURCE}, over {recipe}: {SOURCES[recipe]}",
        needs=inversion_needs(recipe),
        text_passes=2,
        compose=_over_inversion(recipe),
        parameters={**PARAMETERS, "template": parameter},
    )


_NAMES = Method(
    name="pdv-names",
    about="from the picture and from a sentence with its names, walk where the text leads; shows the names",
    formula=f"{_FORMULA}t0 = T('a photo of {{names}}'), tc = T('a photo of {{names}} that {{text}}')",
    source=f"{_SOURCE}, over the names of FreeDom: Efthymiadis et al., WACV 2025, arXiv 2412.03297",
    needs=("image", "text", "concepts"),
    text_passes=2,
    compose=_over_names,
    parameters={
        **PARAMETERS,
        **freedom.PARAMETERS,
        "names_kept": replace(freedom.PARAMETERS["names_kept"], default=_MOST_NAMES, most=_MOST_NAMES),
    },
)

METHODS = (*(_method(recipe) for recipe in SOURCES), _NAMES)
