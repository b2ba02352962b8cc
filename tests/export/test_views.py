from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketlens.encoder import ImageEncoder
from pocketlens.model import Model
from pocketlens_export.embeddings import encode_pictures
from pocketlens_export.views import encode_views, take_view

SIDES = st.integers(1, 90)


def ignore(stage: str, done: int, total: int) -> None:
    pass


def coordinates(width: int, height: int) -> Image.Image:
    """Return a picture whose red is the column and whose green is the row."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8))


@given(SIDES, SIDES, st.integers(0, 1_000))
def test_a_view_is_a_part_perhaps_mirrored(width: int, height: int, seed: int) -> None:
    sha256 = hashlib.sha256(b"picture").hexdigest()
    view = np.asarray(take_view(coordinates(width, height), sha256, seed=seed)).astype(int)
    rows, columns = view[:, 0, 1], view[0, :, 0]
    assert (np.diff(rows) == 1).all()
    assert (np.diff(columns) == 1).all() or (np.diff(columns) == -1).all()
    np.testing.assert_array_equal(view[..., 0], np.broadcast_to(columns, view.shape[:2]))
    if min(width, height) > 20:
        assert 0.45 < view.shape[0] * view.shape[1] / (width * height) < 0.95


def test_views_differ_by_seed_and_picture_and_are_the_same_again() -> None:
    image = coordinates(80, 60)
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(30)]
    views = [np.asarray(take_view(image, digest, seed=seed)) for digest in digests for seed in (0, 1)]
    again = [np.asarray(take_view(image, digest, seed=seed)) for digest in digests for seed in (0, 1)]
    assert len({view.tobytes() for view in views}) > 55
    assert all(np.array_equal(a, b) for a, b in zip(views, again, strict=True))
    mirrored = [bool((np.diff(view[0, :, 0].astype(int)) == -1).all()) for view in views]
    assert 15 < sum(mirrored) < 45


def test_vectors_of_views_are_kept(colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    model, cache = Model.open(colours), tmp_path / "cache"
    found = encode_pictures(model, folder, cache=cache, progress=ignore)
    stages: list[tuple[str, int, int]] = []

    def hear(stage: str, done: int, total: int) -> None:
        stages.append((stage, done, total))

    views = encode_views(model, found.paths, found.sha256, seed=3, cache=cache, progress=hear)
    assert stages == [("colours: encoding views", 5, 5)]
    images = [
        take_view(Image.open(path), digest, seed=3) for path, digest in zip(found.paths, found.sha256, strict=True)
    ]
    np.testing.assert_array_equal(views, ImageEncoder(model).encode(images))
    assert not np.allclose(views, found.vectors, atol=1e-3)
    again = encode_views(model, found.paths, found.sha256, seed=3, cache=cache, progress=hear)
    np.testing.assert_array_equal(again, views)
    assert len(stages) == 1
    encode_views(model, found.paths, found.sha256, seed=4, cache=cache, progress=hear)
    assert len(stages) == 2
