from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pocketlens.encoder import ImageEncoder
from pocketlens.errors import BadImage, FormatError, Refused
from pocketlens.model import Model
from pocketlens.picture import decode, preprocess
from pocketlens_export.tokens.maps import Maps, Pictures, average_over, encode_maps
from pocketlens_export.views import take_view
from tests.export.tokens.models import CHANNELS, GRID, write_towers
from tests.quantize import towers

Encode = Callable[..., Maps]


class Stopped(Exception):
    pass


class Told:
    """Counts what is told, and stops a run when asked to."""

    def __init__(self, *, stop_at: int = -1) -> None:
        self.done: list[int] = []
        self._stop_at = stop_at

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.done.append(done)
        if done == self._stop_at:
            raise Stopped


@pytest.fixture(scope="module")
def listed(some_pictures: Path) -> Pictures:
    paths = tuple(sorted(some_pictures.iterdir())[:20])
    return Pictures(paths, tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths))


@pytest.fixture
def encode(light: Model, heavy: Model, listed: Pictures, tmp_path: Path) -> Encode:
    def _encode(told: Told | None = None, **changes: Any) -> Maps:
        given = {"light": light, "heavy": heavy, "pictures": listed, **changes}
        return encode_maps(
            given["light"], given["heavy"], given["pictures"], views=3, cache=tmp_path, progress=told or Told(),
            threads=1,
        )  # fmt: skip

    return _encode


@pytest.mark.parametrize("size", [(4, 4), (7, 7), (3, 5), (2, 1), (1, 1)])
def test_cells_are_those_of_adaptive_average_pooling(rng: np.random.Generator, size: tuple[int, int]) -> None:
    features = rng.standard_normal((2, 3, *size)).astype(np.float32)
    for grid in ((4, 4), (2, 3), (1, 1)):
        pooled = functional.adaptive_avg_pool2d(torch.from_numpy(features), grid).numpy()  # (n, c, h, w)
        np.testing.assert_allclose(
            average_over(features, *grid), pooled.reshape(2, 3, -1).transpose(0, 2, 1), atol=1e-6
        )


def test_maps_of_views_are_what_the_towers_make_of_them(
    encode: Encode, light: Model, heavy: Model, listed: Pictures
) -> None:
    found = encode()
    assert found.cells is not None
    kinds = [str(array.dtype) for array in (found.features, found.cells, found.vectors)]
    assert kinds == ["float16", "float16", "float32"]
    assert found.features.shape == (20, 3, CHANNELS, GRID, GRID) and found.cells.shape == (20, 3, GRID * GRID, CHANNELS)
    for row in (0, 7, 19):
        picture = decode(listed.paths[row])
        for view in range(3):
            seen = take_view(picture, listed.sha256[row], seed=view) if view else picture
            encoders = [ImageEncoder(model, threads=1) for model in (light, heavy)]
            (_, mine), (vector, theirs) = (
                each.encode_features(preprocess(seen, each.spec)[np.newaxis]) for each in encoders
            )
            np.testing.assert_allclose(found.features[row, view], mine[0], atol=2e-3 * np.abs(mine).max())
            cells = theirs[0].reshape(CHANNELS, -1).T  # the grids are the same
            np.testing.assert_allclose(found.cells[row, view], cells, atol=2e-3 * np.abs(theirs).max())
            np.testing.assert_allclose(found.vectors[row, view], vector[0], atol=1e-5)


def test_a_heavy_tower_without_features_gives_no_cells(encode: Encode, blind: Model) -> None:
    found = encode(heavy=blind)
    assert found.cells is None and np.array_equal(found.vectors, encode().vectors)


def test_maps_are_kept_until_a_tower_or_a_picture_changes(encode: Encode, listed: Pictures, tmp_path: Path) -> None:
    first, again = Told(), Told()
    kept = encode(first)
    assert first.done == [8, 16, 20]
    assert np.array_equal(encode(again).features, kept.features) and again.done == []
    other = Model.open(write_towers(tmp_path / "other", seed=3))
    for changes in ({"light": other}, {"heavy": other}):
        told = Told()
        encode(told, **changes)
        assert told.done == [8, 16, 20]
    told = Told()
    encode(told, pictures=Pictures(listed.paths[1:], listed.sha256[1:]))
    assert told.done == [8, 16, 19]


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(encode: Encode, tmp_path: Path) -> None:
    whole = encode()
    shutil.rmtree(tmp_path / "maps")
    with pytest.raises(Stopped):
        encode(Told(stop_at=8))
    told = Told()
    resumed = encode(told)
    assert told.done == [16, 20]
    pairs: list[tuple[NDArray[Any] | None, NDArray[Any] | None]] = [
        (whole.features, resumed.features), (whole.cells, resumed.cells), (whole.vectors, resumed.vectors)
    ]  # fmt: skip
    assert all(a is not None and b is not None and a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.parametrize("spoil", ["done.json", "features.npy", "vectors.npy"])
def test_spoilt_files_are_made_again(encode: Encode, tmp_path: Path, spoil: str) -> None:
    whole = np.array(encode().features)
    (file,) = (tmp_path / "maps").rglob(spoil)
    file.write_bytes(file.read_bytes()[:-3] if spoil != "done.json" else b'{"rows": 90}')
    assert np.array_equal(encode().features, whole)


def test_scale_and_mean_over_the_given_pictures_alone(encode: Encode) -> None:
    found, rows = encode(), np.array([1, 5, 6, 12])
    assert found.cells is not None
    values = found.features[rows].astype(np.float64).transpose(2, 0, 1, 3, 4).reshape(CHANNELS, -1)
    scale = found.scale(rows)
    np.testing.assert_allclose(scale.mean, values.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(scale.deviation, values.std(axis=1), rtol=1e-4)
    cells = found.cells[rows].astype(np.float64)
    np.testing.assert_allclose(found.cell_mean(rows), cells.reshape(-1, CHANNELS).mean(axis=0), atol=1e-6)


def test_a_channel_that_never_changes_is_left_as_large_as_it_is() -> None:
    features = np.random.default_rng(0).standard_normal((5, 1, 3, 2, 2)).astype(np.float16)
    features[:, :, 1] = 100.3
    scale = Maps(features, None, np.zeros((5, 1, 2), np.float32)).scale(np.arange(5))
    assert scale.deviation[1] == 1 and scale.mean[1] == pytest.approx(100.3, rel=1e-3)
    assert scale.deviation[0] == pytest.approx(float(features[:, :, 0].astype(np.float64).std()), rel=1e-5)


def test_values_beyond_float16_are_told_with_the_picture(
    encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = towers.image_tower(seed=1)
    for tensor in graph.graph.initializer:
        if tensor.name == "end.bias":
            values = np.frombuffer(tensor.raw_data, np.float32).copy()
            values[0] = 1e6
            tensor.raw_data = values.tobytes()
    monkeypatch.setattr(towers, "image_tower", lambda **given: graph)
    large = Model.open(write_towers(tmp_path / "large", seed=1))
    with pytest.raises(FormatError, match=r"000\.png: a tower gives features that are NaN or beyond float16"):
        encode(light=large)


def test_a_full_disk_is_told_before_anything_is_encoded(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    told = Told()
    with pytest.raises(Refused, match=r"the arrays take 0\.0 GB, and .* has 0\.0 GB free; fewer views"):
        encode(told)
    assert told.done == []


def test_a_picture_that_has_gone_is_named(encode: Encode, listed: Pictures, tmp_path: Path) -> None:
    gone = Pictures((*listed.paths[:2], tmp_path / "gone.png"), listed.sha256[:3])
    with pytest.raises(BadImage, match=r"gone\.png"):
        encode(pictures=gone)
