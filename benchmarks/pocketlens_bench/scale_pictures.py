"""Pictures by the thousand for measuring how galleries are indexed: crops of the sample gallery, all different."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pocketlens_bench.measure import ROOT

_SUFFIXES = (".jpg", ".png", ".webp")


def photos(count: int, size: tuple[int, int], *, seed: int = 0) -> Iterator[bytes]:
    """Yield JPEGs of a size, each another crop of a picture of the sample gallery."""
    rng = np.random.default_rng(seed)
    paths = sorted(path for path in (ROOT / "demo" / "pictures").rglob("*") if path.suffix in _SUFFIXES)
    for number in range(count):
        with Image.open(paths[number % len(paths)]) as image:
            left, top = (rng.random(2) * 0.2 * np.array(image.size)).tolist()
            box = (left, top, left + 0.8 * image.width, top + 0.8 * image.height)
            crop = image.convert("RGB").resize(size, box=box)
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=90)
        yield buffer.getvalue()


def write_folder(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write photos into a folder and return it."""
    folder.mkdir(parents=True)
    for number, content in enumerate(photos(count, size)):
        (folder / f"{number:06}.jpg").write_bytes(content)
    return folder


def write_tars(folder: Path, tars: int, each: int) -> str:
    """Write small, different pictures into tar archives, and return the pattern of their names without the number."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(tars):
        with tarfile.open(folder / f"s-{number:04}.tar", "w") as archive:
            for place in range(each):
                buffer = io.BytesIO()
                coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
                coarse.resize((96, 72), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
                about = tarfile.TarInfo(f"{place:06}.jpg")
                about.size = buffer.tell()
                buffer.seek(0)
                archive.addfile(about, buffer)
    return str(folder / "s-{0000..%04d}.tar")
