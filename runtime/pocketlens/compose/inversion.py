"""Inversion networks: the picture as pseudo-tokens in a sentence that ends in the text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose.method import Composed, Kit, Method, Parameter, Query, Values
from pocketlens.compose.values import choice
from pocketlens.compose.weights import add_beyond_equal, image_vector, merge

TEMPLATES = {
    "that": ("a photo of $", "a photo of $ that {text}"),
    "comma": ("a photo of $", "a photo of $ , {text}"),
    "with": ("a photo of $", "a photo of $ with {text}"),
    "plain": ("$", "$ {text}"),
}
"""Sentences by name: one about the picture as it is, one about it as it should be. `$` is the picture."""


def fill(template: str, text: str) -> str:
    """Return a template with a user's text in it; a `$` of the user's own is no picture and becomes a space."""
    return template.format(text=text.replace("$", " "))


def pseudo_tokens(recipe: str, query: Query, kit: Kit) -> Float32s:
    """Return a recipe's pseudo-tokens of the query's pictures, float32 (p, token_dim).

    Those of a network of features are the weighted mean over the pictures; the others are those of the merged vector.
    """
    if recipe not in OF_FEATURES:
        return kit.invert(recipe, image_vector(query))
    maps = query.features
    tokens = kit.invert_features(recipe, np.stack([each.values for each in maps]))  # (pictures, p, token_dim)
    return np.asarray(np.average(tokens, axis=0, weights=[each.weight for each in maps]), dtype=np.float32)


def _inversion(recipe: str) -> Callable[[Query, Kit, Values], Composed]:
    def compose(query: Query, kit: Kit, values: Values) -> Composed:
        _, edited = TEMPLATES[choice(values, "template")]
        prompts = [fill(edited, text.text) for text in query.texts]
        vectors = kit.encode_prompts(prompts, pseudo_tokens(recipe, query, kit))
        vector = add_beyond_equal(merge(vectors, query.texts), query, kit)
        return Composed(vector[np.newaxis])

    return compose


def template_parameter(recipe: str) -> Parameter:
    """Return the parameter that chooses the sentence; by default the one of the recipe's paper."""
    default = "comma" if recipe == "pic2word" else "that"
    return Parameter(default, "the sentence that joins picture and text", choices=tuple(TEMPLATES))


SOURCES = {
    "pic2word": "Saito et al., CVPR 2023, arXiv 2302.03084",
    "searle": "Baldrati et al., ICCV 2023, arXiv 2303.15247",
    "lincir": "Gu et al., CVPR 2024, arXiv 2312.01998",
    "isa": "Image2Sentence, ICLR 2024, arXiv 2403.01431",
}
"""The paper of each recipe."""

OF_FEATURES = frozenset({"isa"})
"""The recipes whose networks take a picture's features, and not its vector."""


def inversion_needs(recipe: str) -> tuple[str, ...]:
    """Return what a method over a recipe's network needs; see `Method.needs`."""
    return ("image", *(["features"] if recipe in OF_FEATURES else []), "text", f"inversion/{recipe}")


def fit_command(recipe: str) -> str:
    """Return the command that makes a recipe's network."""
    if recipe in OF_FEATURES:
        return "pocketlens fit token-learner"
    return f"pocketlens fit inversion --recipe {recipe}"


def input_name(recipe: str) -> str:
    """Return what a recipe's network takes, as formulas call it: the picture's vector v, or its features F."""
    return "F" if recipe in OF_FEATURES else "v"


def _method(recipe: str) -> Method:
    parameter = template_parameter(recipe)
    return Method(
        name=recipe,
        about=f"the picture as words by the network {recipe}, in a sentence with the text",
        formula=f"T('{TEMPLATES[str(parameter.default)][1]}', $ = phi({input_name(recipe)}))·g",
        source=SOURCES[recipe],
        needs=inversion_needs(recipe),
        text_passes=1,
        compose=_inversion(recipe),
        parameters={"template": parameter},
    )


METHODS = tuple(_method(recipe) for recipe in SOURCES)
