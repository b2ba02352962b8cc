"""Draws the pictures of every vendor small, and leaves out those that cannot be told from another concept's."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from emojicir.names import Concept, key_of
from emojicir.tones import put_right

SIDE = 96
"""Longest side in pixels of a picture; what comes smaller, as Google's and Twitter's of 64 pixels, stays so."""

OUTLINE = "outline"
FLUENT = "fluent"
FOLDERS = {
    "google": ("emoji-datasource-google", "img/google/64"),
    "twitter": ("emoji-datasource-twitter", "img/twitter/64"),
    FLUENT: ("@lobehub/fluent-emoji-3d", "assets"),
    "openmoji": ("openmoji", "color/svg"),
    OUTLINE: ("openmoji", "black/svg"),
}
"""Vendor or style: its package and the folder in it."""


def drawn(path: Path) -> Image.Image:
    """Return a picture file, vector or not, as RGBA, its longest side at most `SIDE` pixels."""
    if path.suffix == ".svg":
        import resvg_py  # type: ignore[import-untyped,import-not-found,unused-ignore]  # only the builder has it

        file = io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=SIDE)))
    else:
        file = io.BytesIO(path.read_bytes())
    with Image.open(file) as opened:
        image = opened.convert("RGBA")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def sources(vendor: str, folder: Path, concepts: Mapping[str, Concept]) -> Iterator[tuple[str, Path]]:
    """Yield key and file of each concept that a vendor draws. Toned outlines are left out: they show no tone."""
    seen: set[str] = set()
    for path in sorted(folder.iterdir()):
        key = key_of(path.stem)
        concept = concepts.get(key)
        if concept is None or key in seen or (vendor == OUTLINE and concept.tone != 0):
            continue
        seen.add(key)
        yield key, path


def _looks(image: Image.Image) -> str:
    """Return a digest of the picture on white, which is how it will be seen."""
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image)
    return hashlib.sha256(ground.tobytes()).hexdigest()


def leave_out_copies(vendors: Mapping[str, list[str]], out: Path) -> dict[str, list[str]]:
    """Delete each outline in `out` that looks as another vendor's picture of its concept; return the keys that stay.

    OpenMoji draws some emoji in black alone, and has the same drawing twice.
    """
    others: dict[str, list[str]] = defaultdict(list)
    for vendor in (v for v in vendors if v != OUTLINE):
        for key in vendors[vendor]:
            others[key].append(vendor)

    def looks(vendor: str, key: str) -> str:
        with Image.open(out / vendor / f"{key}.webp") as image:
            return _looks(image.convert("RGBA"))

    copies = [key for key in vendors[OUTLINE] if looks(OUTLINE, key) in {looks(v, key) for v in others[key]}]
    for key in copies:
        (out / OUTLINE / f"{key}.webp").unlink()
    return {**vendors, OUTLINE: sorted(set(vendors[OUTLINE]) - set(copies))}


def write_vendor(vendor: str, folder: Path, concepts: Mapping[str, Concept], out: Path) -> list[str]:
    """Write a vendor's pictures as `out`/`vendor`/KEY.webp and return their keys, sorted.

    Pictures of two concepts that have the same pixels are both left out: to rank one above the other is chance.
    """
    pictures = {key: drawn(path) for key, path in sources(vendor, folder, concepts)}
    if vendor == FLUENT:
        pictures = put_right(pictures, concepts)
    alike: dict[str, list[str]] = defaultdict(list)
    for key, image in pictures.items():
        alike[_looks(image)].append(key)
    written = sorted(keys[0] for keys in alike.values() if len(keys) == 1)
    target = out / vendor
    target.mkdir(parents=True, exist_ok=True)
    for key in written:
        pictures[key].save(target / f"{key}.webp", quality=90, method=2)
    return written
