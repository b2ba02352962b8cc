"""Which picture formats are read, how a file shows its own, and the limits that hold before anything is decoded.

Pillow registers 43 formats, some with an interpreter or a poor record behind them. A file is recognised by its
first bytes (see `containers`) and whatever its name, and only the one decoder of a format on the list ever sees it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import features

from pocketlens.errors import BadQuery, MissingPart


@dataclass(frozen=True, slots=True)
class Format:
    """A picture format.

    Attributes:
        decoder: the name of Pillow's decoder.
        suffixes: of its files, lower-case.
    """

    decoder: str
    suffixes: tuple[str, ...]


FORMATS = {
    "jpeg": Format("JPEG", (".jpg", ".jpeg")),
    "png": Format("PNG", (".png",)),
    "webp": Format("WEBP", (".webp",)),
    "gif": Format("GIF", (".gif",)),
    "bmp": Format("BMP", (".bmp",)),
    "tiff": Format("TIFF", (".tif", ".tiff")),
    "avif": Format("AVIF", (".avif",)),
    "heic": Format("HEIF", (".heic", ".heif")),
}
DEFAULT_FORMATS = ("jpeg", "png", "webp")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is read, and how large it may be.

    Attributes:
        formats: keys of `FORMATS`; no other decoder runs.
        file_bytes: of a picture's file.
        pixels: width times height by format; formats that are not in it take the smallest of these.
    """

    formats: tuple[str, ...]
    file_bytes: int
    pixels: Mapping[str, int]

    def pixels_of(self, format: str | None) -> int:
        """Return how many pixels a picture of a format may have; None: one that the caller has decoded already."""
        if format is None:
            return max(self.pixels.values())
        return self.pixels.get(format, min(self.pixels.values()))

    def suffixes(self) -> frozenset[str]:
        """Return the suffixes of the files that are read."""
        return frozenset(suffix for name in self.formats for suffix in FORMATS[name].suffixes)


# Decoding takes about 8 bytes a pixel of a PNG and 15 of a WebP; a large JPEG is reduced while it is decoded.
DEVICE = Limits(DEFAULT_FORMATS, 20_000_000, {"jpeg": 50_000_000, "png": 24_000_000, "webp": 12_000_000})
SERVER = Limits(DEFAULT_FORMATS, 200_000_000, dict.fromkeys(DEFAULT_FORMATS, 100_000_000))


def with_formats(limits: Limits, more: Sequence[str]) -> Limits:
    """Return limits that take more formats than those by default.

    Args:
        limits: what holds otherwise.
        more: keys of `FORMATS`, upper or lower case.

    Raises:
        BadQuery: `more` is a str or holds a name that is none.
        MissingPart: this installation cannot decode one of them.
    """
    if isinstance(more, str) or not all(isinstance(name, str) for name in more):
        raise BadQuery(f"formats is {more!r}, expected a list of {', '.join(FORMATS)}")
    names = [name.lower() for name in more]
    for name in names:
        if name not in FORMATS:
            raise BadQuery(f"{name!r} is no picture format that can be read, expected some of {', '.join(FORMATS)}")
        _check_decoder(name)
    return replace(limits, formats=tuple(dict.fromkeys([*limits.formats, *names])))


def _check_decoder(name: str) -> None:
    if name == "avif" and not features.check("avif"):
        raise MissingPart("this installation's Pillow was built without AVIF, so it cannot read AVIF pictures")
    if name == "heic":
        try:
            plugin: Any = importlib.import_module("pillow_heif")
        except ModuleNotFoundError as error:
            raise MissingPart(
                "HEIC pictures need pillow-heif, which is not installed: pip install pillow-heif"
            ) from error
        plugin.register_heif_opener()
