"""From a picture (bytes, path or PIL image) to the pixels that an image tower takes.

Follows open_clip's transform applied to the oriented picture, composited on white, in RGB (open_clip ignores EXIF and
alpha). Sizes and crop offsets are torchvision's: the long side is truncated, the offset rounded half to even. Only the
part that the crop keeps is resized; Pillow's `resize(box=)` samples beyond the box, so the result is the same.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pocketlens._types import Uint8s
from pocketlens.errors import BadImage, BadQuery
from pocketlens.model import PictureSpec

Picture: TypeAlias = bytes | str | Path | Image.Image

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
)  # never formats with an interpreter or a poor record behind them
MAX_PIXELS = 100_000_000
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def load_pixels(picture: Picture, spec: PictureSpec) -> Uint8s:
    """Return the tower's input for one picture, uint8 (side, side, 3) RGB.

    Raises:
        BadImage: the picture cannot be decoded.
        BadQuery: it is neither bytes, a path nor a PIL image.
    """
    return preprocess(decode(picture, spec), spec)


def decode(picture: Picture, spec: PictureSpec) -> Image.Image:
    """Return the picture upright, on white and in RGB; a large JPEG may come at a reduced size that `spec` cannot tell.

    Raises:
        BadImage: the picture cannot be decoded.
        BadQuery: it is neither bytes, a path nor a PIL image.
    """
    name = _name_of(picture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # corrupt EXIF and odd palettes only warn; what matters raises
            if isinstance(picture, Image.Image):
                return _to_rgb(ImageOps.exif_transpose(picture))
            source = io.BytesIO(picture) if isinstance(picture, bytes) else picture
            with Image.open(source, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage(name, f"{image.width}x{image.height} pixels, expected at most {MAX_PIXELS}")
                _draft(image, spec)
                return _to_rgb(ImageOps.exif_transpose(image))
    except (BadImage, BadQuery):
        raise
    except FileNotFoundError:
        raise BadImage(name, "no such file") from None
    except Exception as error:  # Pillow raises SyntaxError, struct.error and others on hostile bytes
        raise BadImage(name, _reason(error)) from error


def upright_size(picture: bytes | Path) -> tuple[int, int]:
    """Return (width, height) in pixels after EXIF orientation, read from the header of a decodable picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=FORMATS) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)


def preprocess(image: Image.Image, spec: PictureSpec) -> Uint8s:
    """Return an upright RGB image resized and cropped as `spec` says, uint8 (side, side, 3)."""
    side, resample = spec.side, _FILTERS[spec.interpolation]
    box = (0.0, 0.0, float(image.width), float(image.height))
    if spec.mode == "shortest":
        box = _kept_box(image.width, image.height, side)
    return np.asarray(image.resize((side, side), resample, box=box))


def _kept_box(width: int, height: int, side: int) -> tuple[float, float, float, float]:
    """Return the part of a (width, height) picture that scaling the short side to `side` and cropping would keep."""
    short, long = min(width, height), max(width, height)
    scaled_long = int(side * long / short)
    offset = round((scaled_long - side) / 2)
    start, stop = offset * long / scaled_long, (offset + side) * long / scaled_long
    if width <= height:
        return (0.0, start, float(width), min(stop, float(height)))
    return (start, 0.0, min(stop, float(width)), float(height))


def _draft(image: Image.Image, spec: PictureSpec) -> None:
    """Let a JPEG decode at 1/2, 1/4 or 1/8 where the short side stays at or above `_DRAFT_FACTOR` times the tower's."""
    if image.format == "JPEG":
        image.draft(None, (_DRAFT_FACTOR * spec.side, _DRAFT_FACTOR * spec.side))


_DRAFT_FACTOR = 4  # measured, benchmarks/results/draft.json: the smallest at which every cosine stays above 0.9999


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_deep_grey(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_deep_grey(image: Image.Image) -> Image.Image:
    """Return 16-bit grey scaled to 8 bits (Pillow's own conversion clips instead)."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65_535:
        raise ValueError(f"mode {image.mode} with values outside 0..65535 has no defined brightness")
    return Image.fromarray(np.rint(values / 257.0).astype(np.uint8))


def _name_of(picture: Picture) -> str:
    if isinstance(picture, bytes):
        return f"<{len(picture)} bytes>"
    if isinstance(picture, str | Path):
        return str(picture)
    if isinstance(picture, Image.Image):
        return "<PIL image>"
    raise BadQuery(f"a picture must be bytes, a path or a PIL image, found {type(picture).__name__}")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not one of {', '.join(FORMATS)}"
    return " ".join(str(error).split())[:200] or type(error).__name__
