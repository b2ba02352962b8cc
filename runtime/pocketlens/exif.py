"""The two things that pocketlens takes from a picture's EXIF: how it is turned, and when it was taken.

Pillow reads every entry and raises errors of many types on corrupt ones. Here two entries are looked up, each within
bounds (Exif 3.0, CIPA DC-008, 4.6: a TIFF directory, with a second one for the camera's own entries), and what is
corrupt is as if it were missing: it is no reason to lose a picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

_ORIENTATION, _CAMERA, _TAKEN = 0x0112, 0x8769, 0x9003  # tags; the second holds where the camera's directory starts
_ASCII, _SHORT, _LONG = 2, 3, 4  # types
_TIME_BYTES = 20  # "2024:07:31 18:30:00" and a NUL
_TIME = re.compile(r"[0-9]{4}:[0-9]{2}:[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])["<]')
_XMP_BYTES = 1_000_000  # of them are searched
_ByteOrder: TypeAlias = Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Exif:
    """What a picture's EXIF says.

    Attributes:
        orientation: 1 (upright) to 8; None where it says nothing.
        taken: the camera's local time when the picture was taken, as "2024:07:31 18:30:00".
    """

    orientation: int | None = None
    taken: str | None = None


def find_exif(info: Mapping[Any, Any]) -> Exif:
    """Return what the metadata that Pillow found beside the pixels (`Image.info`) says, EXIF before XMP."""
    content = info.get("exif", b"")
    if not content and isinstance(info.get("Raw profile type exif"), str):  # older ImageMagick's, in a PNG's text
        content = _from_hex(info["Raw profile type exif"])
    found = read_exif(content) if isinstance(content, bytes) else Exif()
    return found if found.orientation else Exif(_xmp_orientation(info), found.taken)


def read_exif(content: bytes) -> Exif:
    """Return what an EXIF block says, with or without the "Exif" in front of it."""
    content = content.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")  # some have it twice
    order: _ByteOrder = "little" if content[:2] == b"II" else "big"
    if content[:4] not in (b"II*\0", b"MM\0*"):
        return Exif()
    directory = int.from_bytes(content[4:8], order)
    orientation = _number(_entry(content, directory, _ORIENTATION, order), order)
    camera = _number(_entry(content, directory, _CAMERA, order), order)
    taken = _time(content, _entry(content, camera, _TAKEN, order), order) if camera else None
    return Exif(orientation if orientation in range(1, 9) else None, taken)


def _entry(content: bytes, directory: int, tag: int, order: _ByteOrder) -> bytes | None:
    """Return the 12 bytes of a directory's entry: tag, type, count, and the value or where it stands."""
    count = int.from_bytes(content[directory : directory + 2], order)
    start = directory + 2
    for at in range(start, min(start + 12 * count, len(content) - 11), 12):
        if int.from_bytes(content[at : at + 2], order) == tag:
            return content[at : at + 12]
    return None


def _number(entry: bytes | None, order: _ByteOrder) -> int | None:
    if entry is None or int.from_bytes(entry[4:8], order) != 1:
        return None
    width = {_SHORT: 2, _LONG: 4}.get(int.from_bytes(entry[2:4], order))
    return None if width is None else int.from_bytes(entry[8 : 8 + width], order)


def _time(content: bytes, entry: bytes | None, order: _ByteOrder) -> str | None:
    if entry is None or entry[2:8] != _ASCII.to_bytes(2, order) + _TIME_BYTES.to_bytes(4, order):
        return None
    start = int.from_bytes(entry[8:12], order)
    found = content[start : start + _TIME_BYTES - 1].decode("ascii", errors="replace")
    return found if _TIME.fullmatch(found) else None


def _xmp_orientation(info: Mapping[Any, Any]) -> int | None:
    for name in ("xmp", "XML:com.adobe.xmp"):  # JPEG's and WebP's, PNG's
        value = info.get(name)
        content = value.encode(errors="replace") if isinstance(value, str) else value
        if isinstance(content, bytes) and (found := _XMP_ORIENTATION.search(content, 0, _XMP_BYTES)):
            return int(found[1])
    return None


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""
