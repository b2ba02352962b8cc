"""Every kind of picture that is read, against colours worked out beforehand; and the limits before decoding."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from pocketlens.decoders import DEVICE, FORMATS, SERVER, with_formats
from pocketlens.encoder import ImageEncoder
from pocketlens.errors import BadImage, BadQuery, MissingPart
from pocketlens.model import Model, find_model
from pocketlens.picture import DRAFT_FACTOR, decode, load_upright, preprocess, read_picture
from tests.fuzz.pictures import chunk, drawing, encoded, png_of

EVERY = with_formats(DEVICE, ["gif", "bmp", "tiff", "avif"])
ORANGE = (230, 120, 40)


def mean_colour(content: bytes) -> np.ndarray:
    return np.asarray(np.asarray(decode(content, limits=EVERY), dtype=np.float64).mean(axis=(0, 1)))


def solid(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, (40, 30), colour)


def over_white(colour: tuple[int, int, int], alpha: int) -> list[float]:
    return [c * alpha / 255 + 255 * (1 - alpha / 255) for c in colour]


def halves(mode: str, left: Any, right: Any) -> Image.Image:
    image = Image.new(mode, (40, 30), right)
    image.paste(left, (0, 0, 20, 30))
    return image


def deep(value: int) -> Image.Image:
    return Image.fromarray(np.full((30, 40), value, dtype=np.uint16))


def without_adobe(content: bytes) -> bytes:
    start = content.index(b"\xff\xee")
    return content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4], "big") :]


def rgb48_png(colour: tuple[int, int, int]) -> bytes:
    """Return a PNG of three channels of 16 bits, which Pillow cannot write."""
    row = b"\0" + struct.pack(">HHH", *colour) * 40
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row * 30)) + chunk(b"IEND")


CMYK = (0, 100, 200, 20)  # ink; in RGB (255 - ink) * (255 - black) / 255
OF_CMYK = [(255 - ink) * (255 - 20) / 255 for ink in CMYK[:3]]
GREY = [100.0] * 3
REFERENCE: dict[str, Callable[[], tuple[bytes, Any]]] = {
    "JPEG": lambda: (encoded(solid("RGB", ORANGE), "JPEG", quality=95), ORANGE),
    "grey JPEG": lambda: (encoded(solid("L", 100), "JPEG"), GREY),
    "Adobe CMYK JPEG": lambda: (encoded(solid("CMYK", CMYK), "JPEG", quality=95), OF_CMYK),
    "plain CMYK JPEG": lambda: (  # stored the other way round
        without_adobe(encoded(solid("CMYK", tuple(255 - ink for ink in CMYK)), "JPEG", quality=95)),
        OF_CMYK,
    ),
    "PNG": lambda: (encoded(solid("RGB", ORANGE), "PNG"), ORANGE),
    "RGBA PNG": lambda: (encoded(solid("RGBA", (*ORANGE, 64)), "PNG"), over_white(ORANGE, 64)),
    "clear PNG of hidden colours": lambda: (encoded(solid("RGBA", (*ORANGE, 0)), "PNG"), [255] * 3),
    "LA PNG": lambda: (encoded(solid("LA", (100, 128)), "PNG"), over_white((100, 100, 100), 128)),
    "palette PNG": lambda: (encoded(solid("RGB", ORANGE).quantize(4), "PNG"), ORANGE),
    "palette PNG with alphas": lambda: (
        encoded(halves("RGB", ORANGE, (0, 0, 0)).quantize(2), "PNG", transparency=bytes([128, 128])),
        [(a + b) / 2 for a, b in zip(over_white(ORANGE, 128), over_white((0, 0, 0), 128), strict=True)],
    ),
    "1-bit PNG": lambda: (encoded(halves("1", 1, 0), "PNG"), [127.5] * 3),
    "16-bit PNG": lambda: (encoded(deep(25_700), "PNG"), GREY),
    "16-bit RGB PNG": lambda: (rgb48_png((59_110, 30_840, 10_280)), ORANGE),
    "WebP": lambda: (encoded(solid("RGB", ORANGE), "WEBP", quality=95), ORANGE),
    "lossless WebP with alpha": lambda: (
        encoded(solid("RGBA", (*ORANGE, 200)), "WEBP", lossless=True),
        over_white(ORANGE, 200),
    ),
    "animated WebP": lambda: (
        encoded(solid("RGB", ORANGE), "WEBP", lossless=True, save_all=True, append_images=[solid("RGB", "blue")]),
        ORANGE,
    ),
    "GIF": lambda: (encoded(solid("RGB", ORANGE).quantize(4), "GIF"), ORANGE),
    "BMP": lambda: (encoded(solid("RGB", ORANGE), "BMP"), ORANGE),
    "CMYK TIFF": lambda: (encoded(solid("CMYK", CMYK), "TIFF"), OF_CMYK),
    "16-bit TIFF": lambda: (encoded(deep(25_700), "TIFF"), GREY),
    "1-bit TIFF": lambda: (encoded(halves("1", 1, 0), "TIFF", compression="group4"), [127.5] * 3),
    "AVIF": lambda: (encoded(solid("RGBA", (*ORANGE, 64)), "AVIF", quality=95), over_white(ORANGE, 64)),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_the_mean_colour_of_a_reference_picture(name: str) -> None:
    content, expected = REFERENCE[name]()
    assert np.abs(mean_colour(content) - expected).max() <= 2


# Which decoder runs


def _every_format() -> dict[str, bytes]:
    """Return a file of every format that Pillow registers: what it can write, and a first line of the others."""
    Image.init()
    first = {
        "BUFR": b"BUFR", "CUR": b"\0\0\2\0", "DCX": b"\xb1\x68\xde\x3a", "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "FITS": b"SIMPLE  =                    T", "FLI": b"\0\0\0\0\x11\xaf", "FTEX": b"FTEX", "GBR": b"\0\0\0\x1c",
        "GRIB": b"GRIB\0\0\0\1", "HDF5": b"\x89HDF\r\n\x1a\n", "IMT": b"\0\n*\nwidth 9\n", "IPTC": b"\x1c\x02\x78",
        "MCIDAS": b"\0\0\0\0\0\0\0\4", "MPEG": b"\0\0\1\xb3", "PCD": b"PCD_", "PIXAR": b"\200\350\000\000",
        "PSD": b"8BPS\0\1", "SUN": b"\x59\xa6\x6a\x95", "WMF": b"\xd7\xcd\xc6\x9a\0\0", "XPM": b"/* XPM */",
        "XVTHUMB": b"P7 332", "MPO": b"", "QOI": b"qoif",
    }  # fmt: skip
    found = {}
    for name in Image.OPEN:
        mode = {"XBM": "1", "MSP": "1", "PALM": "1", "SPIDER": "F", "BLP": "P"}.get(name, "RGB")
        try:
            found[name] = encoded(Image.new(mode, (16, 16)), name)
        except Exception:  # Pillow only reads it, or needs a program that is not here
            found[name] = first.get(name, b"") + bytes(1_000)
    return found


def test_of_all_formats_that_pillow_registers_only_the_allowed_are_read(tmp_path: Path) -> None:
    assert len(Image.OPEN) >= 40 or not Image.init()
    readable = set()
    for name, content in _every_format().items():
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(content)
        try:
            decode(path)
            readable.add(name)
        except BadImage as error:
            assert (error.reason, name in ("JPEG", "PNG", "WEBP")) == ("format", False), name
    assert readable == {"JPEG", "PNG", "WEBP"}


def test_no_decoder_but_the_one_of_the_format_is_even_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("another decoder has seen the file")

    Image.init()
    for name in set(Image.OPEN) - {"PNG"}:
        monkeypatch.setitem(Image.OPEN, name, (refuse, refuse))
    assert decode(encoded(solid("RGB", ORANGE), "PNG")).size == (40, 30)


def test_a_format_by_option_says_so() -> None:
    with pytest.raises(
        BadImage, match="not one of JPEG, PNG, WEBP: GIF is read only where formats asks for it"
    ) as caught:
        decode(encoded(solid("L", 3), "GIF"))
    assert caught.value.reason == "format"


def test_formats_by_option() -> None:
    assert with_formats(DEVICE, []) == DEVICE
    assert with_formats(DEVICE, ["GIF", "png", "gif"]).formats == ("jpeg", "png", "webp", "gif")
    assert with_formats(SERVER, ["tiff"]).suffixes() == {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}
    for wrong in ("gif", [3], ["psd"], [""]):
        with pytest.raises(BadQuery, match=r"picture format|formats is"):
            with_formats(DEVICE, wrong)  # type: ignore[arg-type]


def test_heic_without_its_plugin_names_the_package() -> None:
    with pytest.raises(MissingPart, match="pip install pillow-heif"):
        with_formats(DEVICE, ["heic"])


# Limits


@pytest.mark.parametrize(("format", "most"), [("JPEG", 50_000_000), ("PNG", 24_000_000), ("WEBP", 12_000_000)])
def test_pixels_are_bounded_by_format(format: str, most: int) -> None:
    width = 6_000
    for height, allowed in ((most // width, True), (most // width + 1, False)):
        content = _header_of(format, width, height)
        with pytest.raises(BadImage) as caught:  # there are no pixels behind the header
            decode(content)
        assert (caught.value.reason == "too large") is not allowed
        if not allowed:
            assert caught.value.detail == f"{width}x{height} pixels, expected 1 to {most} of {format}"


def _header_of(format: str, width: int, height: int) -> bytes:
    if format == "PNG":
        return png_of(width, height)
    content = encoded(Image.new("RGB", (16, 16)), format)
    if format == "JPEG":
        at = content.index(b"\xff\xc0") + 5
        changed = content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]
        return changed[: changed.index(b"\xff\xda") + 14]
    return content[:26] + struct.pack("<HH", width, height) + content[30:]


def test_files_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    large = tmp_path / "a.jpg"
    with large.open("wb") as file:
        file.truncate(DEVICE.file_bytes + 1)  # takes no room on the disk
    for picture in (large, b"\xff\xd8\xff" + bytes(DEVICE.file_bytes)):
        with pytest.raises(BadImage, match="bytes, expected at most 20000000") as caught:
            decode(picture)
        assert caught.value.reason == "too large"
    assert len(read_picture(large, limits=SERVER)) == DEVICE.file_bytes + 1


def test_the_limits_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "pictures.md").read_text()
    for name, format in FORMATS.items():
        row = next(line for line in text.splitlines() if line.lower().startswith(f"| {format.decoder.lower()}") or
                   line.lower().startswith(f"| {name}"))  # fmt: skip
        device, server = DEVICE.pixels_of(name) // 1_000_000, SERVER.pixels_of(name) // 1_000_000
        assert f"| {device} MP | {server} MP |" in row
    assert f"{DEVICE.file_bytes // 1_000_000} MB on the device, {SERVER.file_bytes // 1_000_000} MB" in text


MEASURE = """
import resource, sys
from pocketlens.picture import load_pixels
from pocketlens.model import PictureSpec
spec = PictureSpec("image.onnx", "float32", opset=18, side=224, mode="shortest", interpolation="bicubic", features=None)
content = open(sys.argv[1], "rb").read()
load_pixels(open(sys.argv[2], "rb").read(), spec)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_pixels(content, spec)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("format", "size", "most_mb"), [("JPEG", (8_000, 6_000), 40), ("PNG", (6_000, 4_000), 220)])
def test_the_memory_of_the_largest_legal_pictures(
    tmp_path: Path, format: str, size: tuple[int, int], most_mb: int
) -> None:
    (tmp_path / "large").write_bytes(encoded(Image.new("RGB", size, ORANGE), format))
    (tmp_path / "small").write_bytes(encoded(drawing(64), format))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "large"), str(tmp_path / "small")]
    added_kb = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert added_kb / 1e3 < most_mb


def test_a_tiff_without_some_of_its_strips_is_truncated() -> None:
    content = encoded(deep(25_700), "TIFF")
    height = content.index(struct.pack("<HHI", 257, 4, 1)) + 8
    taller = content[:height] + struct.pack("<I", 3_000) + content[height + 4 :]
    with pytest.raises(BadImage, match="40x30 of 40x3000 pixels") as caught:
        decode(taller, limits=EVERY)
    assert caught.value.reason == "truncated"


# Reduced decoding


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_reduced_to_no_less_than_six_times_the_side(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(drawing(900), "JPEG", exif=exif)  # 1,200 x 900
    whole = (1_200, 900) if orientation == 1 else (900, 1_200)
    for side, expected in ((75, 2), (76, 1), (38, 2), (37, 4), (10, 8)):
        upright = load_upright(content, side=side)
        assert (upright.width, upright.height) == whole
        assert upright.image.size == tuple(-(-length // expected) for length in whole)
        assert min(upright.image.size) >= min(DRAFT_FACTOR * side, 900)
    assert decode(content).size == whole


def test_only_jpegs_are_reduced_and_a_callers_image_stays_as_it_is() -> None:
    assert load_upright(encoded(drawing(900), "PNG"), side=10).image.size == (1_200, 900)
    with Image.open(io.BytesIO(encoded(drawing(900), "JPEG"))) as image:
        assert load_upright(image, side=10).image.size == image.size == (1_200, 900)


def test_embeddings_of_reduced_and_whole_jpegs_agree() -> None:
    encoder = ImageEncoder(Model.open(find_model("lens-base")), threads=1)
    factor = 2 * DRAFT_FACTOR * encoder.spec.side  # the least side that is reduced, where the loss is greatest
    content = encoded(drawing(256).resize((factor * 4 // 3, factor), Image.Resampling.LANCZOS), "JPEG", quality=90)
    assert load_upright(content, side=encoder.spec.side).image.height == factor // 2
    whole = encoder.encode_pixels(preprocess(decode(content), encoder.spec)[np.newaxis])[0]
    assert float(encoder.encode([content])[0] @ whole) >= 0.999


@pytest.mark.parametrize(("name", "least"), [("lens-tiny", 0.999), ("lens-base", 0.997)])
def test_orientations_give_the_same_embedding(name: str, least: float) -> None:
    # lens-base in float32 gives 0.9999: the rest is what its int8 makes of another JPEG's rounding
    encoder = ImageEncoder(Model.open(find_model(name)), threads=1)
    upright = drawing(256).resize((1_024, 768), Image.Resampling.BICUBIC)  # smooth: the JPEGs differ little
    stored = {  # what a camera holds, for the picture to be upright by the orientation
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }
    contents = []
    for orientation, image in stored.items():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        contents.append(encoded(image, "JPEG", quality=95, exif=exif))
    vectors = encoder.encode(contents)
    assert (vectors @ vectors[0]).min() >= least
    plain = encoder.encode([encoded(stored[3], "JPEG", quality=95)])[0]
    assert float(plain @ vectors[0]) < 0.999  # without its EXIF it is another picture
