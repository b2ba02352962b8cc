"""Photographs to learn on: wallpapers, and pictures of games whose copyright file gives each a free licence.

Each is cut into many seeded squares at several scales: it is the texture of photographs that drawings cannot teach.
"""

from __future__ import annotations

import fnmatch
import io
import random
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

from items import HeldOut, Item
from lens_base import ROOT, TRAIN, load
from PIL import Image

FREE = re.compile(r"(CC0(-1\.0)?|CC-BY(-SA)?(-[1-4]\.\d)?|public-domain|MIT|Expat|Apache-2\.0|NASA-not-copyrighted)$")
UNCERTAIN = re.compile(r"morgue-?file", re.IGNORECASE)
"""What a licence paragraph may not name: that site's own terms do not allow passing its pictures on by themselves."""

RASTER = (".jpg", ".jpeg", ".png", ".webp")
LARGEST = 1600
"""Photographs are reduced to this longest side before they are cut."""

LEAST_SIDE = 120
"""Pictures with a shorter side, in pixels, are left out."""


@dataclass(frozen=True, slots=True)
class Album:
    """A package's photographs.

    Attributes:
        package: Debian package.
        folder: where its pictures are, in the unpacked package; or its Qt resource files.
        within: what the copyright file's paths begin with, where the folder's do not.
        crops: squares to cut out of each.
    """

    package: str
    folder: str
    within: str
    crops: int


ALBUMS = (
    Album("lomiri-wallpapers-16.04", "usr/share/backgrounds", "16.04/", 60),
    Album("lomiri-wallpapers-20.04", "usr/share/backgrounds", "20.04/", 60),
    Album("ukui-wallpapers", "usr/share/backgrounds", "", 40),
    Album("endless-sky-data", "usr/share/games/endless-sky/images/land", "images/land/", 24),
    Album("endless-sky-data", "usr/share/games/endless-sky/images/scene", "images/scene/", 24),
    Album("supertuxkart-data", "usr/share/games/supertuxkart/data/textures", "data/textures/", 4),
    Album("gcompris-qt-data", "usr/share/gcompris-qt/rcc", "", 10),
)


@dataclass(frozen=True, slots=True)
class Licences:
    """A Debian copyright file in its machine-readable form: which licence each file has. The last match counts."""

    paragraphs: tuple[tuple[tuple[str, ...], str, bool], ...]

    @classmethod
    def read(cls, path: Path) -> Licences:
        """Read the file; a paragraph is its patterns, its licence's short name, and whether that is `UNCERTAIN`."""
        found = []
        for text in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            files = re.search(r"^Files:((?:.*\n)(?:[ \t].*\n)*)", text + "\n", re.MULTILINE)
            licence = re.search(r"^License:\s*(.*)$", text, re.MULTILINE)
            if files and licence:
                found.append((tuple(files.group(1).split()), licence.group(1).strip(), bool(UNCERTAIN.search(text))))
        return cls(tuple(found))

    def of(self, path: str) -> str:
        """Return the file's licence, or nothing when it is not free or not certain; its suffix may have changed."""
        names = {path, *(str(PurePosixPath(path).with_suffix(suffix)) for suffix in RASTER)}
        for patterns, licence, uncertain in reversed(self.paragraphs):
            if any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns):
                return licence if FREE.match(licence) and not uncertain else ""
        return ""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture in a file, or in a Qt resource file; `path` is relative to the album's folder."""

    file: Path
    path: str
    member: bool


@lru_cache(maxsize=48)
def read(photo: Photograph) -> Image.Image:
    """Return a photograph as RGB, its longest side at most `LARGEST`, transparent parts on white."""
    data = resources(photo.file)[photo.path]() if photo.member else photo.file.read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGBA")
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    return page.convert("RGB")


def resources(file: Path) -> dict[str, partial[bytes]]:
    """Return how to read each file in a binary Qt resource file, by its path."""
    collect = load(ROOT / "demo" / "collect.py", "demo_collect")
    data = file.read_bytes()
    version, tree, blobs, names = struct.unpack(">IIII", data[4:20])
    size = 14 if version == 1 else 22
    found: dict[str, partial[bytes]] = {}
    waiting = [("", 0)]
    while waiting:
        path, node = waiting.pop()
        start = tree + node * size
        name, flags = struct.unpack(">IH", data[start : start + 6])
        here = f"{path}/{collect.resource_name(data, names, name)}" if node else ""
        if flags & 2:  # a folder
            count, first = struct.unpack(">II", data[start + 6 : start + 14])
            waiting += [(here, child) for child in range(first, first + count)]
        else:
            (blob,) = struct.unpack(">I", data[start + 10 : start + 14])
            found[here.lstrip("/")] = partial(collect.resource_blob, data, blobs + blob, flags)
    return found


def photographs(album: Album, root: Path) -> Iterator[tuple[Photograph, str]]:
    """Yield an album's pictures with their licences, of which each is free.

    Args:
        root: the unpacked package.
    """
    licences = Licences.read(root / "usr/share/doc" / album.package / "copyright")
    folder = root / album.folder
    for file in sorted(p for p in folder.rglob("*") if p.suffix in (*RASTER, ".rcc") and not p.is_symlink()):
        member = file.suffix == ".rcc"
        paths = sorted(resources(file)) if member else [file.relative_to(folder).as_posix()]
        for path in (p for p in paths if p.endswith(RASTER)):
            licence = licences.of(album.within + path.removeprefix("gcompris/"))
            if licence:
                yield Photograph(file, path, member), licence


def square(photo: Photograph, seed: str) -> Image.Image:
    """Return a seeded square of a photograph, an eighth to all of its short side; all of it for a seed "...-0"."""
    image = read(photo)
    if seed.endswith("-0"):
        return image.copy()
    rng = random.Random(seed)
    least = min(1.0, max(0.12, 72 / min(image.size)))
    side = int(min(image.size) * rng.uniform(least, 1.0))
    left, top = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
    return image.crop((left, top, left + side, top + side))


def crops(album: Album, root: Path, held: HeldOut, left_out: frozenset[str]) -> Iterator[Item]:
    """Yield the crops of an album's photographs that are not held out, by their names, and not in demo/pictures.

    Args:
        left_out: paths inside packages.
    """
    for photo, licence in photographs(album, root):
        packed = f"{album.folder}/{photo.path}"
        if any(known.endswith(photo.path) or known == packed for known in left_out):
            continue
        named = re.split(r"[_\-\d]*_by_", PurePosixPath(photo.path).stem)[0]
        if held.part_of(re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-\d]+", " ", named)) != TRAIN or not _usable(photo):
            continue
        stem = "-".join(PurePosixPath(photo.path).with_suffix("").parts[-3:])
        for number in range(album.crops):
            seed = f"{stem}-{number}"
            make = partial(square, photo, seed)
            yield Item(f"{album.package}/{seed}", album.package, licence, TRAIN, make)


def _usable(photo: Photograph) -> bool:
    """Return whether a picture is large enough, and neither a normal map nor nearly empty nor of few colours."""
    try:
        image = read(photo)
    except (OSError, ValueError):
        return False
    small = image.resize((64, 64))
    return min(image.size) >= LEAST_SIDE and len(set(_pixels(small))) > 600


def _pixels(image: Image.Image) -> Sequence[tuple[int, int, int]]:
    data = image.tobytes()
    return [(data[i], data[i + 1], data[i + 2]) for i in range(0, len(data), 3)]
