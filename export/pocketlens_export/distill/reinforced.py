"""A reinforced data set: views of pictures as the light tower takes them, with what the heavy tower makes of each.

The heavy tower sees every view once, before the training, instead of once an epoch (MobileCLIP, arXiv 2311.17049, §3).
View 0 of a picture is the picture itself.
"""

from __future__ import annotations

import dataclasses
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
import PIL
from numpy.typing import NDArray
from PIL import Image

from pocketlens._types import Float32s, Int64s, Uint8s
from pocketlens.decoders import SERVER
from pocketlens.encoder import ImageEncoder
from pocketlens.errors import FormatError
from pocketlens.model import Model, PictureSpec
from pocketlens.picture import decode, preprocess, read_picture
from pocketlens_export.distill.drawing import CODE, Look, draw_view, read_sheet
from pocketlens_export.embeddings import Embeddings, Progress
from pocketlens_export.row_files import RowFiles, Rows

_PICTURES = 8  # encoded together
_AHEAD = 16  # pictures decoded in advance


@dataclass(frozen=True, slots=True, eq=False)
class ReinforcedSet:
    """n pictures, v views of each.

    Attributes:
        pixels: uint8 (n, v, side, side, 3) RGB, mapped to memory.
        vectors: the heavy tower's, float16 (n, v, dim), mapped to memory.
        sha256: over all that they depend on.
    """

    pixels: Uint8s
    vectors: NDArray[np.float16]
    sha256: str

    @property
    def views(self) -> int:
        """Views of a picture."""
        return int(self.pixels.shape[1])

    def rows(self, pictures: Int64s, views: Int64s) -> tuple[Uint8s, Float32s]:
        """Return pixels, uint8 (k, side, side, 3), and unit vectors, float32 (k, dim), of a view each of k pictures."""
        vectors = self.vectors[pictures, views].astype(np.float32)
        return self.pixels[pictures, views], vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which views are made.

    Attributes:
        views: of a picture, the picture itself included.
        look: how the others differ from it.
        seed: of the views.
    """

    views: int
    look: Look
    seed: int


def set_size_bytes(pictures: int, plan: Plan, light: PictureSpec, dim: int) -> int:
    """Return what the set takes on disk."""
    return sum(rows.size_bytes for rows in _arrays(pictures, plan, light, dim).values())


def reinforce(
    pictures: Embeddings,
    heavy: Model,
    light: PictureSpec,
    plan: Plan,
    *,
    cache: Path,
    progress: Progress,
    threads: int | None = None,
) -> ReinforcedSet:
    """Return views and vectors, from the cache where they are there. A run that is stopped goes on where it was.

    Args:
        pictures: with the heavy tower's vectors of themselves.
        heavy: an opened model folder with an image tower.
        light: how the light tower takes pictures.
        plan: which views.
        cache: folder that the set is kept below; it may be removed at any time.
        progress: told of encoding.
        threads: of onnxruntime.

    Raises:
        FormatError: the heavy tower gives NaN or infinity for a view.
        Refused: the disk has no room.
        BadImage: a picture cannot be read any more.
    """
    encoder = ImageEncoder(heavy, threads=threads)
    sha256 = _key(pictures, heavy, encoder.spec, light, plan)
    wish = "fewer views help (--views), or another cache (POCKETLENS_CACHE)"
    arrays = _arrays(len(pictures.paths), plan, light, encoder.dim)
    files = RowFiles(cache / "views" / sha256[:32], arrays, wish=wish)
    drawing = _Drawing(pictures.paths, pictures.sha256, (light, encoder.spec), plan)
    try:
        for rows, (taken, shown) in drawing.batches(files.done):
            names = [pictures.paths[row].name for row in rows]
            vectors = _encode(encoder, shown, pictures.vectors[rows.start : rows.stop], names)
            files.put(rows, {"pixels": taken, "vectors": vectors})
            progress(f"{heavy.manifest.name}: encoding {plan.views} views", rows.stop, len(pictures.paths))
    finally:
        files.save()
    return ReinforcedSet(files.arrays["pixels"], files.arrays["vectors"], sha256)


def _arrays(pictures: int, plan: Plan, light: PictureSpec, dim: int) -> dict[str, Rows]:
    return {
        "pixels": Rows((pictures, plan.views, light.side, light.side, 3), np.uint8),
        "vectors": Rows((pictures, plan.views, dim), np.float16),
    }


def _encode(encoder: ImageEncoder, shown: Uint8s, own: Float32s, names: Sequence[str]) -> NDArray[np.float16]:
    """Return vectors (n, v, dim) of pictures with v - 1 views each, shown (n, v - 1, side, side, 3)."""
    count, views = shown.shape[:2]
    vectors = np.zeros((count, views + 1, encoder.dim), dtype=np.float32)
    vectors[:, 0] = own
    if views:
        found = encoder.encode_pixels(shown.reshape(-1, *shown.shape[2:]))  # (n, v - 1, ...) -> (n (v - 1), ...)
        vectors[:, 1:] = found.reshape(count, views, -1)
    good = np.isfinite(vectors).all(axis=(1, 2))
    if not good.all():
        name = names[int(np.argmin(good))]
        raise FormatError(f"the heavy tower gives NaN or infinity for a view of {name}, expected a vector of length 1")
    return vectors.astype(np.float16)


class _Drawing:
    """Draws views by two threads ahead of the tower."""

    def __init__(
        self, paths: Sequence[Path], sha256: Sequence[str], specs: tuple[PictureSpec, PictureSpec], plan: Plan
    ) -> None:
        self._paths, self._sha256, self._specs, self._plan = paths, sha256, specs, plan

    def batches(self, start: int) -> Iterator[tuple[range, tuple[Uint8s, Uint8s]]]:
        """Yield rows, all views as the light tower takes them, and all but view 0 as the heavy one does."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            drawn = _ahead(pool, self._draw, range(start, len(self._paths)))
            for first in range(start, len(self._paths), _PICTURES):
                rows = range(first, min(first + _PICTURES, len(self._paths)))
                found = [next(drawn) for _ in rows]
                yield rows, (np.stack([each[0] for each in found]), np.stack([each[1] for each in found]))

    def _draw(self, row: int) -> tuple[Uint8s, Uint8s]:
        sheet = read_sheet(read_picture(self._paths[row], limits=SERVER))
        least = max(spec.side for spec in self._specs)
        views = [sheet.image]
        for view in range(1, self._plan.views):
            rng = np.random.default_rng([self._plan.seed, view, int(self._sha256[row][:16], 16)])
            views.append(draw_view(sheet, self._plan.look, rng, other=self._other, least=least))
        light, heavy = self._specs
        shown = [preprocess(view, heavy) for view in views[1:]]
        return (
            np.stack([preprocess(view, light) for view in views]),
            np.stack(shown) if shown else np.zeros((0, heavy.side, heavy.side, 3), dtype=np.uint8),
        )

    def _other(self, number: int) -> Image.Image:
        return decode(self._paths[number % len(self._paths)], limits=SERVER)


def _ahead(pool: ThreadPoolExecutor, work: Callable[[int], Any], rows: Sequence[int]) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque(pool.submit(work, row) for row in rows[:_AHEAD])
    for position in range(len(rows)):
        yield waiting.popleft().result()
        if position + _AHEAD < len(rows):
            waiting.append(pool.submit(work, rows[position + _AHEAD]))


def _key(pictures: Embeddings, heavy: Model, spec: PictureSpec, light: PictureSpec, plan: Plan) -> str:
    seen = [[each.side, each.mode, each.interpolation] for each in (spec, light)]
    tower = heavy.manifest.files[spec.file].sha256
    described = [CODE, ort.__version__, PIL.__version__, tower, seen, dataclasses.asdict(plan), pictures.sha256]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
