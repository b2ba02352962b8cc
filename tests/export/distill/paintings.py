"""Pictures of two colours each: what the model of mean colours can tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_paintings(folder: Path, count: int) -> Path:
    """Write `count` pictures of 40 x 30 pixels and return the folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = np.empty((30, 40, 3), dtype=np.uint8)
        pixels[:] = rng.integers(0, 256, 3)
        pixels[:, : int(rng.integers(5, 35))] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder
