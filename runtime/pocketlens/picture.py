"""From a picture (bytes, path or PIL image) to the pixels that an image tower takes.

Follows open_clip's transform applied to the oriented picture, composited on white, in RGB (open_clip ignores EXIF and
alpha). Sizes and crop offsets are torchvision's: the long side is truncated, the offset rounded half to even. Only the
part that the crop keeps is resized; Pillow's `resize(box=)` samples beyond the box, so the result is the same to one or
two levels of 255 (Pillow picks the order of its two passes by the sizes, and rounds between them).
"""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

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
MAX_BYTES = 8 * MAX_PIXELS  # of a file that is read whole: four uncompressed channels of 16 bits
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def load_pixels(picture: Picture, spec: PictureSpec) -> Uint8s:
    """Return the tower's input for one picture, uint8 (side, side, 3) RGB.

    Raises:
        BadImage: the picture cannot be decoded.
        BadQuery: it is neither bytes, a path nor a PIL image.
    """
    return preprocess(decode(picture), spec)


def decode(picture: Picture) -> Image.Image:
    """Return the picture upright, on white and in RGB.

    JPEGs are decoded whole. libjpeg's reduced decoding is three times faster on a phone's photo, but no factor keeps
    lens-base's embedding within the bar of 0.9999 (benchmarks/results/draft.json).

    Raises:
        BadImage: the picture cannot be decoded.
        BadQuery: it is neither bytes, a path nor a PIL image.
    """
    name = _name_of(picture)
    try:
        with _no_warnings, _opened(picture) as image:
            pixels = image.width * image.height
            if not 0 < pixels <= MAX_PIXELS:
                raise BadImage(name, f"{image.width}x{image.height} pixels, expected 1 to {MAX_PIXELS}")
            rgb = _to_rgb(image)  # loads it: before, a TIFF still has the orientation that Pillow then applies
            return _upright(rgb, _orientation(image))
    except (BadImage, BadQuery):
        raise
    except Exception as error:  # Pillow raises SyntaxError, struct.error and others on hostile bytes
        raise BadImage(name, _reason(error)) from error


def read_picture(path: str | Path) -> bytes:
    """Return the bytes of a picture's file, before anything is decoded.

    Raises:
        BadImage: it is no regular file, is larger than any picture that `decode` takes, or cannot be read.
    """
    try:
        found = Path(path).stat()  # opening a pipe would wait for its writer
        if not stat.S_ISREG(found.st_mode):
            raise BadImage(str(path), "no regular file")
        if found.st_size > MAX_BYTES:
            raise BadImage(str(path), f"{found.st_size} bytes, expected at most {MAX_BYTES}")
        with Path(path).open("rb") as file:
            return file.read(found.st_size)
    except (OSError, ValueError) as error:  # ValueError: the path holds NUL or a lone surrogate
        raise BadImage(str(path), _reason(error)) from error


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


@contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    if isinstance(picture, Image.Image):
        yield picture
        return
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=FORMATS) as image:
        yield image


class _NoWarnings:
    """Silences Pillow on corrupt EXIF and odd palettes while a picture is decoded: what matters raises.

    `warnings.catch_warnings` alone may leave the process's filters changed when several threads decode at once; here
    the first to come saves the filters and the last to go restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved.enter_context(warnings.catch_warnings(action="ignore"))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.close()


_no_warnings = _NoWarnings()


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation; None when there is none or it is corrupt, which is no reason to lose a picture."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # struct.error, SyntaxError, KeyError and more
        return None
    return orientation if isinstance(orientation, int) else None


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _to_rgb(image: Image.Image) -> Image.Image:
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
    return image.convert("RGB")


def _scale_deep_grey(image: Image.Image) -> Image.Image:
    """Return 16-bit grey scaled to 8 bits (Pillow's own conversion clips instead)."""
    values = np.asarray(image)
    if image.mode == "F":
        raise ValueError("grey in floating point has no defined white")
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError(f"grey from {values.min()} to {values.max()}, expected values in 0..65535")
    scaled = np.rint(values / np.float32(257)).astype(np.uint8)
    scaled[values == image.info.get("transparency", -1)] = 255  # a PNG may name one value as clear: it is on white
    return Image.fromarray(scaled)


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
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the file's name
    return " ".join(str(error).split())[:200] or type(error).__name__
