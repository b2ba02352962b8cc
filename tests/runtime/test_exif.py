from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from pocketlens.exif import Exif, find_exif, read_exif
from pocketlens.picture import decode, load_upright


def written(orientation: int | None = 6, taken: str | None = "2024:07:31 18:30:00", *, big: bool = False) -> bytes:
    exif = Image.Exif()
    exif.endian = ">" if big else "<"
    exif[ExifTags.Base.Model] = "camera"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    return exif.tobytes()


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("taken", [None, "2024:07:31 18:30:00"])
def test_what_pillow_writes_is_read(orientation: int | None, taken: str | None, big: bool) -> None:
    content = written(orientation, taken, big=big)
    assert read_exif(content) == read_exif(b"Exif\0\0" + content) == Exif(orientation, taken)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_is_none_is_missing(orientation: int) -> None:
    assert read_exif(written(orientation)).orientation is None


@pytest.mark.parametrize("taken", ["0000:00:00", "yesterday at six", "    :  :     :  :  ", "2024-07-31 18:30:00"])
def test_a_time_of_another_form_is_missing(taken: str) -> None:
    assert read_exif(written(6, taken)) == Exif(6, None)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"II*\0\x08\0\0\0" + tail))
def test_any_bytes_say_something_or_nothing(content: bytes) -> None:
    found = read_exif(content)
    assert found.orientation in (None, *range(1, 9))


def test_a_directory_of_65535_entries_ends_with_the_bytes() -> None:
    assert read_exif(b"II*\0\x08\0\0\0\xff\xff" + bytes(1_000)) == Exif()
    assert read_exif(b"II*\0\xff\xff\xff\xff") == Exif()


def test_the_first_of_exif_hex_and_xmp_counts() -> None:
    xmp = b'<rdf tiff:Orientation="8"/>'
    assert find_exif({"exif": written(6), "xmp": xmp}).orientation == 6
    assert find_exif({"exif": written(None), "xmp": xmp}) == Exif(8, "2024:07:31 18:30:00")
    assert find_exif({"XML:com.adobe.xmp": "<tiff:Orientation>3</tiff:Orientation>"}).orientation == 3
    as_text = "\nexif\n  99\n" + (b"Exif\0\0" + written(5)).hex()
    assert find_exif({"Raw profile type exif": as_text}).orientation == 5
    for info in ({}, {"exif": "text"}, {"Raw profile type exif": "\n\n\nno hex"}, {"xmp": 3}, {"xmp": b"\xff"}):
        assert find_exif(info) == Exif()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_500_corrupt_blocks_do_not_cost_the_picture(format: str) -> None:
    rng = np.random.default_rng(5)
    image = Image.fromarray(rng.integers(0, 255, (6, 9, 3), dtype=np.uint8)).resize((90, 60))
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    plain = np.asarray(decode(saved(image, format, **options)))
    turned = [np.rot90(each, k) for each in (plain, plain[:, ::-1]) for k in range(4)]
    for _ in range(500 // 3 + 1):
        block = bytearray(written())
        for place in rng.integers(0, len(block), size=int(rng.integers(1, 8))):
            block[place] = int(rng.integers(256))
        found = np.asarray(
            decode(saved(image, format, exif=bytes(block[: rng.integers(1, len(block) + 1)]), **options))
        )
        assert any(np.array_equal(found, each) for each in turned)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_the_time_comes_with_the_picture(format: str) -> None:
    upright = load_upright(saved(Image.new("RGB", (9, 6)), format, exif=written(6)))
    assert (upright.width, upright.height, upright.taken) == (6, 9, "2024:07:31 18:30:00")
