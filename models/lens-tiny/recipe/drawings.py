"""Drawings to learn on: emoji with skin tones, Open Clip Art, icon sets, and drawings pasted on photographs."""

from __future__ import annotations

import html
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import resvg_py  # type: ignore[import-untyped,import-not-found,unused-ignore]
from items import SIDE, HeldOut, Item, plain
from lens_base import TRAIN
from PIL import Image

SERIES = 36
"""A title or keyword of more clip art than this names a collection, as in lens-base's recipe."""

COLOURED = {
    "noto-v1": "1.2.5",
    "fxemoji": "1.2.2",
    "emojione": "1.2.3",
    "emojione-v1": "1.2.3",
    "fluent-emoji": "1.2.7",
    "fluent-emoji-flat": "1.2.6",
    "streamline-emojis": "1.2.4",
    "streamline-color": "1.2.2",
    "streamline-plump-color": "1.2.2",
    "streamline-flex-color": "1.2.2",
    "streamline-sharp-color": "1.2.2",
    "streamline-ultimate-color": "1.2.2",
    "streamline-freehand-color": "1.2.2",
    "streamline-cyber-color": "1.2.2",
    "streamline-kameleon-color": "1.2.2",
    "streamline-stickies-color": "1.2.2",
    "flat-color-icons": "1.2.3",
    "fluent-color": "1.2.21",
    "meteocons": "1.2.4",
    "icon-park": "1.2.4",
}
"""Icon sets in colours, as npm packages "@iconify-json/NAME". Sets of brands' marks are left out."""

PLAIN = {
    "game-icons": "1.2.4",
    "fluent-emoji-high-contrast": "1.2.6",
    "emojione-monotone": "1.2.1",
    "fa6-solid": "1.2.4",
    "healthicons": "1.2.13",
    "temaki": "1.2.6",
    "maki": "1.2.5",
    "ph": "1.2.2",
    "mdi": "1.2.3",
    "lucide": "1.2.137",
}
"""Icon sets of one colour, which is drawn at random."""

LARGE = 2000
"""At most so many pictures of a set of one colour."""

RUN_TOGETHER = ("fxemoji",)
"""Sets whose names have no spaces."""

FREE = re.compile(r"(MIT|ISC|Apache-2\.0|CC0-1\.0|CC-BY(-SA)?-[1-4]\.0)$")


def read_file(path: Path) -> Image.Image:
    """Return a picture file as RGBA; vectors are drawn at `SIDE`."""
    if path.suffix == ".svg":
        return draw(path.read_text(encoding="utf-8", errors="replace"))
    with Image.open(path) as image:
        return image.convert("RGBA")


def draw(svg: str) -> Image.Image:
    """Return an SVG drawn `SIDE` pixels wide, as RGBA."""
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE)))).convert("RGBA")


def emoji(pictures: Sequence[Any], licences: dict[str, str]) -> Iterator[Item]:
    """Yield lens-base's emoji of four vendors, and the same with skin tones, which have the split of the untoned."""
    parts = {_untoned(picture.path.stem): picture.part for picture in pictures}
    folders = {picture.source: picture.path.parent for picture in pictures}
    for source, folder in folders.items():
        for path in sorted(folder.iterdir()):
            part = parts.get(_untoned(path.stem))
            if part:
                yield Item(f"{source}/{path.stem}", source, licences[source], part, partial(read_file, path))


def _untoned(hexcode: str) -> str:
    """Return a code point sequence without skin tones and variation selectors."""
    return "-".join(part for part in hexcode.upper().split("-") if not re.fullmatch("FE0F|1F3F[B-F]", part))


def clipart(png: Path, svg: Path, held: HeldOut, left_out: frozenset[str]) -> Iterator[Item]:
    """Yield Open Clip Art, without the files whose title, file name or own keywords are held out.

    Args:
        png, svg: the two packages' picture folders.
        left_out: vectors, relative to `svg`, that are in demo/pictures.
    """
    spoken = {path: _spoken(path) for path in sorted(svg.rglob("*.svg"))}
    uses = Counter(name for names in spoken.values() for name in names)
    for path, names in spoken.items():
        drawn = (png / path.relative_to(svg)).with_suffix(".png")
        if not drawn.is_file() or path.relative_to(svg).as_posix() in left_out:
            continue
        own = [name for name in names if uses[name] <= SERIES]
        part = held.part_of(re.sub(r"[_\-\d]+", " ", path.stem), *own)
        name = "-".join(path.relative_to(svg).with_suffix("").parts)
        yield Item(f"openclipart/{name}", "openclipart", "public domain", part, partial(read_file, drawn))


def _spoken(svg: Path) -> set[str]:
    """Return the title and the keywords in a file's metadata."""
    text = svg.read_text(encoding="utf-8", errors="replace")
    meta = text[text.find("<metadata") : text.find("</metadata")]
    found = re.findall(r"<(?:dc:title|rdf:li)>([^<]*)</", meta)
    return {re.sub(r"[_\-\d\s]+", " ", html.unescape(name)).strip().lower() for name in found} - {""}


def icons(package: Path, held: HeldOut, *, coloured: bool, rng: random.Random) -> Iterator[Item]:
    """Yield an icon set's pictures whose names show nothing held out; all of them are for training.

    Raises:
        ValueError: its licence is none of `FREE`.
    """
    about = json.loads((package / "info.json").read_text(encoding="utf-8"))
    licence = about["license"]["spdx"]
    if not FREE.match(licence):
        raise ValueError(f"{package}: its licence is {licence}, expected one that matches {FREE.pattern}")
    data = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    hides = held.hides_squashed if data["prefix"] in RUN_TOGETHER else held.hides
    bodies = {name: icon for name, icon in data["icons"].items() if not icon.get("hidden") and not hides(name)}
    names = _one_size(bodies)
    if not coloured:
        names = rng.sample(names, min(len(names), LARGE))
    for name in names:
        icon, source = bodies[name], data["prefix"]
        width, height = (icon.get(key, data.get(key, 16)) for key in ("width", "height"))
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        colour = (
            "black" if coloured else f"hsl({rng.randrange(360)}, {rng.randrange(20, 100)}%, {rng.randrange(8, 60)}%)"
        )
        body = icon["body"].replace("currentColor", colour)
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}">'
        yield Item(f"{source}/{name}", source, licence, TRAIN, partial(draw, f"{svg}{body}</svg>"))


def _one_size(names: dict[str, Any]) -> list[str]:
    """Return the names, only the last of those that differ in a number or in style alone."""
    return sorted({plain(re.sub(r"-\d+\b", "", name)) or name: name for name in sorted(names)}.values())


def paste(
    drawing: Callable[[], Image.Image], ground: Callable[[], Image.Image], place: tuple[float, float, float, float]
) -> Image.Image:
    """Return a drawing on a photograph's crop, as RGB.

    Args:
        place: the drawing's longest side as a share of the ground's, its angle in degrees, and where it lies between
            left and right, and between top and bottom, from 0 to 1.
    """
    share, angle, across, down = place
    page = ground().convert("RGB")
    image = drawing().rotate(angle, Image.Resampling.BICUBIC, expand=True)
    image = image.crop(image.getbbox())
    scale = share * max(page.size) / max(image.size)
    image = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC
    )
    corner = (round((page.width - image.width) * across), round((page.height - image.height) * down))
    page.paste(image, corner, image.getchannel("A"))
    return page


def composites(drawings: Sequence[Item], grounds: Sequence[Item], count: int, rng: random.Random) -> Iterator[Item]:
    """Yield `count` drawings on photographs' crops, all of them for training."""
    for number in range(count):
        drawing, ground = rng.choice(drawings), rng.choice(grounds)
        place = (rng.uniform(0.35, 0.95), rng.uniform(-20, 20), rng.random(), rng.random())
        licence = " and ".join(sorted({drawing.licence, ground.licence}))
        make = partial(paste, drawing.make, ground.make, place)
        yield Item(f"composite/{number:05d}", "composite", licence, TRAIN, make)
