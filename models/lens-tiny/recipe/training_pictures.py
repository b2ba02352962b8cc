"""Writes the pictures that lens-tiny is distilled on: `training_pictures.py --cache CACHE --out DIR [--workers 2]`.

    DIR/train/SOURCE/*.webp         nothing whose name lens-base's split holds out
    DIR/validation/SOURCE/*.webp    emoji and clip art of lens-base's validation concepts, to choose steps and backbone
    DIR/manifest.tsv                file, source, licence and sha256 of each

Needs no labels: the heavy model's own vector of a picture is what is learnt. Fetches packages by name (npm, apt-get)
into CACHE; it may be the cache of lens-base's recipe. The longest side is 160 pixels; transparent pictures stay
transparent. OpenMoji's black drawings are a held-out style, concepts of the test split are nowhere, and neither is any
source of demo/pictures.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from drawings import COLOURED, PLAIN, clipart, composites, emoji, icons
from items import SIDE, Item, held_out
from lens_base import NPM, ROOT, TEST, TRAIN, fetch_debian, fetch_npm, read_emoji
from photographs import ALBUMS, crops
from PIL import Image

SEED = "lens-tiny/1"
COMPOSITES = 1_000
QUALITY = 90
"""Of WebP; transparency is kept without loss."""

EMOJI_LICENCES = {
    "emoji-google": "Apache-2.0",
    "emoji-twitter": "CC-BY-4.0",
    "emoji-fluent": "MIT",
    "emoji-openmoji": "CC-BY-SA-4.0",
}


def demo_sources() -> frozenset[str]:
    """Return the paths, inside their packages, of what demo/pictures was made of."""
    with (ROOT / "demo" / "pictures" / "LICENCES.csv").open(encoding="utf-8", newline="") as lines:
        return frozenset(row["source_file"].rpartition("!")[2] for row in csv.DictReader(lines))


def items(cache: Path) -> Iterator[Item]:
    """Yield every picture to make, of all splits, fetching the packages that `cache` lacks."""
    packages = {name: fetch_npm(name, version, cache) for name, version in NPM.items()}
    known, demo, rng = read_emoji(packages), demo_sources(), random.Random(SEED)
    names = packages["emojibase-data"].folder / "en" / "shortcodes"
    held = held_out(known, [path.read_text(encoding="utf-8") for path in sorted(names.glob("*.json"))])
    drawn = list(emoji(known, EMOJI_LICENCES))
    png, svg = (fetch_debian(f"openclipart-{kind}", cache).folder for kind in ("png", "svg"))
    inside = "usr/share/openclipart"
    listed = frozenset(path.removeprefix(f"{inside}/svg/") for path in demo)
    drawn += clipart(png / inside / "png", svg / inside / "svg", held, listed)
    for chosen, coloured in ((COLOURED, True), (PLAIN, False)):
        for name, version in chosen.items():
            folder = fetch_npm(f"@iconify-json/{name}", version, cache).folder
            drawn += icons(folder, held, coloured=coloured, rng=rng)
    taken: list[Item] = []
    for album in ALBUMS:
        taken += crops(album, fetch_debian(album.package, cache).folder, held, demo)
    yield from drawn
    yield from taken
    yield from composites([item for item in drawn if item.part == TRAIN], taken, COMPOSITES, rng)


def write_item(job: tuple[Item, Path]) -> tuple[str, str]:
    """Make one picture and write it; return its path below the folder and its sha256, or nothing if it cannot be."""
    item, out = job
    try:
        image = item.make()
    except (OSError, ValueError, RuntimeError, Image.DecompressionBombError):
        return "", ""
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    if min(image.size) < 8 or (image.mode == "RGBA" and image.getchannel("A").getextrema()[1] == 0):
        return "", ""
    held = io.BytesIO()
    image.save(held, "WEBP", quality=QUALITY)
    name = f"{item.part}/{item.name}.webp"
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(held.getvalue())
    return name, hashlib.sha256(held.getvalue()).hexdigest()


def write(cache: Path, out: Path, workers: int) -> Counter[tuple[str, str, str]]:
    """Write the pictures and the manifest; return how many by split, source and licence.

    A picture whose bytes were written already is dropped.
    """
    wanted = {f"{item.part}/{item.name}": item for item in items(cache) if item.part != TEST}
    counts: Counter[tuple[str, str, str]] = Counter()
    seen: set[str] = set()
    progress = _progress(len(wanted))
    with ProcessPoolExecutor(workers) as pool, (out / "manifest.tsv").open("w", encoding="utf-8") as manifest:
        manifest.write("file\tsource\tlicence\tsha256\n")
        jobs = [(item, out) for item in wanted.values()]
        for item, (name, digest) in zip(wanted.values(), pool.map(write_item, jobs, chunksize=32), strict=True):
            progress()
            if name and digest in seen:
                (out / name).unlink()
            elif name:
                seen.add(digest)
                counts[item.part, item.source, item.licence] += 1
                manifest.write(f"{name}\t{item.source}\t{item.licence}\t{digest}\n")
    return counts


def _progress(total: int) -> Callable[[], None]:
    """Return what to call after each picture: it shows how many are written and how long the rest takes."""
    start, done = time.monotonic(), 0

    def step() -> None:
        nonlocal done
        done += 1
        if done % 500 == 0 or done == total:
            left = (time.monotonic() - start) / done * (total - done)
            print(f"\r{done} of {total} pictures, {left:.0f} s left ", end="", file=sys.stderr, flush=True)

    return step


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of fetched packages")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not hold pictures yet")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw (default 2)")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    if out.is_dir() and any(out.iterdir()):
        parser.error(f"{out} is not empty")
    out.mkdir(parents=True, exist_ok=True)
    counts = write(arguments.cache.resolve(), out, arguments.workers)
    print("\nsplit\tsource\tpictures\tlicences")
    for part, source in sorted({key[:2] for key in counts}):
        own = {licence: count for (*key, licence), count in counts.items() if key == [part, source]}
        licences = ", ".join(sorted(own)) if source != "composite" else "those of both parts"
        print(f"{part}\t{source}\t{sum(own.values())}\t{licences}")
    print(f"{sum(counts.values())} pictures")


if __name__ == "__main__":
    main()
