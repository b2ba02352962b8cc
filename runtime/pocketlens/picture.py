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
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from pocketlens._types import Uint8s
from pocketlens.containers import excess_of, format_of, is_cut, starts_a_picture
from pocketlens.decoders import DEVICE, FORMATS, Limits
from pocketlens.errors import BadImage, BadQuery, ImageReason
from pocketlens.exif import Exif, find_exif, read_exif
from pocketlens.model import PictureSpec
from pocketlens.rgb import NoWhite, to_rgb

Picture: TypeAlias = bytes | str | Path | Image.Image

DRAFT_FACTOR = 6  # a JPEG may be decoded at 1/2, 1/4 or 1/8 while its sides stay this many times the tower's
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323  # tags of a TIFF
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, slots=True)
class Upright:
    """A decoded picture.

    Attributes:
        image: upright, on white and in RGB; a JPEG's may be reduced.
        width, height: of the upright picture before it was reduced, in pixels.
        taken: the camera's local time, as "2024:07:31 18:30:00"; None where the picture does not say.
    """

    image: Image.Image
    width: int
    height: int
    taken: str | None


def load_pixels(picture: Picture, spec: PictureSpec, *, limits: Limits = DEVICE) -> Uint8s:
    """Return the tower's input for one picture, uint8 (side, side, 3) RGB.

    Raises:
        BadImage: the picture cannot be decoded.
        BadQuery: it is neither bytes, a path nor a PIL image.
    """
    return preprocess(load_upright(picture, side=spec.side, limits=limits).image, spec)


def decode(picture: Picture, *, limits: Limits = DEVICE) -> Image.Image:
    """Return the picture upright, on white, in RGB and in its full size; see `load_upright` for the errors."""
    return load_upright(picture, limits=limits).image


def load_upright(picture: Picture, *, side: int | None = None, limits: Limits = DEVICE) -> Upright:
    """Decode a picture; the conversions are listed in docs/pictures.md.

    Args:
        picture: bytes, the path of a file, or a PIL image.
        side: of the tower that it is for. A JPEG whose sides are at least 12 times as long is reduced by libjpeg while
            it is decoded, to no less than 6 times: a 12-megapixel photo takes half the time, a 50-megapixel one a
            sixteenth of the memory, and lens-base's embedding stays at a cosine of 0.996 or more
            (benchmarks/results/draft.json). What the caller gives as a PIL image is never reduced.
        limits: what is read, and how large it may be. A PIL image need only keep to the most pixels of any format.

    Raises:
        BadImage: the picture cannot be decoded.
        BadQuery: it is neither bytes, a path nor a PIL image.
    """
    name = _name_of(picture)
    if isinstance(picture, Image.Image):
        return _guarded(name, lambda: _from_image(name, picture, limits))
    content = picture if isinstance(picture, bytes) else read_picture(picture, limits=limits)
    format = _checked_format(name, content, limits)
    return _guarded(name, lambda: _from_bytes(name, content, format, side, limits), content, format)


def read_picture(path: str | Path, *, limits: Limits = DEVICE) -> bytes:
    """Return the bytes of a picture's file, before anything is decoded.

    Raises:
        BadImage: it is no regular file, is larger than the limits say, or cannot be read.
    """
    try:
        found = Path(path).stat()  # opening a pipe would wait for its writer
        if not stat.S_ISREG(found.st_mode):
            raise BadImage(str(path), "unreadable", "no regular file")
        if found.st_size > limits.file_bytes:
            raise BadImage(str(path), "too large", _too_many_bytes(found.st_size, limits))
        with Path(path).open("rb") as file:
            return file.read(found.st_size)
    except (OSError, ValueError) as error:  # ValueError: the path holds NUL or a lone surrogate
        raise BadImage(str(path), "unreadable", _detail(error)) from error


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


def _checked_format(name: str, content: bytes, limits: Limits) -> str:
    """Return the format of a file's bytes, which no decoder has seen yet."""
    if len(content) > limits.file_bytes:
        raise BadImage(name, "too large", _too_many_bytes(len(content), limits))
    format = format_of(content)
    if format is None and starts_a_picture(content):
        raise BadImage(name, "truncated", f"it ends after {len(content)} bytes")
    if format is None or format not in limits.formats:
        expected = ", ".join(FORMATS[name].decoder for name in limits.formats)
        option = "" if format is None else f": {FORMATS[format].decoder} is read only where formats asks for it"
        raise BadImage(name, "format", f"not one of {expected}{option}")
    excess = excess_of(content, format)
    if excess is not None:
        raise BadImage(name, "damaged", excess)
    return format


def _from_bytes(name: str, content: bytes, format: str, side: int | None, limits: Limits) -> Upright:
    with _no_warnings, Image.open(io.BytesIO(content), formats=(FORMATS[format].decoder,)) as image:
        _check_size(name, image.size, format, limits)
        if format == "tiff":
            _check_tiles(name, image, limits)
        width, height = image.size
        if side is not None and format == "jpeg":
            image.draft(None, (DRAFT_FACTOR * side, DRAFT_FACTOR * side))
        rgb = to_rgb(image)
        if format == "tiff":  # Pillow has turned it upright while loading it
            return Upright(rgb, *rgb.size, read_exif(content).taken)
        exif = find_exif(image.info)  # only now: a PNG may tell after its pixels
        return _turned(rgb, (width, height), exif)


def _from_image(name: str, image: Image.Image, limits: Limits) -> Upright:
    with _no_warnings:
        _check_size(name, image.size, None, limits)
        rgb = to_rgb(image)  # loads it: before, a TIFF still has the orientation that Pillow then applies
        return _turned(rgb, rgb.size, Exif(_orientation(image)))


def _turned(rgb: Image.Image, size: tuple[int, int], exif: Exif) -> Upright:
    if exif.orientation not in _TURNS:
        return Upright(rgb, *size, exif.taken)
    width, height = size[::-1] if exif.orientation in _SIDEWAYS else size
    return Upright(rgb.transpose(_TURNS[exif.orientation]), width, height, exif.taken)


def _check_size(name: str, size: tuple[int, int], format: str | None, limits: Limits) -> None:
    pixels, most = size[0] * size[1], limits.pixels_of(format)
    if not 0 < pixels <= most:
        what = "a picture" if format is None else FORMATS[format].decoder
        reason: ImageReason = "too large" if pixels else "damaged"
        raise BadImage(name, reason, f"{size[0]}x{size[1]} pixels, expected 1 to {most} of {what}")


def _check_tiles(name: str, image: Image.Image, limits: Limits) -> None:
    """Refuse a TIFF whose tiles, which are decoded whole, are too large, or end before the picture does."""
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_HEIGHT]  # as stored; the image's own are upright already
    _check_size(name, (tags.get(_TILE_WIDTH, width), tags.get(_TILE_HEIGHT, height)), "tiff", limits)
    stops = [tile.extents[2:] for tile in image.tile if tile.extents is not None]
    found = [max((stop[axis] for stop in stops), default=0) for axis in (0, 1)]
    if found[0] < width or found[1] < height:  # Pillow would leave the rest black
        raise BadImage(name, "truncated", f"{found[0]}x{found[1]} of {width}x{height} pixels")


def _too_many_bytes(found: int, limits: Limits) -> str:
    return f"{found} bytes, expected at most {limits.file_bytes}"


def _guarded(name: str, load: Callable[[], Upright], content: bytes = b"", format: str | None = None) -> Upright:
    """Return what `load` gives, or raise `BadImage`: the one boundary that Pillow's own errors do not pass."""
    try:
        return load()
    except BadImage:
        raise
    except Exception as error:  # Pillow raises SyntaxError, struct.error and others on hostile bytes
        raise BadImage(name, _reason(error, content, format), _detail(error)) from error


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
    """Return what a caller's image says; None when it is corrupt, which is no reason to lose a picture."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # struct.error, SyntaxError, KeyError and more
        return None
    return orientation if isinstance(orientation, int) else None


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # width and height change places


def _name_of(picture: Picture) -> str:
    if isinstance(picture, bytes):
        return f"<{len(picture)} bytes>"
    if isinstance(picture, str | Path):
        return str(picture)
    if isinstance(picture, Image.Image):
        return "<PIL image>"
    raise BadQuery(f"a picture must be bytes, a path or a PIL image, found {type(picture).__name__}")


def _reason(error: Exception, content: bytes, format: str | None) -> ImageReason:
    if isinstance(error, MemoryError | Image.DecompressionBombError) or "too large" in str(error).lower():
        return "too large"
    if isinstance(error, NoWhite):
        return "format"
    if "truncated" in str(error).lower() or (format is not None and is_cut(content, format)):
        return "truncated"
    return "damaged"


def _detail(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its first bytes promise a picture that does not follow"  # Pillow's message has the object's address
    if isinstance(error, Image.DecompressionBombError):
        return str(error).split(",")[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the file's name
    return " ".join(str(error).split())[:200] or type(error).__name__
