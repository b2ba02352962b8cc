from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketlens._types import Uint8s
from pocketlens.errors import BadImage
from pocketlens_export.distill.drawing import Look, draw_view, read_sheet

PLAIN = Look(crop=0.35, flip=False, jitter=0.0, background=0.0)


def encoded(pixels: Uint8s, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def map_of(width: int, height: int) -> Uint8s:
    """Return a picture whose every pixel tells its place: red the column, green the row."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)


def no_other(number: int) -> Image.Image:
    raise AssertionError("no other picture was to be asked for")


def view_of(content: bytes, look: Look, seed: int, *, least: int = 512) -> Uint8s:
    rng = np.random.default_rng(seed)
    return np.asarray(draw_view(read_sheet(content), look, rng, other=no_other, least=least))


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.05, 1), st.integers(0, 2**31))
def test_a_view_is_a_part_of_the_picture(width: int, height: int, crop: float, seed: int) -> None:
    found = view_of(encoded(map_of(width, height)), replace(PLAIN, crop=crop), seed)
    tall, wide = found.shape[:2]
    left, top = int(found[0, 0, 0]), int(found[0, 0, 1])
    np.testing.assert_array_equal(found, map_of(width, height)[top : top + tall, left : left + wide])
    # each side may be rounded, and is at most the picture's: a stretch beyond it costs area
    assert (wide + 0.5) * (tall + 0.5) >= 0.75 * crop * width * height


def test_views_depend_on_the_seed_alone() -> None:
    content = encoded(map_of(50, 40))
    look = Look(crop=0.3, flip=True, jitter=0.3, background=0.5)
    np.testing.assert_array_equal(view_of(content, look, 1), view_of(content, look, 1))
    assert len({view_of(content, look, seed).tobytes() for seed in range(20)}) == 20


def test_half_of_the_views_are_mirrored_where_asked_for() -> None:
    content = encoded(map_of(50, 40))
    mirrored = 0
    for seed in range(200):
        plain, found = view_of(content, PLAIN, seed), view_of(content, replace(PLAIN, flip=True), seed)
        if not np.array_equal(plain, found):
            np.testing.assert_array_equal(plain[:, ::-1], found)
            mirrored += 1
    assert 70 < mirrored < 130


def test_jitter_changes_brightness_within_its_bounds() -> None:
    grey = encoded(np.full((20, 20, 3), 100, dtype=np.uint8))  # of which contrast and saturation change nothing
    levels = [int(view_of(grey, replace(PLAIN, jitter=0.25), seed)[0, 0, 0]) for seed in range(200)]
    assert 75 <= min(levels) < 82 and 118 < max(levels) <= 125


def test_transparent_pictures_get_another_background() -> None:
    look = replace(PLAIN, background=1.0)

    def colour(alpha: int, seed: int) -> tuple[int, ...]:
        """Return the colour of a view of a picture of one colour."""
        sheet = read_sheet(encoded(np.full((16, 16, 4), (200, 40, 10, alpha), dtype=np.uint8)))
        lime = Image.new("RGB", (4, 4), "lime")
        view = draw_view(sheet, look, np.random.default_rng(seed), other=lambda _: lime, least=99)
        ((_, found),) = view.getcolors() or []
        assert isinstance(found, tuple)
        return tuple(int(level) for level in found)

    behind = [colour(0, seed) for seed in range(40)]
    assert 10 < behind.count((0, 255, 0)) < 30  # another picture; else a colour of its own
    assert len(set(behind)) > 10
    for seed in range(10):
        for alpha in (1, 100, 254):
            before = Image.new("RGBA", (1, 1), behind[seed])
            before.alpha_composite(Image.new("RGBA", (1, 1), (200, 40, 10, alpha)))
            expected = before.getpixel((0, 0))
            assert isinstance(expected, tuple)
            # white was rounded on the way
            assert max(abs(a - b) for a, b in zip(colour(alpha, seed), expected[:3], strict=True)) <= 2


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_only_a_share_of_views_gets_another_background(share: float) -> None:
    clear = encoded(np.zeros((8, 8, 4), dtype=np.uint8))
    look = replace(PLAIN, background=share)
    rng = np.random.default_rng(0)
    views = [
        draw_view(read_sheet(clear), look, rng, other=lambda _: Image.new("RGB", (4, 4)), least=99) for _ in range(300)
    ]
    changed = sum(view.getpixel((0, 0)) != (255, 255, 255) for view in views)
    assert abs(changed / 300 - share) < 0.1 and (share or changed == 0)


def test_opaque_pictures_have_no_background() -> None:
    opaque = np.full((8, 8, 4), 255, dtype=np.uint8)
    assert read_sheet(encoded(opaque)).opacity is None
    assert read_sheet(encoded(opaque[..., :3])).opacity is None
    assert read_sheet(encoded(opaque[..., :3], "JPEG")).opacity is None
    opaque[0, 0, 3] = 254
    assert read_sheet(encoded(opaque)).opacity is not None


def test_palettes_tell_their_transparency() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((2, 1), 0)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0)
    opacity = read_sheet(buffer.getvalue()).opacity
    assert opacity is not None
    assert opacity.getpixel((2, 1)) == 0 and opacity.getpixel((0, 0)) == 255


def test_crops_much_larger_than_needed_are_reduced() -> None:
    for seed in range(10):
        whole, reduced = (view_of(encoded(map_of(200, 150)), PLAIN, seed, least=least) for least in (512, 16))
        factor = min(whole.shape[:2]) // 32
        assert min(reduced.shape[:2]) >= 32 and min(reduced.shape[:2]) == -(-min(whole.shape[:2]) // factor)
        np.testing.assert_allclose(reduced.mean(axis=(0, 1)), whole.mean(axis=(0, 1)), atol=2)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(BadImage):
        read_sheet(b"\x89PNG no more")
