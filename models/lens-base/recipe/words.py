"""What is said of a picture while both towers learn: its name in other words, and the attributes that the name tells.

Wordings are ours; none is taken from EmojiCIR's phrases.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pictures import Picture

TONES = tuple(f"{tone} skin tone" for tone in ("light", "medium-light", "medium", "medium-dark", "dark"))

ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "tone": {
        tone: (tone, f"{tone[:-5]}", f"someone with {tone[:-5]}", f"{tone[:-10]}-skinned person") for tone in TONES
    },
    "gender": {
        "woman": ("a woman", "female", "a woman or girl"),
        "man": ("a man", "male", "a man or boy"),
        "person": ("a person", "a person of no gender"),
    },
    "hair": {
        hair: (hair, f"someone with {hair}", f"{hair} person")
        for hair in ("red hair", "curly hair", "white hair", "blond hair", "bald", "beard")
    },
}
"""Texts for each value of each attribute."""

_SEXES = {"girl": "woman", "boy": "man"}
_FRAMES = ("a {}", "a picture of a {}", "a photo of a {}", "a drawing of {}")


def attributes(picture: Picture) -> dict[str, int]:
    """Return the attributes that an emoji's name tells, each with its value's place; nothing for clip art."""
    if picture.source == "openclipart":
        return {}
    name = picture.caption
    found = {}
    if tone := next((tone for tone in TONES if name.endswith((f": {tone}", f", {tone}"))), ""):
        found["tone"] = tone
    if sex := re.search(r"\b(woman|man|person|girl|boy)\b", name):
        found["gender"] = _SEXES.get(sex[1], sex[1])
    if hair := next((hair for hair in ATTRIBUTES["hair"] if re.search(rf"\b{hair}\b", name)), ""):
        found["hair"] = hair
    return {name: list(ATTRIBUTES[name]).index(value) for name, value in found.items()}


def say(picture: Picture, rng: np.random.Generator) -> str:
    """Return one text of a picture: a tag, the name with tags, or the name, a skin tone in it put in other words."""
    name, *tags = picture.texts
    chance = rng.random()
    if tags and chance < 0.2:
        return str(rng.choice(tags[:8]))
    name = _reworded(name, rng)
    if tags and chance < 0.35:
        return f"{name}, {', '.join(tags[:3])}"
    return name if chance < 0.7 else _FRAMES[rng.integers(len(_FRAMES))].format(name)


def _reworded(name: str, rng: np.random.Generator) -> str:
    bare, _, tone = name.rpartition(": ")
    if tone not in TONES or rng.random() > 0.6:
        return name
    skin = tone.removesuffix(" skin tone")
    ways = (
        f"{bare} with {tone}",
        f"{bare} with {skin} skin",
        f"{skin}-skinned {bare}",
        f"{bare}, {skin} skin",
        f"{bare} that has {tone}",
    )
    return ways[rng.integers(len(ways))]


def attribute_texts(rng: np.random.Generator) -> dict[str, list[str]]:
    """Return for each attribute one text for each of its values, in order."""
    return {name: [texts[rng.integers(len(texts))] for texts in values.values()] for name, values in ATTRIBUTES.items()}
