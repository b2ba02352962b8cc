from __future__ import annotations

import struct

import pytest

from pocketlens.containers import excess_of, format_of, is_cut, starts_a_picture
from tests.fuzz.pictures import bombs, chunk, png_of, seeds

FORMATS = {
    "JPEG": "jpeg", "EXIF": "jpeg", "restarts": "jpeg", "PNG": "png", "WebP": "webp", "GIF": "gif", "BMP": "bmp",
    "TIFF": "tiff", "AVIF": "avif",
}  # fmt: skip


@pytest.mark.parametrize("name", seeds())
def test_legal_pictures_are_recognised_whole_and_of_bounded_parts(name: str) -> None:
    content, format = seeds()[name], FORMATS[name.split()[-1]]
    assert format_of(content) == format
    assert excess_of(content, format) is None
    assert not is_cut(content, format)
    assert format == "tiff" or is_cut(content[: len(content) * 2 // 3], format)


def test_formats_by_hand() -> None:
    assert format_of(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "heic"
    assert format_of(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif") == "avif"  # a brand that is compatible with it
    assert format_of(b"\0\0\0\x14ftypmif1\0\0\0\0mif1avif") is None  # beyond the box
    for content in (b"", b"\xff\xd8", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x18ftypisom", b"%PDF", b"II\0*"):
        assert format_of(content) is None


def test_what_may_still_become_a_picture() -> None:
    for content in (b"", b"\xff", b"\x89PN", b"RI", b"RIFF\0\0\0\0WE", b"GIF8", b"M"):
        assert starts_a_picture(content)
    for content in (b"x", b"\xff\xd7", b"GIF86", b"RIFF\0\0\0\0WAVE"):
        assert not starts_a_picture(content)


@pytest.mark.parametrize(
    ("name", "format", "found"),
    [
        ("JPEG of 300,000 segments", "jpeg", "more than 2172 parts in "),
        ("JPEG with 1 MB of fill", "jpeg", "more than 1977 parts in "),
        ("JPEG with 1 MB of junk", "jpeg", "more than 1977 parts in "),
        ("PNG of 80,000 chunks", "png", "more than 2171 parts in "),
        ("progressive JPEG of 10,000 scans", "jpeg", "10010 scans, expected at most 100"),
    ],
)
def test_more_than_a_decoder_should_be_given(name: str, format: str, found: str) -> None:
    assert str(excess_of(bombs()[name], format)).startswith(found)


def test_1000_parts_are_not_too_many() -> None:
    empty = chunk(b"tEXt", b"a\0")
    room = len(png_of(1, 1, empty * 1_000)) // 1_024
    assert excess_of(png_of(1, 1, empty * (997 + room)), "png") is None  # and three more: head, pixels, end
    assert excess_of(png_of(1, 1, empty * (1_000 + room)), "png") is not None


def test_scans_of_a_preview_do_not_count() -> None:
    content = seeds()["progressive JPEG"]
    preview = b"\xff\xe1" + struct.pack(">H", 2 + 600) + b"\xff\xda" * 300
    assert excess_of(content[:2] + preview + content[2:], "jpeg") is None


@pytest.mark.parametrize(("head", "entries"), [(b"II*\0\x08\0\0\0", b"\xf5\x01"), (b"MM\0*\0\0\0\x08", b"\x01\xf5")])
def test_a_directory_of_more_than_500_entries(head: bytes, entries: bytes) -> None:
    assert excess_of(head + entries, "tiff") == "501 entries in its directory, expected at most 500"
    large = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**40)
    assert excess_of(large, "tiff") == f"{2**40} entries in its directory, expected at most 500"
