"""Pictures and prompts that exports are measured on. The pictures are generated from a seed: no file is needed.

The pictures differ in colour, layout, frequency and shape, because a gate over look-alikes passes anything (a seeded
MobileCLIP2-S0 gave 60 different pictures embeddings of mean cosine 0.9998, and every comparison agreed).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats: TypeAlias = NDArray[np.float64]

PROMPTS = (
    "a red bicycle leaning against a brick wall",
    "an old dog",
    "two people walking on the beach at sunset",
    "A bowl of ramen with a soft-boiled egg, seen from above",
    "an empty street at night in the rain",
    "hand-drawn map of an island",
    "the 3rd floor of a car park",
    "close-up photo of a bee on a sunflower, shallow depth of field",
    "snow",
    "it's my grandmother's birthday cake!",
    "aerial view of a harbour with many small white boats",
    "x-ray of a hand",
)

GOLDEN_TEXTS = (
    "a red bicycle",
    "dog",
    "An OLD Lighthouse, painted red & white -- photo by J. O'Brien (1987)",
    "👩‍🚀 riding a 🐎 on the moon ✨",
    "",
    "L&amp;#39;&eacute;t&eacute; Ã  la mer: cafÃ© crème, naïve façade, 東京タワー",
    "a very long text " + "about boats and harbours and the people who live in them " * 12,
    "half past 10 in the morning on the 4th of July 2026: it's hot, we're thirsty, they'll swim",
)


def sample_pictures(count: int, *, seed: int = 0) -> list[Image.Image]:
    """Return `count` different RGB pictures of 160 to 320 pixels a side, portrait and landscape.

    Args:
        count: how many; the first n of a longer list are the same n pictures.
        seed: pictures of different seeds differ.
    """
    return [_picture(i, np.random.default_rng([seed, i])) for i in range(count)]


def _picture(i: int, random: np.random.Generator) -> Image.Image:
    height, width = (int(side) for side in random.integers(160, 321, size=2))
    y, x = np.mgrid[0:height, 0:width]
    pattern = _PATTERNS[i % len(_PATTERNS)](x / width, y / height, random)  # (h, w) in 0..1
    dark, light = random.uniform(0, 255, size=(2, 3))
    pixels = dark + (light - dark) * pattern[:, :, None]  # (h, w) -> (h, w, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _gradient(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    angle = random.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * x + np.sin(angle) * y
    out: Floats = (ramp - ramp.min()) / np.ptp(ramp)
    return out


def _stripes(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    angle, frequency = random.uniform(0, np.pi), 2 ** random.uniform(1, 5.5)
    out: Floats = 0.5 + 0.5 * np.sin(2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y))
    return out


def _checks(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    across, down = random.integers(2, 24, size=2)
    out: Floats = ((np.floor(x * across) + np.floor(y * down)) % 2).astype(np.float64)
    return out


def _discs(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    out = np.zeros_like(x)
    for centre_x, centre_y, radius, level in random.uniform(0, 1, size=(int(random.integers(1, 9)), 4)):
        out[(x - centre_x) ** 2 + (y - centre_y) ** 2 < (0.05 + 0.3 * radius) ** 2] = level
    return out


def _boxes(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    out = np.full_like(x, random.uniform())
    for left, top, width, level in random.uniform(0, 1, size=(int(random.integers(1, 12)), 4)):
        out[(x > left) & (x < left + width / 2) & (y > top) & (y < top + width / 3)] = level
    return out


def _noise(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    cells = 2 ** int(random.integers(1, 8))
    grid = Image.fromarray(random.integers(0, 256, size=(cells, cells), dtype=np.uint8))
    return np.asarray(grid.resize((x.shape[1], x.shape[0]), Image.Resampling.BICUBIC)) / 255.0


def _rings(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    centre_x, centre_y = random.uniform(0, 1, size=2)
    out: Floats = 0.5 + 0.5 * np.cos(2 * np.pi * 2 ** random.uniform(1, 5) * np.hypot(x - centre_x, y - centre_y))
    return out


_PATTERNS: tuple[Callable[[Floats, Floats, np.random.Generator], Floats], ...] = (
    _gradient, _stripes, _checks, _discs, _boxes, _noise, _rings,
)  # fmt: skip
