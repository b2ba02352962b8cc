"""Other views of a picture: a part of it, perhaps mirrored. What a query looks like when the answer is the picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pocketlens._types import Float32s
from pocketlens.decoders import SERVER
from pocketlens.encoder import ImageEncoder
from pocketlens.model import Model
from pocketlens.picture import decode, preprocess
from pocketlens_export.embeddings import Progress, open_picture_store

AREA = (0.5, 0.9)  # of the picture, that a view shows
_STRETCH = 1.15  # at most, of its width against its height
_CODE = 1  # to be raised with every change to what a view is
_BATCH = 32


def take_view(image: Image.Image, sha256: str, *, seed: int) -> Image.Image:
    """Return a view of an RGB picture: half to nine tenths of its area from anywhere in it, every other one mirrored.

    Args:
        image: the picture.
        sha256: of its file; two pictures have different views of one seed.
        seed: of the view.
    """
    rng = np.random.default_rng([seed, int(sha256[:16], 16)])
    share, stretch = rng.uniform(*AREA), np.exp(rng.uniform(-1, 1) * np.log(_STRETCH))
    sides = np.minimum(np.sqrt([share * stretch, share / stretch]), 1)  # of width and height
    width, height = (max(round(side * size), 1) for side, size in zip(sides, image.size, strict=True))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    view = image.crop((left, top, left + width, top + height))
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else view


def encode_views(
    model: Model,
    paths: Sequence[Path],
    sha256: Sequence[str],
    *,
    seed: int,
    cache: Path,
    progress: Progress,
    threads: int | None = None,
) -> Float32s:
    """Return the vectors of one view of each picture, float32 (n, dim), of length 1; kept in the cache like pictures'.

    Args:
        model: an opened model folder with an image tower.
        paths: pictures that can be read.
        sha256: of each.
        seed: of the views.
        cache: folder that vectors are kept below.
        progress: told of encoding.
        threads: of onnxruntime.

    Raises:
        FormatError: the tower gives NaN or infinity for a view.
        MissingPart: the model has no image tower.
        BadImage: a picture cannot be read any more.
    """
    encoder = ImageEncoder(model, threads=threads)
    store = open_picture_store(model, encoder.spec, cache)
    keys = [hashlib.sha256(f"view {_CODE} {seed} {each}".encode()).hexdigest() for each in sha256]
    missing = [row for row, key in enumerate(keys) if key not in store]
    try:
        for start in range(0, len(missing), _BATCH):
            rows = missing[start : start + _BATCH]
            views = [take_view(decode(paths[row], limits=SERVER), sha256[row], seed=seed) for row in rows]
            vectors = encoder.encode_pixels(np.stack([preprocess(view, encoder.spec) for view in views]))
            store.add([keys[row] for row in rows], vectors, [f"a view of {paths[row].name}" for row in rows])
            progress(f"{model.manifest.name}: encoding views", start + len(rows), len(missing))
    finally:
        store.save()
    return store.vectors(keys)
