"""Views to train on: a picture cropped, mirrored, in other light, a transparent one before another background."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from pocketlens.containers import format_of
from pocketlens.decoders import FORMATS, SERVER
from pocketlens.picture import decode

CODE = 1  # to be raised with every change to what a view is
_STRETCH = 4 / 3  # at most, of a crop's width against its height and the reverse (Inception's random resized crop)
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
_FLAT_SHARE = 0.5  # of other backgrounds: one colour; the others are pictures


@dataclass(frozen=True, slots=True)
class Look:
    """How views differ from their picture.

    Attributes:
        crop: least share of the area, 0 to 1.
        flip: whether every other view is mirrored.
        jitter: most that brightness, contrast and saturation change by, 0 to 1.
        background: share of views of transparent pictures that get another background, 0 to 1.
    """

    crop: float
    flip: bool
    jitter: float
    background: float


@dataclass(frozen=True, slots=True)
class Sheet:
    """A decoded picture: on white, RGB, and how opaque it is where it is not wholly so (L)."""

    image: Image.Image
    opacity: Image.Image | None


def read_sheet(content: bytes) -> Sheet:
    """Decode a picture's bytes, with its transparency.

    Raises:
        BadImage: the picture cannot be decoded.
    """
    image = decode(
        content, limits=SERVER
    )  # which refuses what must not be opened; only then it is opened for its transparency
    format = format_of(content)
    assert format is not None  # it has been decoded
    with Image.open(io.BytesIO(content), formats=(FORMATS[format].decoder,)) as again:
        transparent = again.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in again.info
        if not transparent or again.mode.startswith("I") or again.size != image.size:
            return Sheet(image, None)
        opacity = again.convert("RGBA").getchannel("A")
    return Sheet(image, opacity if opacity.getextrema() != (255, 255) else None)


def draw_view(
    sheet: Sheet, look: Look, rng: np.random.Generator, *, other: Callable[[int], Image.Image], least: int
) -> Image.Image:
    """Return a view of a picture, RGB.

    Args:
        sheet: the picture.
        look: how views differ.
        rng: that the view is drawn from.
        other: makes a picture of a random number, to stand behind a transparent one.
        least: towers take it in this many pixels a side; a much larger crop is reduced for the steps that follow.
    """
    image = sheet.image
    if sheet.opacity is not None and rng.random() < look.background:
        image = _before(image, sheet.opacity, _background(image.size, rng, other))
    view = image.crop(_crop_box(image.size, look.crop, rng))
    factor = min(view.size) // (2 * least)
    view = view.reduce(factor) if factor > 1 else view
    if look.flip and rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhancer in _ENHANCERS:
        view = enhancer(view).enhance(1 + look.jitter * float(rng.uniform(-1, 1)))
    return view


def _crop_box(size: tuple[int, int], least_area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    share, stretch = rng.uniform(least_area, 1), np.exp(rng.uniform(-1, 1) * np.log(_STRETCH))
    shares = np.minimum(np.sqrt([share * stretch, share / stretch]), 1)
    width, height = (max(round(each * side), 1) for each, side in zip(shares, size, strict=True))
    left, top = int(rng.integers(size[0] - width + 1)), int(rng.integers(size[1] - height + 1))
    return (left, top, left + width, top + height)


def _background(size: tuple[int, int], rng: np.random.Generator, other: Callable[[int], Image.Image]) -> Image.Image:
    if rng.random() < _FLAT_SHARE:
        red, green, blue = (int(level) for level in rng.integers(0, 256, size=3))
        return Image.new("RGB", size, (red, green, blue))
    behind = other(int(rng.integers(2**31)))
    return behind.crop(_crop_box(behind.size, 0.1, rng)).resize(size, Image.Resampling.BILINEAR)


def _before(on_white: Image.Image, opacity: Image.Image, background: Image.Image) -> Image.Image:
    """Return a picture that lies on white before another background: where opacity is a, white + (1 - a)(new - 255)."""
    white, new = (np.asarray(each, dtype=np.float32) for each in (on_white, background))
    clear = 1 - np.asarray(opacity, dtype=np.float32)[:, :, None] / 255  # (h, w, 1)
    mixed = np.clip(np.rint(white + clear * (new - 255)), 0, 255)
    return Image.fromarray(mixed.astype(np.uint8))
