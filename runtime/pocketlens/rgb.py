"""From every mode that a picture may have to RGB on white; docs/pictures.md lists them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops


class NoWhite(ValueError):
    """Grey values that have no defined white."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a picture's pixels in RGB, loaded, with what is transparent on white.

    Raises:
        NoWhite: it is grey of values that have no defined white.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()  # the pixels stay when the file is closed; a copy would double a large picture's memory
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_deep_grey(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        image.load()  # Pillow takes every such JPEG for one of Adobe's, in which 255 is no ink
        return ImageChops.invert(image).convert("RGB")
    return image.convert("RGB")


def _scale_deep_grey(image: Image.Image) -> Image.Image:
    """Return 16-bit grey scaled to 8 bits (Pillow's own conversion clips instead)."""
    values = np.asarray(image)
    if image.mode == "F":
        raise NoWhite("grey in floating point has no defined white")
    if values.min() < 0 or values.max() > 65_535:
        raise NoWhite(f"grey from {values.min()} to {values.max()}, expected values in 0..65535")
    scaled = np.rint(values / np.float32(257)).astype(np.uint8)
    scaled[values == image.info.get("transparency", -1)] = 255  # a PNG may name one value as clear: it is on white
    return Image.fromarray(scaled)
