"""Malformed pictures: legal ones of every kind that is read, damaged at random, and bombs made by hand.

`python -m tests.fuzz.pictures FIRST COUNT` decodes that many in this process, within bounds of memory and CPU time, and
prints what became of them as JSON; the tests run it as a child, so that a crash is found and not died of.
"""

from __future__ import annotations

import io
import json
import math
import resource
import statistics
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from pocketlens.containers import format_of
from pocketlens.decoders import DEVICE, FORMATS, with_formats
from pocketlens.errors import BadImage
from pocketlens.model import PictureSpec
from pocketlens.picture import load_pixels

EVERY = with_formats(DEVICE, ["gif", "bmp", "tiff", "avif"])
SPEC = PictureSpec("image.onnx", "float32", opset=18, side=32, mode="shortest", interpolation="bicubic", features=None)
MEMORY_BYTES = 1_000_000_000  # of address space that decoding may add
SLOWER = 20  # than the median legal picture of the same size
_SIDES = (64, 256, 1_024, 2_800)  # of the legal pictures that are timed
_CPU_SECONDS = 600


@cache
def drawing(side: int) -> Image.Image:
    """Return a picture with slopes, edges and noise, `side` high and 4/3 as wide, RGB; a large one repeats itself."""
    rng, cell = np.random.default_rng(side), min(side, 256)
    y, x = np.mgrid[0:cell, 0:cell]
    pixels = np.stack([128 + 90 * np.sin(x / a + y / b) for a, b in ((17, 9), (5, 31), (60, 44))], axis=-1)
    pixels += rng.normal(0, 8, pixels.shape)
    pixels[cell // 3 : cell // 2, cell // 4 : cell // 2] = (250, 10, 30)
    tiled = np.tile(np.clip(pixels, 0, 255).astype(np.uint8), (-(-side // cell), -(-side * 4 // 3 // cell), 1))
    return Image.fromarray(np.ascontiguousarray(tiled[:side, : side * 4 // 3]))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """Return a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@cache
def seeds() -> dict[str, bytes]:
    """Return legal pictures by name."""
    rgb = drawing(72)
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(np.linspace(0, 255, 72 * 96).reshape(72, 96).astype(np.uint8)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Model] = "camera"
    deep = Image.fromarray(np.linspace(0, 65_535, 72 * 96).reshape(72, 96).astype(np.uint16))
    frames: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    return {
        "JPEG": encoded(rgb, "JPEG", quality=85),
        "progressive JPEG": encoded(rgb, "JPEG", progressive=True),
        "grey JPEG with EXIF": encoded(rgb.convert("L"), "JPEG", exif=exif),
        "CMYK JPEG": encoded(rgb.convert("CMYK"), "JPEG"),
        "JPEG with restarts": encoded(rgb, "JPEG", restart_marker_blocks=2, subsampling="4:4:4"),
        "PNG": encoded(rgb, "PNG", exif=exif),
        "RGBA PNG": encoded(rgba, "PNG", icc_profile=b"profile " * 40),
        "palette PNG": encoded(rgb.quantize(16), "PNG", transparency=bytes([0, 128, 255])),
        "16-bit PNG": encoded(deep, "PNG"),
        "1-bit PNG": encoded(rgb.convert("1"), "PNG"),
        "animated PNG": encoded(rgb, "PNG", **frames),
        "WebP": encoded(rgb, "WEBP", quality=70, exif=exif),
        "lossless WebP": encoded(rgba, "WEBP", lossless=True),
        "animated WebP": encoded(rgb, "WEBP", **frames),
        "GIF": encoded(rgb.quantize(32), "GIF", **frames),
        "BMP": encoded(rgb, "BMP"),
        "LZW TIFF": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "JPEG TIFF": encoded(rgb, "TIFF", compression="jpeg"),
        "raw TIFF": encoded(deep, "TIFF"),
        "AVIF": encoded(rgba, "AVIF", quality=50),
    }


def mutant(number: int) -> tuple[str, bytes]:
    """Return the malformed picture of this number, and what it was made from."""
    rng = np.random.default_rng([6, number])
    names = list(seeds())
    name = names[number % len(names)]
    content = bytearray(seeds()[name])
    for _ in range(int(rng.integers(1, 4))):
        change = _CHANGES[int(rng.integers(len(_CHANGES)))]
        change(content, rng)
    if name.endswith("PNG") and rng.random() < 0.7:
        return name, with_sums(bytes(content))  # or the check sums would hide the damage from what comes after them
    return name, bytes(content)


def _flip(content: bytearray, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 12))):
        if content:
            content[int(rng.integers(len(content)))] = int(rng.integers(256))


def _flip_header(content: bytearray, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        if content:
            content[int(rng.integers(min(len(content), 200)))] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))


def _cut(content: bytearray, rng: np.random.Generator) -> None:
    del content[int(rng.integers(len(content) + 1)) :]


def _remove(content: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(content) + 1))
    del content[start : start + int(rng.integers(1, 64))]


def _repeat(content: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(content) + 1))
    content[start:start] = content[start : start + int(rng.integers(1, 400))] * int(rng.integers(1, 20))


def _extreme(content: bytearray, rng: np.random.Generator) -> None:
    start, value = int(rng.integers(len(content) + 1)), int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
    content[start : start + 4] = value.to_bytes(4, "big" if rng.random() < 0.5 else "little")


def _splice(content: bytearray, rng: np.random.Generator) -> None:
    other = list(seeds().values())[int(rng.integers(len(seeds())))]
    start = int(rng.integers(len(content) + 1))
    content[start:] = other[int(rng.integers(len(other))) :]


_CHANGES: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    _flip, _flip, _flip_header, _flip_header, _cut, _remove, _repeat, _extreme, _splice
)  # fmt: skip


def with_sums(content: bytes) -> bytes:
    """Return a PNG with the check sum of every chunk that is whole set right."""
    fixed, at = bytearray(content), 8
    while at + 12 <= len(fixed):
        stop = at + 8 + int.from_bytes(fixed[at : at + 4], "big")
        if stop + 4 > len(fixed):
            break
        fixed[stop : stop + 4] = zlib.crc32(fixed[at + 4 : stop]).to_bytes(4, "big")
        at = stop + 4
    return bytes(fixed)


def chunk(name: bytes, body: bytes = b"") -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(width: int, height: int, *more: bytes) -> bytes:
    """Return a PNG that says it is this large, has chunks of the caller's, and next to no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND")


def bombs() -> dict[str, bytes]:
    """Return small files by name that ask for much memory or time."""
    jpeg, webp, tiff = encoded(drawing(16), "JPEG"), encoded(drawing(16), "WEBP"), encoded(drawing(16), "TIFF")
    size_at = jpeg.index(b"\xff\xc0") + 5
    scans = encoded(Image.new("RGB", (4_000, 3_000)), "JPEG", progressive=True)
    last = scans[scans.rindex(b"\xff\xda") : -2]
    megabyte = zlib.compress(b"\0" * 50_000_000, 9)
    return {
        "PNG of 900 megapixels": png_of(30_000, 30_000),
        "PNG of 2 to the 31 columns": png_of(2**31 - 1, 1),
        "JPEG of 4,294 megapixels": jpeg[:size_at] + b"\xff\xff\xff\xff" + jpeg[size_at + 4 :],
        "GIF of 4,294 megapixels": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;",
        "WebP of 268 megapixels": webp[:26] + b"\xff\x3f\xff\x3f" + webp[30:],
        "BMP of 900 megapixels": b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 30_000, 30_000, 1, 24, *[0] * 6),
        "TIFF of 1 megapixel in a tile of 900": _tiled_tiff(30_000),
        "TIFF with a directory that is its own next": tiff[:4] + struct.pack("<I", 4) + tiff[8:],
        "progressive JPEG of 10,000 scans": scans[:-2] + last * 10_000 + scans[-2:],
        "JPEG of 300,000 segments": jpeg[:2] + b"\xff\xe5\0\2" * 300_000 + jpeg[2:],
        "JPEG with 1 MB of junk": jpeg[:2] + b"\xff\xe5\0\2" + b"\0\1\2\3" * 250_000 + jpeg[2:],
        "JPEG with 1 MB of fill": jpeg[:2] + b"\xff" * 1_000_000 + jpeg[2:],
        "PNG of 80,000 chunks": png_of(16, 16, chunk(b"tEXt", b"a\0b") * 80_000),
        "PNG with texts of 50 MB": png_of(16, 16, *[chunk(b"zTXt", b"a\0\0" + megabyte)] * 10),
        "PNG with a profile of 50 MB": png_of(16, 16, chunk(b"iCCP", b"a\0\0" + megabyte)),
        "PNG with 50 MB more pixels than it has": png_of(16, 16, chunk(b"IDAT", megabyte)),
    }


def _tiled_tiff(side: int) -> bytes:
    tags = ((256, 4, 1_000), (257, 4, 1_000), (258, 3, 8), (259, 3, 5), (262, 3, 1), (277, 3, 1), (322, 4, side),
            (323, 4, side), (324, 4, 200), (325, 4, 50))  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + b"\x80\x00\x40" * 17


def outcome(content: bytes) -> tuple[str, float]:
    """Return what became of a picture, "read" or a reason or a foreign exception's name, and the seconds it took."""
    start = time.perf_counter()
    try:
        load_pixels(content, SPEC, limits=EVERY)
        what = "read"
    except BadImage as error:
        what = error.reason
    except Exception as error:
        what = f"foreign: {type(error).__name__}"
    return what, time.perf_counter() - start


@cache
def median_s(side: int) -> float:
    """Return how long a legal picture takes, in seconds: the median of the formats that are read by default."""
    quickly: dict[str, dict[str, int]] = {"png": {"compress_level": 1}, "webp": {"method": 0}}
    contents = [encoded(drawing(side), FORMATS[name].decoder, **quickly.get(name, {})) for name in DEVICE.formats]
    return statistics.median(statistics.median(outcome(content)[1] for _ in range(3)) for content in contents)


def allowed_s(content: bytes) -> float:
    """Return how long a picture may take. Its size is the pixels that it says it has, or its bytes if they are more."""
    format = format_of(content)
    pixels = 0
    if format is not None:
        with warnings.catch_warnings(action="ignore"), suppress(Exception):
            pixels = math.prod(Image.open(io.BytesIO(content), formats=[FORMATS[format].decoder]).size)
    side = next((side for side in _SIDES if side * side * 4 // 3 >= max(pixels, len(content))), _SIDES[-1])
    return SLOWER * median_s(side)


def too_slow(content: bytes, seconds: float) -> bool:
    """Return whether a picture takes too long every time that it is tried."""
    allowed = allowed_s(content)
    return seconds > allowed and min(outcome(content)[1] for _ in range(3)) > allowed


def _bound() -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))


def _report(contents: Iterator[tuple[str, bytes]]) -> dict[str, Any]:
    for content in seeds().values():  # what every decoder takes once is no picture's fault
        outcome(content)
    _bound()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    foreign, long = [], []
    for name, content in contents:
        print(name, file=sys.stderr)  # the last line of a child that died
        what, seconds = outcome(content)
        outcomes[what] += 1
        if what.startswith("foreign"):
            foreign.append(f"{name}: {what}")
        if seconds > SLOWER * median_s(_SIDES[0]):
            long.append((name, content, seconds))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kilobytes
    slow = [f"{name}: {seconds:.3f} s" for name, content, seconds in long if too_slow(content, seconds)]
    return {"outcomes": outcomes, "foreign": foreign, "slow": slow, "added_mb": (after - before) / 1e3}


if __name__ == "__main__":
    if sys.argv[1] == "bombs":
        told = _report(iter(bombs().items()))
    else:
        first, count = int(sys.argv[1]), int(sys.argv[2])
        numbered = ((number, *mutant(number)) for number in range(first, first + count))
        told = _report((f"{number}, {name}", content) for number, name, content in numbered)
    print(json.dumps(told))
