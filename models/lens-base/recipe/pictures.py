"""Reads the data packages into one list of pictures with their texts.

Emoji in four styles, Open Clip Art, and the Tux Paint stamps (evaluation only). Knows the packages' layouts; decodes
pictures to RGBA; does not augment, split or encode.
"""

from __future__ import annotations

import csv
import gzip
import html
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py  # type: ignore[import-untyped,import-not-found,unused-ignore]
from PIL import Image
from sources import Package
from split import TRAIN, concept_of, half_of, split_of

SIDE = 256
"""Longest side in pixels at which vector pictures are drawn and to which large ones are reduced."""

EMOJICIR = Path(__file__).resolve().parents[3] / "benchmarks" / "emojicir"

SERIES = 36
"""A clip art title that more pictures than this share names a collection, not what is in the picture."""

PHOTO_FLATNESS = 0.12
"""A stamp is a photo when at most this share of its neighbouring opaque pixels are exactly equal (sensor noise)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture file and what is said of it. `texts[0]` is its caption; the others are tags and keywords.

    Pictures of one `thing` show the same; those of one `family` differ in tone, gender or hair at most.
    """

    path: Path
    source: str
    kind: str
    texts: tuple[str, ...]
    part: str
    thing: str = ""
    family: str = ""

    @property
    def caption(self) -> str:
        """The picture's own name."""
        return self.texts[0]

    @property
    def name(self) -> str:
        """A stable id: the source and the file name."""
        return f"{self.source}/{self.path.parent.name}/{self.path.name}"


def decode(path: Path) -> Image.Image:
    """Return the picture as RGBA, its longest side at most `SIDE` pixels; vectors are drawn at `SIDE`."""
    if path.suffix == ".svg":
        raw = bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=SIDE))
        image = Image.open(io.BytesIO(raw)).convert("RGBA")
    else:
        image = Image.open(path).convert("RGBA")
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    return image


def _key(hexcode: str) -> str:
    """Return a code point sequence without its variation selectors: the styles disagree about them."""
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")


def _emoji_texts(packages: dict[str, Package]) -> dict[str, tuple[str, ...]]:
    """Return label and tags by code point sequence, skin tones left out."""
    texts: dict[str, tuple[str, ...]] = {}
    data = packages["openmoji"].folder / "data" / "openmoji.json"
    for row in json.loads(data.read_text(encoding="utf-8")):
        if row["skintone"] or row["group"] in ("component",):
            continue
        tags = [tag.strip() for tag in f"{row['tags']},{row['openmoji_tags']}".split(",")]
        texts[_key(row["hexcode"])] = (row["annotation"], *(tag for tag in tags if tag))
    data = packages["emojibase-data"].folder / "en" / "data.json"
    rows: list[dict[str, Any]] = json.loads(data.read_text(encoding="utf-8"))
    for row in rows:
        key = _key(row["hexcode"])
        texts[key] = tuple(dict.fromkeys((row["label"], *row.get("tags", ()), *texts.get(key, ()))))
    return texts


def _rows() -> Iterator[dict[str, str]]:
    """Yield the rows of EmojiCIR's committed table of pictures."""
    with gzip.open(EMOJICIR / "pictures.tsv.gz", "rt", encoding="utf-8") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def toned(folder: Path) -> list[Picture]:
    """Return EmojiCIR's pictures of emoji with a skin tone that are for training, from the folder that it is built in.

    They are those whose untoned emoji are trained on and that answer no validation or test query. Outlines, which show
    no tone, are left out.
    """
    with gzip.open(EMOJICIR / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        queries = [json.loads(line) for line in lines]
    held = {name.partition("/")[2] for q in queries if q["split"] != TRAIN for name in q["answers"]}
    return [
        Picture(folder / "pictures" / row["id"], f"toned-{row['vendor']}", "drawing", (row["name"],), TRAIN,
                row["concept"], row["base"])
        for row in _rows()
        if row["encoder"] == TRAIN and row["vendor"] != "outline" and "skin tone" in row["name"]
        and row["id"].partition("/")[2] not in held
    ]  # fmt: skip


def emoji(packages: dict[str, Package]) -> list[Picture]:
    """Return the emoji of four styles; one concept has one split in all of them."""
    texts = _emoji_texts(packages)
    bases = {row["concept"]: row["base"] for row in _rows()}
    folders = {
        "emoji-google": packages["emoji-datasource-google"].folder / "img" / "google" / "64",
        "emoji-twitter": packages["emoji-datasource-twitter"].folder / "img" / "twitter" / "64",
        "emoji-fluent": packages["@lobehub/fluent-emoji-3d"].folder / "assets",
        "emoji-openmoji": packages["openmoji"].folder / "color" / "svg",
    }
    found: list[Picture] = []
    for source, folder in folders.items():
        for path in sorted(folder.iterdir()):
            named = texts.get(_key(path.stem))
            if named:
                thing = "-".join(part.zfill(4) for part in _key(path.stem).split("-"))  # as EmojiCIR writes it
                part = split_of(concept_of(named[0]))
                found.append(Picture(path, source, "drawing", named, part, thing, bases.get(thing, named[0])))
    return found


def _clipart_texts(svg: Path) -> tuple[str, ...]:
    """Return title and keywords from an Open Clip Art file's metadata, or nothing when the title is no words."""
    text = svg.read_text(encoding="utf-8", errors="replace")
    meta = text[text.find("<metadata") : text.find("</metadata")]
    title = re.search(r"<dc:title>([^<]*)</dc:title>", meta)
    keywords = [html.unescape(k).strip().lower() for k in re.findall(r"<rdf:li>([^<]*)</rdf:li>", meta)]
    name = re.sub(r"[_\-\d]+", " ", html.unescape(title.group(1)) if title else "").strip()
    name = re.sub(r"^clip ?art by (nicu buculei|francisco camenforte torres)", "", name, flags=re.IGNORECASE)
    name = re.sub(r"\s+", " ", name).strip()
    if not 3 <= len(name) <= 60 or not re.search(r"[a-zA-Z]{3}", name):
        return ()
    junk = {"", "hash", "clip_art", "unsorted", "png", "svg", "inkscape", "sodipodi"}
    return tuple(dict.fromkeys((name, *(k.replace("_", " ") for k in keywords if k not in junk and len(k) < 40))))


def clipart(packages: dict[str, Package]) -> list[Picture]:
    """Return Open Clip Art's pictures that have a title."""
    png = packages["openclipart-png"].folder / "usr/share/openclipart/png"
    svg = packages["openclipart-svg"].folder / "usr/share/openclipart/svg"
    titled: list[tuple[Path, tuple[str, ...]]] = []
    for path in sorted(png.rglob("*.png")):
        vector = (svg / path.relative_to(png)).with_suffix(".svg")
        texts = _clipart_texts(vector) if vector.is_file() else ()
        if texts:
            titled.append((path, texts))
    uses = Counter(texts[0] for _, texts in titled)
    return [
        Picture(path, "openclipart", "drawing", texts, split_of(concept_of(texts[0])), f"clip art: {texts[0]}")
        for path, texts in titled
        if uses[texts[0]] <= SERIES
    ]


def decodable(pictures: list[Picture]) -> list[Picture]:
    """Return the pictures that open; a few state no size or an absurd one and are left out.

    Only headers are read, and vectors are drawn small: decoding everything here would double the work.
    """
    kept = []
    for picture in pictures:
        try:
            if picture.path.suffix == ".svg":
                resvg_py.svg_to_bytes(svg_path=str(picture.path), width=8)
            else:
                Image.open(picture.path).close()
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        kept.append(picture)
    return kept


def flatness(image: Image.Image) -> float:
    """Return the share of horizontally neighbouring opaque pixels that are exactly equal; 1 for a flat drawing."""
    pixels = np.asarray(image.convert("RGBA"))
    opaque = pixels[..., 3] > 200
    both = opaque[:, 1:] & opaque[:, :-1]
    equal = (pixels[:, 1:, :3] == pixels[:, :-1, :3]).all(-1) & both
    return float(equal.sum() / max(int(both.sum()), 1))


def stamps(packages: dict[str, Package]) -> list[Picture]:
    """Return the Tux Paint stamps with a caption: photo, drawing, or symbol (letters, digits, traffic signs)."""
    root = packages["tuxpaint-stamps-default"].folder / "usr/share/tuxpaint/stamps"
    found: list[Picture] = []
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".png", ".svg")):
        text = path.with_suffix(".txt")
        caption = text.read_text(encoding="utf-8", errors="replace").split("\n")[0].strip() if text.is_file() else ""
        if not caption:
            continue
        if path.relative_to(root).parts[0] == "symbols":
            kind = "symbol"
        else:
            flat = path.suffix == ".svg" or flatness(Image.open(path)) > PHOTO_FLATNESS
            kind = "drawing" if flat else "photo"
        found.append(Picture(path, "stamps", kind, (caption,), half_of(caption)))
    return found
