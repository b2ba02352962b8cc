"""What decoding a large JPEG at a reduced size (Pillow's `draft`) does to the embedding, and what time it saves.

libjpeg can decode at 1/2, 1/4 or 1/8; a draft factor lets it while the short side stays at or above that many times the
tower's. Sizes are chosen so that every factor is met at its worst, where the reduced short side is just that factor.
The runtime's factor must keep every cosine; it may be larger than the smallest that does, at no loss of time.
The sample gallery has no large photo, so large pictures are made from it: mosaics of photos at their own resolution,
enlargements with grain, and fractal noise.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocketlens._types import Uint8s
from pocketlens.encoder import ImageEncoder
from pocketlens.errors import FormatError
from pocketlens.model import Model, PictureSpec, find_model
from pocketlens.picture import DRAFT_FACTOR, load_pixels
from pocketlens_bench.measure import (
    ROOT,
    Bar,
    Options,
    Progress,
    Report,
    Row,
    alternate,
    cosines,
    median,
    ratio,
    significant,
)
from pocketlens_bench.models import mobileclip

Cosines: TypeAlias = NDArray[np.float64]
KINDS = ("mosaics", "enlargements", "noise")
FACTORS = (1, 2, 3, 4, 6, 8)
LEAST_COSINE = 0.999
_SHORT_SIDES = (4, 6, 8, 12, 16)  # times the tower's side: 2, 4 and 8 times the factors
_PHONE = (4000, 3000)
_OF_EACH_KIND = 4
_QUALITY = 90
_GRAIN = 5.0  # standard deviation, of 255


def run(options: Options, progress: Progress) -> Report:
    """Return least and mean cosine with the whole decoding, and the time ratio to it, by draft factor."""
    model = _model(options, progress)
    encoder = ImageEncoder(model, threads=1)
    side, each = encoder.spec.side, 1 if options.quick else _OF_EACH_KIND
    sizes = [_PHONE] if options.quick else [*((4 * n * side // 3, n * side) for n in _SHORT_SIDES), _PHONE]
    found: dict[int, list[Cosines]] = {factor: [] for factor in FACTORS}
    timed: list[bytes] = []
    for size in sizes:
        progress(f"{size[0]} x {size[1]}")
        jpegs = list(large_jpegs(size, each))
        timed += jpegs[::each] if size == _PHONE else []
        whole = _encode(encoder, jpegs, 0)
        for factor in FACTORS:
            by_kind = cosines(_encode(encoder, jpegs, factor), whole).reshape(len(KINDS), each)
            found[factor].append(by_kind)
    progress("timing")
    cosines_by_kind = {factor: np.concatenate(parts, axis=1) for factor, parts in found.items()}
    table = [_row(factor, values) for factor, values in cosines_by_kind.items()]
    _add_times(table, timed, encoder.spec, rounds=2 if options.quick else 7)
    return _report(table, model, side, sizes)


def smallest_factor(table: list[Row], *, least: float) -> int | None:
    """Return the smallest factor from which on every least cosine is at or above `least`."""
    smallest = None
    for row in reversed(table):
        if float(row["least cosine"] or 0) < least:
            return smallest
        smallest = int(row["factor"] or 0)
    return smallest


def large_jpegs(size: tuple[int, int], count: int) -> Iterator[bytes]:
    """Yield `count` mosaics, `count` enlargements and `count` noise pictures of (width, height), as JPEG bytes."""
    photos = sorted((ROOT / "demo" / "pictures").glob("*/*.jpg"))
    for number in range(count):
        yield _jpeg(_mosaic(photos, size, np.random.default_rng([1, number])))
    for number in range(count):
        yield _jpeg(_enlarged(photos, size, np.random.default_rng([2, number])))
    for number in range(count):
        yield _jpeg(_fractal(size, np.random.default_rng([3, number])))


def _mosaic(photos: list[Path], size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    mosaic = Image.new("RGB", size)
    step = 320
    for left in range(0, size[0], step):
        for top in range(0, size[1], step):
            with Image.open(photos[int(rng.integers(len(photos)))]) as photo:
                mosaic.paste(photo.convert("RGB").resize((step, step), box=_centre(photo)), (left, top))
    return mosaic


def _enlarged(photos: list[Path], size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    with Image.open(photos[int(rng.integers(len(photos)))]) as photo:
        large = photo.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    grain = rng.standard_normal((size[1], size[0], 1), dtype=np.float32) * _GRAIN
    return Image.fromarray(np.clip(np.asarray(large, dtype=np.float32) + grain, 0, 255).astype(np.uint8))


def _fractal(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return noise whose amplitude halves with every doubling of the frequency, down to single pixels, in colour."""
    total = np.zeros((size[1], size[0], 3), dtype=np.float32)
    for octave in range(2, int(np.log2(size[1])) + 1):
        cells = rng.uniform(-1, 1, (3, 3 * 2**octave // 4, 2**octave)).astype(np.float32)
        layers = [np.asarray(Image.fromarray(cell).resize(size, Image.Resampling.BICUBIC)) for cell in cells]
        total += np.stack(layers, axis=-1) * 0.5 ** (octave - 2)  # 3 of (h, w) -> (h, w, 3)
    return Image.fromarray(np.clip(128 + 90 * total, 0, 255).astype(np.uint8))


def _centre(photo: Image.Image) -> tuple[int, int, int, int]:
    short = min(photo.size)
    left, top = (photo.width - short) // 2, (photo.height - short) // 2
    return (left, top, left + short, top + short)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _row(factor: int, found: Cosines) -> Row:
    row: Row = {"factor": factor, "least cosine": significant(float(found.min()), 6)}
    row["mean cosine"] = significant(float(found.mean()), 6)
    return row | {
        f"least, {kind}": significant(float(values.min()), 6) for kind, values in zip(KINDS, found, strict=True)
    }


def _encode(encoder: ImageEncoder, jpegs: list[bytes], factor: int) -> np.ndarray:
    return encoder.encode_pixels(np.stack([_load(jpeg, encoder.spec, factor) for jpeg in jpegs]))


def _add_times(table: list[Row], jpegs: list[bytes], spec: PictureSpec, *, rounds: int) -> None:
    """Add to every row the time of decoding and preprocessing a phone's photo, and its ratio to whole decoding."""
    elapsed_ms: dict[str, list[float]] = {}
    for jpeg in jpegs:
        runs = {str(factor): partial(_load, jpeg, spec, factor) for factor in (*FACTORS, 0)}
        for name, values in alternate(runs, rounds=rounds, warm_up=1).items():
            elapsed_ms.setdefault(name, []).extend(values)
    for row in table:
        values = elapsed_ms[str(row["factor"])]
        row["12 MP decode p50 ms"] = median(values)
        row["time over whole decoding"] = ratio(values, elapsed_ms["0"])
    whole: Row = dict.fromkeys(table[0], 1.0)
    table.append(whole | {"factor": "none", "12 MP decode p50 ms": median(elapsed_ms["0"])})


def _load(jpeg: bytes, spec: PictureSpec, factor: int) -> Uint8s:
    with Image.open(io.BytesIO(jpeg)) as image:
        if factor:
            image.draft(None, (factor * spec.side, factor * spec.side))
        return load_pixels(image, spec)


def _model(options: Options, progress: Progress) -> Model:
    try:
        return Model.open(find_model("lens-base"))
    except FormatError:
        progress("lens-base is not there; measuring with MobileCLIP2-S0 and seeded weights")
        return Model.open(mobileclip(options, progress).folder)


def _report(table: list[Row], model: Model, side: int, sizes: list[tuple[int, int]]) -> Report:
    smallest = smallest_factor(table[:-1], least=LEAST_COSINE)
    what = f"smallest draft factor whose least cosine is at least {LEAST_COSINE}; 0: none"
    met = smallest is not None and smallest <= DRAFT_FACTOR
    return Report(
        settings={
            "model": model.manifest.name,
            "side": side,
            "sizes": [f"{width}x{height}" for width, height in sizes],
            "pictures": 3 * _OF_EACH_KIND * len(sizes),
            "jpeg quality": _QUALITY,
        },
        threads=1,
        tables={"Draft factor": table},
        bars=[Bar(what, f"1 to {DRAFT_FACTOR}, the factor of the runtime", smallest or 0, met)],
        notes=[
            "Factors 2 to 6 change the tower's input by 0.1 to 0.3 of 255 grey levels on average; lens-base turns that "
            "into cosines of 0.999.",
            "Large pictures are made from the sample gallery and from noise; none came from a camera at this size.",
        ],
        packages=("numpy", "pillow", "onnxruntime"),
    )
