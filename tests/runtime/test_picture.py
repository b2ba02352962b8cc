from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import pytest
from PIL import ExifTags, Image
from torchvision.transforms.functional import center_crop

from pocketlens import picture as picture_module
from pocketlens._types import Uint8s
from pocketlens.decoders import DEVICE, with_formats
from pocketlens.errors import BadImage, BadQuery
from pocketlens.model import PictureSpec

SIDE = 64
SPEC = PictureSpec(
    "image.onnx", "float32", opset=18, side=SIDE, mode="shortest", interpolation="bicubic", features=None
)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
EVERY = with_formats(DEVICE, [name.lower() for name in FORMATS])
SIZES = {
    "portrait": (90, 151),
    "landscape": (333, 200),
    "square": (100, 100),
    "small": (13, 9),
    "exact": (64, 64),
    "1-pixel-wide": (1, 300),
    "1-pixel-high": (300, 1),
    "pixel": (1, 1),
    "odd": (67, 64),
    "panorama": (2111, 97),
}


def decode(picture: Any) -> Image.Image:
    return picture_module.decode(picture, limits=EVERY)


def load_pixels(picture: Any, spec: PictureSpec) -> Uint8s:
    return picture_module.load_pixels(picture, spec, limits=EVERY)


@cache
def photo(width: int, height: int) -> Image.Image:
    """A picture with slopes, edges and some noise, RGB."""
    rng = np.random.default_rng(width * 10_007 + height)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(x / a + y / b) for a, b in ((17, 9), (5, 31), (60, 44))]
    pixels = np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 10, 30)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def reference(image: Image.Image, spec: PictureSpec) -> np.ndarray:
    """Return what open_clip's own transform makes of an RGB picture, before normalisation, as uint8."""
    transform = open_clip.transform.image_transform(
        spec.side,
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize_mode=spec.mode,
        interpolation=spec.interpolation,
    )
    tensor = transform(image)  # (3, side, side), 0 to 1
    return np.asarray(np.rint(tensor.numpy().transpose(1, 2, 0) * 255), dtype=np.uint8)


def whole_in_two_orders(image: Image.Image, spec: PictureSpec) -> list[np.ndarray]:
    """Resize all of the picture along one axis, then along the other, and crop with torchvision."""
    width, height = spec.side, spec.side
    if spec.mode == "shortest":
        short = min(image.size)
        width, height = (spec.side if n == short else int(spec.side * n / short) for n in image.size)
    resample = Image.Resampling[spec.interpolation.upper()]
    results = []
    for steps in ([(width, image.height), (width, height)], [(image.width, height), (width, height)]):
        resized = image
        for step in steps:
            resized = resized.resize(step, resample)
        results.append(np.asarray(center_crop(resized, [spec.side, spec.side])))
    return results


def differences(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    return np.asarray(np.abs(found.astype(int) - expected))


def on_white(image: Image.Image) -> Image.Image:
    """Composite by numpy, in floating point."""
    rgba = np.asarray(image.convert("RGBA")).astype(np.float64)
    alpha = rgba[..., 3:] / 255
    return Image.fromarray(np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [SIDE, 51])
def test_pixels_equal_those_of_open_clip(
    name: str, mode: Literal["shortest", "squash"], interpolation: Literal["bilinear", "bicubic"], side: int
) -> None:
    image = photo(*SIZES[name])
    spec = replace(SPEC, mode=mode, interpolation=interpolation, side=side)
    found = load_pixels(image, spec)
    difference = differences(found, reference(image, spec))
    assert difference.max() <= 2
    assert difference.mean() < 0.3
    # All but a few equal the whole picture's in one of the orders of the two passes; Pillow picks it by the sizes.
    assert max((differences(found, whole) == 0).mean() for whole in whole_in_two_orders(image, spec)) > 0.997


def _with_alpha(mode: str) -> Image.Image:
    image = photo(90, 70).convert(mode)
    image.putalpha(Image.fromarray(np.linspace(0, 255, 90 * 70).reshape(70, 90).astype(np.uint8)))
    return image


def _palette_with_transparency() -> bytes:
    return encoded(photo(90, 70).quantize(16), transparency=bytes([0, 128, 255, 30]))


MODES: dict[str, Callable[[], tuple[bytes, Image.Image]]] = {
    "grey": lambda: (encoded(photo(90, 70).convert("L")), photo(90, 70).convert("L").convert("RGB")),
    "grey JPEG": lambda: (
        encoded(photo(90, 70).convert("L"), "JPEG"),
        Image.open(io.BytesIO(encoded(photo(90, 70).convert("L"), "JPEG"))).convert("RGB"),
    ),
    "CMYK JPEG": lambda: (
        encoded(photo(90, 70).convert("CMYK"), "JPEG"),
        Image.open(io.BytesIO(encoded(photo(90, 70).convert("CMYK"), "JPEG"))).convert("RGB"),
    ),
    "1-bit": lambda: (encoded(photo(90, 70).convert("1")), photo(90, 70).convert("1").convert("RGB")),
    "palette": lambda: (encoded(photo(90, 70).quantize(16)), photo(90, 70).quantize(16).convert("RGB")),
    "RGBA": lambda: (encoded(_with_alpha("RGBA")), on_white(_with_alpha("RGBA"))),
    "LA": lambda: (encoded(_with_alpha("LA")), on_white(_with_alpha("LA"))),
    "palette with alphas": lambda: (
        _palette_with_transparency(),
        on_white(Image.open(io.BytesIO(_palette_with_transparency())).convert("RGBA")),
    ),
    "lossless WebP with alpha": lambda: (
        encoded(_with_alpha("RGBA"), "WEBP", lossless=True, exact=True),
        on_white(_with_alpha("RGBA")),
    ),
    "BMP": lambda: (encoded(photo(90, 70), "BMP"), photo(90, 70)),
    "TIFF": lambda: (encoded(photo(90, 70), "TIFF", compression="tiff_lzw"), photo(90, 70)),
    "CMYK TIFF": lambda: (
        encoded(photo(90, 70).convert("CMYK"), "TIFF"),
        photo(90, 70).convert("CMYK").convert("RGB"),
    ),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_rgb_on_white(name: str) -> None:
    content, rgb = MODES[name]()
    assert differences(np.asarray(decode(content)), np.asarray(rgb)).max() <= 1
    assert differences(load_pixels(content, SPEC), reference(rgb, SPEC)).max() <= 2  # compositing rounds once more


@pytest.mark.parametrize(("mode", "transparent"), [("RGB", (250, 10, 30)), ("L", 40), ("P", 1)])
def test_a_transparent_colour_is_white(mode: str, transparent: int | tuple[int, int, int]) -> None:
    image = Image.new(mode, (8, 8), 0)
    image.paste(transparent, (0, 0, 4, 8))
    if mode == "P":
        image.putpalette([10, 20, 30, 40, 50, 60])
    found = np.asarray(decode(encoded(image, transparency=transparent)))
    assert (found[:, :4] == 255).all()
    expected = [10, 20, 30] if mode == "P" else [0, 0, 0]
    assert (found[:, 4:] == expected).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_deep_grey_is_scaled_not_clipped(format: str) -> None:
    values = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16)
    found = np.asarray(decode(encoded(Image.fromarray(values), format)))
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(found, np.repeat(expected[..., np.newaxis], 3, axis=-1))


def test_big_endian_and_32_bit_grey_are_scaled_alike() -> None:
    values = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    wide = Image.fromarray(values.astype(np.int32))
    big_endian = Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes())
    for image in (wide, big_endian):
        np.testing.assert_array_equal(np.asarray(decode(image))[..., 1], expected)


@pytest.mark.parametrize("value", [-1, 65_536, 0.5])
def test_grey_without_a_defined_white_is_refused(value: float) -> None:
    mode, reason = ("F", "no defined white") if isinstance(value, float) else ("I", f"grey from {value} to {value}")
    with pytest.raises(BadImage, match=reason):
        decode(Image.new(mode, (4, 4), value))


def test_the_clear_value_of_a_deep_grey_png_is_white() -> None:
    values = np.full((4, 4), 1_000, dtype=np.uint16)
    values[0] = 7
    found = np.asarray(decode(encoded(Image.fromarray(values), transparency=7)))
    assert (found[0] == 255).all()
    assert (found[1:] == round(1_000 / 257)).all()


UPRIGHT_TO_STORED = {  # what a camera does to the upright picture, by numpy: the inverse of the EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", UPRIGHT_TO_STORED)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_gives_the_upright_picture(orientation: int, format: str) -> None:
    upright = photo(90, 151)
    stored = Image.fromarray(np.ascontiguousarray(UPRIGHT_TO_STORED[orientation](np.asarray(upright))))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(stored, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    np.testing.assert_array_equal(load_pixels(content, SPEC), load_pixels(upright, SPEC))
    np.testing.assert_array_equal(load_pixels(Image.open(io.BytesIO(content)), SPEC), load_pixels(upright, SPEC))
    assert decode(content).size == (90, 151)


@pytest.mark.parametrize("orientation", [6, 8, 3])
def test_a_large_turned_jpeg_is_upright_too(orientation: int) -> None:
    upright = photo(1000, 1600)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(np.ascontiguousarray(UPRIGHT_TO_STORED[orientation](np.asarray(upright))))
    content = encoded(stored, "JPEG", quality=95, exif=exif)
    difference = differences(load_pixels(content, SPEC), load_pixels(upright, SPEC))
    assert difference.mean() < 3
    assert decode(content).size == (1000, 1600)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("seed", range(20))
def test_corrupt_exif_does_not_cost_the_picture(seed: int, format: str) -> None:
    rng = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.XResolution] = 72.0
    exif[ExifTags.Base.Model] = "camera"
    damaged = bytearray(exif.tobytes())
    for place in rng.integers(6, len(damaged), size=6):
        damaged[place] = rng.integers(256)
    damaged[6 + seed % 4] ^= seed % 5  # often the header itself, which Pillow answers with a SyntaxError
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(photo(90, 70), format, exif=bytes(damaged[: rng.integers(8, len(damaged) + 1)]), **options)
    plain = load_pixels(encoded(photo(90, 70), format, **options), SPEC)
    turned = [np.rot90(plain, k) for k in range(4)] + [np.rot90(plain[:, ::-1], k) for k in range(4)]
    found = load_pixels(content, SPEC)
    assert any(differences(found, candidate).max() <= 1 for candidate in turned)
    assert sorted(decode(content).size) == [70, 90]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_counts(format: str) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("#c00000", "#00c000", "#0000c0")]
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert np.unique(np.asarray(decode(content)).reshape(-1, 3), axis=0).tolist() == [[0xC0, 0, 0]]


def test_a_photo_with_a_preview_inside_is_read_as_the_photo() -> None:
    content = encoded(photo(1000, 1600), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))], quality=95)
    assert decode(content).size == (1000, 1600)
    plain = encoded(photo(1000, 1600), "JPEG", quality=95)
    assert differences(load_pixels(content, SPEC), load_pixels(plain, SPEC)).max() <= 1


def test_bytes_path_and_pil_give_the_same_pixels(tmp_path: Path) -> None:
    content = encoded(photo(90, 151), "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    expected = load_pixels(content, SPEC)
    with Image.open(path) as image:
        for picture in (path, str(path), image, image.copy()):
            np.testing.assert_array_equal(load_pixels(picture, SPEC), expected)


def test_a_pil_image_stays_as_it_was() -> None:
    for image in (photo(90, 70).copy(), _with_alpha("RGBA"), photo(90, 70).convert("L")):
        before = image.tobytes()
        load_pixels(image, SPEC)
        assert (image.tobytes(), image.size) == (before, (90, 70))


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_long_strip_does_not_become_gigabytes(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "#204060")
    image.paste("#ff0000", (size[0] // 2, size[1] // 2, size[0] // 2 + 1, size[1] // 2 + 1))
    content = encoded(image)
    tracemalloc.start()
    pixels = load_pixels(content, replace(SPEC, side=224))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.shape == (224, 224, 3)
    assert (pixels[..., 0] > 0x20).mean() > 0.3  # the one red pixel in the middle fills much of the crop
    assert peak < 10e6


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_no_image_is_ever_made_larger_than_the_picture_or_the_input(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    resize = Image.Image.resize

    def record(self: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        out = resize(self, *arguments, **options)
        sizes.append(out.width * out.height)
        return out

    monkeypatch.setattr(Image.Image, "resize", record)
    load_pixels(Image.new("RGB", size), SPEC)
    assert sizes == [SIDE * SIDE]


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (10_001, 10_000), (1, 2**31 - 1), (60_000, 60_000)])
def test_a_bomb_is_refused_without_allocating(width: int, height: int) -> None:
    content = _png_header(width, height)
    tracemalloc.start()
    with pytest.raises(BadImage, match=r"pixels"):
        decode(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_a_pil_image_has_the_same_bounds() -> None:
    with pytest.warns(Image.DecompressionBombWarning):
        image = Image.open(io.BytesIO(_png_header(10_001, 10_000)))
    with image, pytest.raises(BadImage, match="10001x10000 pixels, expected 1 to 50000000 of a picture"):
        decode(image)
    for size in ((0, 5), (5, 0)):
        with pytest.raises(BadImage, match=f"{size[0]}x{size[1]} pixels"):
            decode(Image.new("RGB", size))


def test_a_jpeg_cut_anywhere_is_refused() -> None:
    for options in ({}, {"progressive": True}):
        content = encoded(photo(90, 70), "JPEG", **options)
        for length in range(0, len(content), 7):
            with pytest.raises(BadImage):
                decode(content[:length])


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "JPEG"])
def test_other_formats_cut_anywhere_are_refused(format: str) -> None:
    content = encoded(photo(90, 70), format)
    for length in range(0, len(content) - 100, 211):
        with pytest.raises(BadImage):
            decode(content[:length])


@pytest.mark.parametrize("format", FORMATS)
def test_flipped_bytes_give_a_picture_or_a_bad_image_and_nothing_else(format: str, rng: np.random.Generator) -> None:
    content = encoded(photo(60, 40), format)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), size=3):
            damaged[place] = rng.integers(256)
        try:
            assert decode(bytes(damaged)).mode == "RGB"
        except BadImage as error:
            assert "\n" not in error.detail


HOSTILE = {
    "text": b"hello, this is no picture",
    "random": np.random.default_rng(0).bytes(4_000),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "PDF": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
    "PSD": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 9, 9, 8, 3) + b"\0" * 400,
    "ICO": encoded(Image.new("RGB", (16, 16)), "ICO"),
    "PPM": encoded(Image.new("RGB", (16, 16)), "PPM"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_of_a_known_format_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "me.jpg"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(BadImage) as caught:
        picture_module.decode(path)
    assert str(caught.value) == f"{path}: cannot be read as a picture: not one of JPEG, PNG, WEBP"
    with pytest.raises(BadImage) as caught:
        picture_module.decode(HOSTILE[name])
    assert str(caught.value).startswith(f"<{len(HOSTILE[name])} bytes>: cannot be read")
    assert (caught.value.reason, caught.value.detail) == ("format", "not one of JPEG, PNG, WEBP")


@pytest.mark.parametrize(("name", "reason"), [("missing.jpg", "No such file"), ("", "no regular file"), ("\0", "null")])
def test_a_path_that_holds_no_file_is_a_bad_image(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as caught:
        decode(tmp_path / name)
    assert caught.value.reason == "unreadable"
    assert str(tmp_path) not in caught.value.detail


def test_a_closed_pil_image_is_a_bad_image(tmp_path: Path) -> None:
    photo(9, 9).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pass
    with pytest.raises(BadImage, match="<PIL image>"):
        decode(image)


@pytest.mark.parametrize("picture", [None, 3, ["a.jpg"], np.zeros((4, 4, 3), dtype=np.uint8), bytearray(b"x")])
def test_another_type_is_a_bad_query(picture: Any) -> None:
    with pytest.raises(BadQuery, match=f"must be bytes, a path or a PIL image, found {type(picture).__name__}"):
        decode(picture)


def test_decoding_in_threads_leaves_the_warning_filters_alone() -> None:
    exif = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    contents = [encoded(photo(40 + i, 30), "JPEG", exif=exif) for i in range(8)] * 20
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: decode(content), contents))
    assert warnings.filters == before


def test_the_last_decode_to_end_restores_the_filters() -> None:
    before = list(warnings.filters)
    first, second = ExitStack(), ExitStack()
    first.enter_context(picture_module._no_warnings)
    second.enter_context(picture_module._no_warnings)
    first.close()
    warnings.warn("unheard while one decode is under way", stacklevel=1)
    second.close()
    assert warnings.filters == before
