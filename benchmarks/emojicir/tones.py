"""Puts right which skin tone is in which file: the package of Fluent emoji names many of them wrongly.

In most of its groups the files of medium and medium-light are exchanged, in some they are not, and in a few no order
can be made out. Skin of a darker tone makes a picture darker, so the pictures themselves tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from PIL import Image

from emojicir.names import TONES, Concept

LIGHT, MEDIUM_LIGHT, MEDIUM, MEDIUM_DARK, DARK = range(1, len(TONES))


def brightness(image: Image.Image) -> float:
    """Return the mean level, 0 to 255, of a picture's opaque pixels."""
    pixels = np.asarray(image.convert("RGBA"), np.float64)
    opaque = pixels[..., 3] > 200
    return float(pixels[..., :3][opaque].mean()) if opaque.any() else 255.0


def true_tones(levels: Mapping[int, float]) -> dict[int, int] | None:
    """Return the true tone of each named tone, from the brightness of all five, or None when they fit no order.

    The two brightest may come in either order: Fluent's medium-light people are blond, its light ones dark-haired.
    """
    if len(levels) != DARK:
        return None
    ranked = sorted(levels, key=lambda tone: -levels[tone])
    if set(ranked[:2]) == {LIGHT, MEDIUM_LIGHT} and ranked[2:] == [MEDIUM, MEDIUM_DARK, DARK]:
        return {tone: tone for tone in levels}
    if set(ranked[:2]) == {LIGHT, MEDIUM} and ranked[2:] == [MEDIUM_LIGHT, MEDIUM_DARK, DARK]:
        return {**{tone: tone for tone in levels}, MEDIUM_LIGHT: MEDIUM, MEDIUM: MEDIUM_LIGHT}
    return None


def put_right(pictures: Mapping[str, Image.Image], concepts: Mapping[str, Concept]) -> dict[str, Image.Image]:
    """Return the pictures by the concept that they show; toned ones of a group without an order are left out."""
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    right: dict[str, Image.Image] = {}
    for key, image in pictures.items():
        tone = concepts[key].tone
        if tone > 0:
            groups[concepts[key].root][tone] = key
        else:
            right[key] = image
    for keys in groups.values():
        true = true_tones({tone: brightness(pictures[key]) for tone, key in keys.items()})
        if true:
            right.update({keys[true[tone]]: pictures[key] for tone, key in keys.items()})
    return right
