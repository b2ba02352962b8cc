"""What a distilled tower is worth: whether its view of a picture finds the picture as the heavy tower sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s
from pocketlens.encoder import ImageEncoder
from pocketlens.model import Model
from pocketlens_export.align.quality import ranks_of_own
from pocketlens_export.embeddings import Progress
from pocketlens_export.views import encode_views

RECALL_AT = (1, 5, 10)
_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """Pictures that were neither trained on nor looked at: files, their sha256, and the heavy tower's vectors."""

    paths: tuple[Path, ...]
    sha256: tuple[str, ...]
    vectors: Float32s


def measure(
    light: Model,
    heavy: Model,
    pictures: Unseen,
    *,
    seed: int,
    cache: Path,
    progress: Progress,
    threads: int | None = None,
) -> dict[str, float]:
    """Return figures by name, each beginning with asymmetric_.

    Recall at 1, 5 and 10 of test pictures asked by a view of each (half to nine tenths of the area, every other one
    mirrored): light_light, heavy_heavy and, the light tower's queries over the heavy one's gallery, light_heavy.
    mean_cosine is that of both towers' vectors of one picture.
    """
    light_views, heavy_views = (
        encode_views(model, pictures.paths, pictures.sha256, seed=seed, cache=cache, progress=progress, threads=threads)
        for model in (light, heavy)
    )
    originals = _encode(light, pictures.paths, progress, threads)
    pairs = {
        "light_light": (light_views, originals),
        "heavy_heavy": (heavy_views, pictures.vectors),
        "light_heavy": (light_views, pictures.vectors),
    }
    figures: dict[str, float] = {}
    for who, (queries, gallery) in pairs.items():
        ranks = ranks_of_own(queries, gallery)
        figures |= {f"asymmetric_{who}_recall_at_{k}": float((ranks <= k).mean()) for k in RECALL_AT}
    cosines = (originals * pictures.vectors).sum(axis=1)
    return figures | {
        "asymmetric_mean_cosine": float(cosines.mean()),
        "asymmetric_test_pictures": float(len(pictures.paths)),
    }


def _encode(model: Model, paths: Sequence[Path], progress: Progress, threads: int | None) -> Float32s:
    encoder = ImageEncoder(model, threads=threads)
    found = []
    for start in range(0, len(paths), _BATCH):
        found.append(encoder.encode(list(paths[start : start + _BATCH])))
        progress(f"{model.manifest.name}: encoding test pictures", min(start + _BATCH, len(paths)), len(paths))
    return np.concatenate(found)
