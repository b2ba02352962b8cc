"""How a picture file shows its format, and what of its structure is bounded before a decoder sees it.

Pillow's parsers take a step of Python for each part of a file, and libjpeg goes over the whole picture for each scan of
a progressive JPEG: a megabyte of empty parts, or a kilobyte of empty scans, is a second of work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Literal

_PARTS = 1_000  # of a file of any size; a legal picture has one part in some thousands of bytes beyond that
_BYTES_PER_PART = 1_024
_SCANS = 100  # of a JPEG; encoders that try many make about 30
_ENTRIES = 500  # of a TIFF's directory; the standard names about 80
_SCAN = b"\xff\xda"
_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # they have no length


def format_of(content: bytes) -> str | None:
    """Return the key of `FORMATS` that a file's first bytes stand for; None when they stand for none of them."""
    for prefix, name in _SIGNATURES.items():
        if content.startswith(prefix):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp":
        brands = [content[8:12], *(content[at : at + 4] for at in range(16, min(_int(content[:4]), 256), 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    return None


def starts_a_picture(content: bytes) -> bool:
    """Return whether so few bytes as these, or none, may be the start of a picture."""
    return any(prefix.startswith(content) for prefix in (*_SIGNATURES, b"RIFF")) or (
        len(content) < 12 and content[:4] == b"RIFF"
    )


def excess_of(content: bytes, format: str) -> str | None:
    """Return what a file has more of than any decoder should be given; None when there is no such thing."""
    if format == "jpeg":
        scans = content.count(_SCAN, _start_of_scans(content))
        if scans > _SCANS:
            return f"{scans} scans, expected at most {_SCANS}"
    if format == "tiff" and (entries := _tiff_entries(content)) > _ENTRIES:
        return f"{entries} entries in its directory, expected at most {_ENTRIES}"
    most = _most_parts(content)
    if sum(1 for _ in islice(_parts(content, format), most + 1)) > most:
        return f"more than {most} parts in {len(content)} bytes"
    return None


def is_cut(content: bytes, format: str) -> bool:
    """Return whether a file ends before its format says that it does. Only for files that could not be decoded."""
    if format == "jpeg":
        return content.rfind(_END) < max(content.rfind(_SCAN), 2)
    if format == "gif":
        return not content.endswith(b";")
    if format == "webp":
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    if format == "bmp":
        return len(content) < int.from_bytes(content[2:6], "little")
    if format == "tiff":
        return False  # its directories may stand anywhere; Pillow tells when it misses bytes
    ends = [stop for _, stop in _parts(content, format)]
    last = ends[-1] if ends else 0
    return last > len(content) or (format == "png" and content[last - 8 : last - 4] != b"IEND")


_SIGNATURES = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
}
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "heic"),
}


def _parts(content: bytes, format: str) -> Iterator[tuple[int, int]]:
    """Yield where each part of a file starts and stops, from its structure alone; the last may stop beyond the end."""
    if format == "jpeg":
        return _jpeg_segments(content)
    if format == "png":
        return _chunks(content, 8, "big")
    if format == "webp":
        return _chunks(content, 12, "little")
    if format in ("avif", "heic"):
        return _boxes(content)
    return iter(())


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the segments before the first scan. Fill and junk, which decoders step over, count byte by byte."""
    at = 2
    while at + 4 <= len(content):
        marker = _MARKER.match(content, at)
        if marker is None:
            yield at, at + 1
            at += 1
            continue
        code, start = marker[1][0], at
        if code == _SCAN[1]:
            return
        at = marker.end() + (0 if code in _BARE_MARKERS else max(_int(content[marker.end() : marker.end() + 2]), 2))
        yield start, at


def _start_of_scans(content: bytes) -> int:
    """Return where a JPEG's segments end: what stands before may hold a preview with scans of its own."""
    stop = 2
    for _, stop in islice(_jpeg_segments(content), _most_parts(content)):  # noqa: B007
        pass
    return stop


def _most_parts(content: bytes) -> int:
    return _PARTS + len(content) // _BYTES_PER_PART


def _chunks(content: bytes, at: int, order: Literal["little", "big"]) -> Iterator[tuple[int, int]]:
    """Yield the chunks of a PNG (length, name, content, check sum) or a RIFF file (name, length, content, padding)."""
    while at + 8 <= len(content):
        start = at
        if order == "big":
            at += 12 + _int(content[at : at + 4])
        else:
            size = int.from_bytes(content[at + 4 : at + 8], "little")
            at += 8 + size + size % 2
        yield start, at


def _tiff_entries(content: bytes) -> int:
    """Return how many entries the first directory of a TIFF says it has."""
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
    large = content[2:4].strip(b"\0") == b"+"  # BigTIFF
    start = int.from_bytes(content[8:16] if large else content[4:8], order)
    return int.from_bytes(content[start : start + (8 if large else 2)], order)


def _boxes(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the outer boxes of an ISO media file (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(content):
        start, size = at, _int(content[at : at + 4])
        if size == 1:
            size = _int(content[at + 8 : at + 16])
        at = len(content) if size == 0 else at + max(size, 8)
        yield start, at


def _int(field: bytes) -> int:
    return int.from_bytes(field, "big")
