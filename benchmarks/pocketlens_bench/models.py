"""The models that are measured: MobileCLIP2-S0, or another by name, with seeded weights, in torch and exported.

The architecture is real and the weights are not: times, memory and the agreement of torch and ONNX are those of the
trained model, hits are not. A checkpoint is written first, so that open_clip and the exporter read the same weights.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens.bundle import Tower, add_tower, seal_bundle
from pocketlens.gallery import Counts
from pocketlens.gallery_writer import write_gallery
from pocketlens.items import Item
from pocketlens.model import Model
from pocketlens_bench import clip_shaped
from pocketlens_bench.measure import Options, Progress

NAME = "MobileCLIP2-S0"
_FITTED = 32


@dataclass(frozen=True, slots=True)
class Exported:
    """A checkpoint of the architecture `name` that open_clip loads, and the model folder exported from it."""

    name: str
    checkpoint: Path
    folder: Path


def mobileclip(options: Options, progress: Progress, *, name: str = NAME) -> Exported:
    """Return the checkpoint and the model folder, made in `options.work` unless they are there already."""
    import torch

    from pocketlens_export.architecture import registered_architecture
    from pocketlens_export.clip import Weights, load_clip
    from pocketlens_export.folder import Request, export_model

    work = options.work or temporary_folder()
    made = Exported(name, work / f"{name}.pt", work / name)
    architecture = registered_architecture(name, None)
    if not made.checkpoint.is_file():
        clip = load_clip(architecture, Weights(seed=0), sample_pixels(_FITTED, architecture.preprocessing.side))
        torch.save(clip.model.state_dict(), made.checkpoint)
    if not made.folder.is_dir():
        licence, weights = "none (random weights)", Weights(path=made.checkpoint)
        request = Request(architecture, weights, name, licence, tokenizer=None, pictures=None)
        export_model(request, made.folder, progress)
    return made


def load_torch(exported: Exported) -> Any:
    """Return the checkpoint as pocketlens_export's Clip: open_clip's own model, in eval mode."""
    from pocketlens_export.architecture import registered_architecture
    from pocketlens_export.clip import Weights, load_clip

    architecture = registered_architecture(exported.name, None)
    pixels = sample_pixels(1, architecture.preprocessing.side)
    return load_clip(architecture, Weights(path=exported.checkpoint), pixels)


def sample_pixels(count: int, side: int) -> np.ndarray:
    """Return seeded pictures that differ, uint8 (count, side, side, 3)."""
    from pocketlens_export.samples import sample_pictures

    return np.stack([np.asarray(picture.resize((side, side))) for picture in sample_pictures(count)])


def make_bundle(folder: Path, model: Model, *, rows: int, towers: tuple[Tower, ...] = ("text",)) -> Path:
    """Write a bundle of `rows` synthetic items in the model's space, with the given towers, and return it."""
    vectors = clip_shaped.pictures(rows, dim=model.manifest.space.dim)
    items = [Item(f"{row:06}.jpg", row, f"{row:06}.jpg", 640, 480, f"{row:064x}", {}) for row in range(rows)]
    (folder / "gallery").mkdir(parents=True)
    counts = Counts(seen=rows, indexed=rows, duplicates=0, skipped={})
    space, name = model.manifest.space, model.manifest.name
    write_gallery(folder / "gallery", vectors, items, space=space, model=name, counts=counts)
    for tower in towers:
        add_tower(folder, tower, model)
    seal_bundle(folder)
    return folder


@cache
def temporary_folder() -> Path:
    """Return a folder that all scripts of one process share and that goes away with it."""
    _KEPT.append(tempfile.TemporaryDirectory(prefix="pocketlens-bench-"))
    return Path(_KEPT[-1].name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
