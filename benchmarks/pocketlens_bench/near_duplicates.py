"""How near a picture's vector stays when its file is stored again, and how near different pictures are.

It is what `pocketlens.duplicates.NEAR` was chosen from, with lens-base on the sample gallery.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageOps

from pocketlens._types import Float32s
from pocketlens.duplicates import NEAR
from pocketlens.encoder import ImageEncoder
from pocketlens.model import Model, find_model
from pocketlens.picture import decode
from pocketlens_bench.measure import ROOT, Options, Progress, Report, Row, significant
from pocketlens_bench.progress import show_progress
from pocketlens_export.gallery.scan import list_files

_LEVELS = (0.9, 0.93, 0.95, 0.96, NEAR, 0.98, 0.99)


def run(options: Options, progress: Progress) -> Report:
    """Return the shares of changed and of different pictures that reach each level."""
    files = [path for path in list_files(ROOT / "demo" / "pictures") if path.suffix in (".jpg", ".png", ".webp")]
    files = files[:: 20 if options.quick else 1]
    encoder = ImageEncoder(Model.open(find_model("lens-base")), threads=1)
    pictures = [decode(path) for path in files[::2]]
    changed: list[Row] = []
    with show_progress() as show:
        vectors = np.concatenate([encoder.encode([path]) for path in files])
        for number, (name, change) in enumerate(_CHANGES.items()):
            show("changes", number, len(_CHANGES))
            again = np.concatenate([encoder.encode([change(picture)]) for picture in pictures])
            changed.append({"change": name, **_shares((vectors[::2] * again).sum(axis=1))})
    apart = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    counts: Row = {f">= {level:g}": int((apart >= level).sum()) for level in _LEVELS}
    progress(f"{len(pictures)} pictures changed; {len(apart)} pairs")
    return Report(
        settings={"pictures": len(files), "changed": len(pictures), "pairs": len(apart), "near": NEAR},
        threads=1,
        tables={
            "Share of changed pictures at or above a cosine": changed,
            "Pairs of different pictures at or above a cosine": [counts],
        },
        notes=["Every second picture is changed; the original's vector is that of its file as it lies."],
    )


def _shares(cosines: Float32s) -> dict[str, float]:
    levels = {f">= {level:g}": significant(float((cosines >= level).mean()), 3) for level in _LEVELS}
    return {"least": round(float(cosines.min()), 3), "median": round(float(np.median(cosines)), 3), **levels}


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _scaled(picture: Image.Image, scale: float) -> Image.Image:
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _cropped(picture: Image.Image, share: float) -> Image.Image:
    x, y = round(picture.width * share), round(picture.height * share)
    return picture.crop((x, y, picture.width - x, picture.height - y))


_CHANGES: Mapping[str, Callable[[Image.Image], bytes]] = {
    "JPEG of quality 90": lambda picture: _jpeg(picture, 90),
    "JPEG of quality 70": lambda picture: _jpeg(picture, 70),
    "JPEG of quality 50": lambda picture: _jpeg(picture, 50),
    "JPEG of quality 30": lambda picture: _jpeg(picture, 30),
    "half the size, quality 80": lambda picture: _jpeg(_scaled(picture, 0.5), 80),
    "a quarter of the size, quality 70": lambda picture: _jpeg(_scaled(picture, 0.25), 70),
    "2 % cut off each side, quality 85": lambda picture: _jpeg(_cropped(picture, 0.02), 85),
    "5 % cut off each side, quality 85": lambda picture: _jpeg(_cropped(picture, 0.05), 85),
    "mirrored, quality 90": lambda picture: _jpeg(ImageOps.mirror(picture), 90),
}
