"""What both towers make of several views of each picture, computed once and kept in files that are mapped to memory.

View 0 is the picture itself. Feature maps are kept as float16, of which a training step reads the rows it needs.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pocketlens._types import Float32s, Int64s, Uint8s
from pocketlens.decoders import SERVER
from pocketlens.encoder import ImageEncoder
from pocketlens.errors import FormatError
from pocketlens.model import Model
from pocketlens.picture import decode, preprocess
from pocketlens_export.fit.data import Progress
from pocketlens_export.row_files import RowFiles, Rows
from pocketlens_export.tokens.learner import Scale
from pocketlens_export.views import take_view

_CODE = 1  # to be raised with every change to what the files hold
_PICTURES = 8  # encoded together
_AHEAD = 16  # pictures decoded in advance
_READ_AT_ONCE = 256
_WISH = "fewer views help (--set views=…), or another cache (POCKETLENS_CACHE)"


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """n pictures, v views of each.

    Attributes:
        features: the light tower's feature maps, float16 (n, v, c, h, w), mapped to memory.
        cells: the heavy tower's, averaged over the light map's grid, float16 (n, v, h·w, channels); None: it has none.
        vectors: the heavy tower's embeddings, float32 (n, v, dim).
    """

    features: NDArray[np.float16]
    cells: NDArray[np.float16] | None
    vectors: Float32s

    def scale(self, rows: Int64s) -> Scale:
        """Return mean and deviation of the feature maps' channels over all views of some pictures.

        A channel that never changes has deviation 1.
        """
        channels = self.features.shape[2]
        total, squares, count = np.zeros(channels), np.zeros(channels), 0
        for start in range(0, len(rows), _READ_AT_ONCE):
            some = self.features[rows[start : start + _READ_AT_ONCE]].astype(np.float64)
            total += some.sum(axis=(0, 1, 3, 4))
            squares += (some**2).sum(axis=(0, 1, 3, 4))
            count += some.size // channels
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0)
        still = variance <= 1e-12 * np.maximum(mean**2, 1)  # what float64 cannot tell from 0
        deviation = np.sqrt(np.where(still, 1, variance))
        return Scale(mean.astype(np.float32), deviation.astype(np.float32))

    def cell_mean(self, rows: Int64s) -> Float32s:
        """Return the mean of the heavy tower's cells over all views of some pictures, float32 (channels,)."""
        assert self.cells is not None
        total = np.zeros(self.cells.shape[-1])
        for start in range(0, len(rows), _READ_AT_ONCE):
            total += self.cells[rows[start : start + _READ_AT_ONCE]].astype(np.float64).sum(axis=(0, 1, 2))
        mean: Float32s = (total / (len(rows) * self.cells.shape[1] * self.cells.shape[2])).astype(np.float32)
        return mean


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures to encode: files that can be read, and the sha256 of each."""

    paths: tuple[Path, ...]
    sha256: tuple[str, ...]


def encode_maps(
    light: Model,
    heavy: Model,
    pictures: Pictures,
    *,
    views: int,
    cache: Path,
    progress: Progress,
    threads: int | None = None,
) -> Maps:
    """Return what both towers make of `views` views of every picture, from the cache where it is there.

    A run that is stopped goes on where it was.

    Raises:
        FormatError: a tower gives NaN or infinity, or a map too large for float16, for a picture.
        Refused: the disk has no room for the files.
        BadImage: a picture cannot be read any more.
    """
    towers = ImageEncoder(light, threads=threads), ImageEncoder(heavy, threads=threads)
    files = RowFiles(
        cache / "maps" / _key(light, heavy, pictures, views), _arrays(towers, len(pictures.paths), views), wish=_WISH
    )
    arrays = files.arrays
    try:
        for rows, pixels in _batches(pictures, towers, views, start=files.done):
            names = [pictures.paths[row].name for row in rows]
            files.put(rows, _encode(towers, pixels, names, views, arrays["features"].shape[-2:]))
            progress(f"{light.manifest.name} and {heavy.manifest.name}: encoding views", rows.stop, len(pictures.paths))
    finally:
        files.save()
    return Maps(arrays["features"], arrays.get("cells"), np.array(arrays["vectors"]))


def average_over(features: Float32s, height: int, width: int) -> Float32s:
    """Return feature maps (n, c, H, W) averaged over a grid of height x width cells, float32 (n, height·width, c).

    A cell's bounds are those of adaptive average pooling: from floor(i·H / height) to ceil((i + 1)·H / height).
    """
    rows = [_bounds(i, features.shape[2], height) for i in range(height)]
    columns = [_bounds(j, features.shape[3], width) for j in range(width)]
    cells = [
        features[:, :, top:bottom, left:right].mean(axis=(2, 3)) for top, bottom in rows for left, right in columns
    ]
    return np.stack(cells, axis=1)


def _bounds(number: int, size: int, parts: int) -> tuple[int, int]:
    return number * size // parts, -(-(number + 1) * size // parts)


def _arrays(towers: tuple[ImageEncoder, ImageEncoder], count: int, views: int) -> dict[str, Rows]:
    light, heavy = (tower.spec.features for tower in towers)
    assert light is not None
    arrays = {
        "features": Rows((count, views, light.channels, light.height, light.width), np.float16),
        "vectors": Rows((count, views, towers[1].dim), np.float32),
    }
    if heavy is not None:
        arrays["cells"] = Rows((count, views, light.height * light.width, heavy.channels), np.float16)
    return arrays


_Pixels = tuple[Uint8s, Uint8s]  # of the light and the heavy tower, (k · views, side, side, 3)


def _batches(
    pictures: Pictures, towers: tuple[ImageEncoder, ImageEncoder], views: int, *, start: int
) -> Iterator[tuple[range, _Pixels]]:
    """Yield rows and their views' pixels, decoded by two threads ahead of the towers."""

    def load(row: int) -> _Pixels:
        picture = decode(pictures.paths[row], limits=SERVER)
        sha256 = pictures.sha256[row]
        seen = [picture, *(take_view(picture, sha256, seed=view) for view in range(1, views))]
        light, heavy = (np.stack([preprocess(view, tower.spec) for view in seen]) for tower in towers)
        return light, heavy

    rows = range(start, len(pictures.paths))
    with ThreadPoolExecutor(max_workers=2) as pool:
        loaded = _ahead(pool, load, rows)
        for first in range(start, len(pictures.paths), _PICTURES):
            some = range(first, min(first + _PICTURES, len(pictures.paths)))
            found = [next(loaded) for _ in some]
            yield some, (np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found]))


def _ahead(pool: ThreadPoolExecutor, load: Callable[[int], _Pixels], rows: Sequence[int]) -> Iterator[_Pixels]:
    waiting: deque[Future[_Pixels]] = deque(pool.submit(load, row) for row in rows[:_AHEAD])
    for position in range(len(rows)):
        yield waiting.popleft().result()
        if position + _AHEAD < len(rows):
            waiting.append(pool.submit(load, rows[position + _AHEAD]))


def _encode(
    towers: tuple[ImageEncoder, ImageEncoder], pixels: _Pixels, names: Sequence[str], views: int, grid: Sequence[int]
) -> dict[str, NDArray[Any]]:
    light, heavy = towers
    found: dict[str, Float32s] = {"features": light.encode_features(pixels[0])[1]}
    if heavy.spec.features is None:
        found["vectors"] = heavy.encode_pixels(pixels[1])
    else:
        found["vectors"], features = heavy.encode_features(pixels[1])
        found["cells"] = average_over(features, grid[0], grid[1])
    return {name: _halved(name, values, names, views) for name, values in found.items()}


def _halved(name: str, values: Float32s, names: Sequence[str], views: int) -> NDArray[Any]:
    """Return an array (k · views, ...) as (k, views, ...), in float16 unless of vectors; `names` are pictures'."""
    with np.errstate(over="ignore"):  # found as infinity below
        kept = values.astype(np.float32 if name == "vectors" else np.float16)
    kept = kept.reshape(len(names), views, *values.shape[1:])
    good = np.isfinite(kept).all(axis=tuple(range(1, kept.ndim)))
    if not good.all():
        raise FormatError(
            f"{names[int(np.argmin(good))]}: a tower gives {name} that are NaN or beyond float16; expected numbers"
        )
    return kept


def _key(light: Model, heavy: Model, pictures: Pictures, views: int) -> str:
    described = [_CODE, ort.__version__, views, *(_tower(model) for model in (light, heavy)), pictures.sha256]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]


def _tower(model: Model) -> list[object]:
    spec = model.manifest.image
    assert spec is not None
    return [model.manifest.files[spec.file].sha256, spec.side, spec.mode, spec.interpolation]
