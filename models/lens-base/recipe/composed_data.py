"""Writes what lens-base's inversion networks and vocabulary are fitted on: `composed_data.py --cache DIR --out DIR`.

    texts.txt.gz   for LinCIR and SEARLE: emoji names and tags, clip art titles, WordNet's glosses and examples
    names.txt      the vocabulary: frequent nouns of WordNet, ImageNet's class names, emoji names
    pictures/      for Pic2Word and SEARLE: emoji and clip art, as PNG on white

Of the emoji, only those whose base EmojiCIR has in its train part are used, in texts, names and pictures; clip art
whose title is the concept of another emoji is left out. Everything is sorted and seeded.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from features import on_colour
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from pictures import Picture, clipart, decodable, decode, emoji
from sources import Package, fetch_all, fetch_debian
from split import concept_of

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from emojicir.names import Concept, key_of, read_concepts
from emojicir.split import TRAIN

SEED = 0
GLOSSES = 30_000
LEAST_USES = 2
"""A noun is frequent when WordNet's own texts are tagged with it at least so often."""

_QUOTED = re.compile(r'"([^"]+)"')


def read_emoji(packages: dict[str, Package]) -> tuple[list[dict[str, Any]], dict[str, Concept]]:
    """Return emojibase's rows, and EmojiCIR's concepts by key: those rows and OpenMoji's own emoji."""
    path = packages["emojibase-data"].folder / "en" / "data.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    extras = json.loads((packages["openmoji"].folder / "data" / "openmoji.json").read_text(encoding="utf-8"))
    return rows, read_concepts(rows, extras)


def train_rows(rows: list[dict[str, Any]], concepts: dict[str, Concept]) -> list[dict[str, Any]]:
    """Return the rows of EmojiCIR's train part, without components such as hair alone."""
    return [row for row in rows if "group" in row and concepts[key_of(row["hexcode"])].split == TRAIN]


def emoji_texts(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield names, toned names in several words, and names with tags."""
    for row in rows:
        label = row["label"]
        yield from (label, f"a photo of {label}", f"a drawing of {label}", f"a black outline drawing of {label}")
        for tag in row.get("tags", ()):
            yield from (f"{label}, {tag}", f"a photo of {label} that is {tag}")
        for skin in row.get("skins", ()):
            name, _, tone = skin["label"].partition(": ")
            yield from (skin["label"], f"a photo of {name} that has {tone}", f"{name} with {tone}")


def wordnet_lines(package: Package) -> Iterator[tuple[list[str], str]]:
    """Yield the fields and the gloss of every synset."""
    folder = package.folder / "usr" / "share" / "wordnet"
    for kind in ("adj", "adv", "noun", "verb"):
        for line in (folder / f"data.{kind}").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                fields, _, gloss = line.partition(" | ")
                yield fields.split(), gloss.strip()


def wordnet_texts(package: Package) -> Iterator[str]:
    """Yield definitions and examples of 3 to 12 words."""
    for _, gloss in wordnet_lines(package):
        examples = _QUOTED.findall(gloss)
        definitions = _QUOTED.sub("", gloss).split(";")
        for text in (*definitions, *examples):
            plain = re.sub(r"\([^)]*\)", "", text).strip(" ;:-")
            if 3 <= len(plain.split()) <= 12:
                yield " ".join(plain.split())


def wordnet_nouns(package: Package) -> Iterator[str]:
    """Yield nouns that WordNet's own texts are tagged with at least `LEAST_USES` times, without proper names."""
    index = package.folder / "usr" / "share" / "wordnet" / "cntlist.rev"
    uses: dict[str, int] = {}
    for line in index.read_text(encoding="utf-8").splitlines():
        sense, _, count = line.split()
        lemma, _, place = sense.partition("%")
        if place.startswith("1:"):  # a noun
            uses[lemma] = uses.get(lemma, 0) + int(count)
    yield from (lemma.replace("_", " ") for lemma, count in sorted(uses.items()) if count >= LEAST_USES)


def left_out(concepts: dict[str, Concept]) -> set[str]:
    """Return what lens-base's recipe reads from the untoned names of EmojiCIR's validation and test parts."""
    return {concept_of(c.name) for c in concepts.values() if c.tone == 0 and c.split != TRAIN}


def training_pictures(packages: dict[str, Package], hidden: set[str]) -> list[Picture]:
    """Return emoji and clip art whose concept is not among `hidden`."""
    return [p for p in decodable(emoji(packages) + clipart(packages)) if concept_of(p.caption) not in hidden]


def write_pictures(pictures: list[Picture], folder: Path) -> None:
    """Write pictures as PNG on white, at most 128 pixels long, by source."""
    for picture in pictures:
        image = on_colour(decode(picture.path))
        image.thumbnail((128, 128))
        path = folder / picture.source / f"{picture.path.parent.name}-{picture.path.stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def write(cache: Path, out: Path) -> None:
    """Write the three."""
    packages, wordnet = fetch_all(cache), fetch_debian("wordnet-base", cache)
    every_row, concepts = read_emoji(packages)
    rows = train_rows(every_row, concepts)
    pictures = training_pictures(packages, left_out(concepts))
    out.mkdir(parents=True, exist_ok=True)
    glosses = sorted(set(wordnet_texts(wordnet)))
    random.Random(SEED).shuffle(glosses)
    titles = (picture.caption for picture in pictures if picture.source == "openclipart")
    texts = dict.fromkeys([*emoji_texts(rows), *titles, *glosses[:GLOSSES]])
    (out / "texts.txt.gz").write_bytes(gzip.compress("\n".join(texts).encode(), mtime=0))
    names = dict.fromkeys(
        [*(row["label"] for row in rows), *IMAGENET_CLASSNAMES, *wordnet_nouns(wordnet)],
    )
    (out / "names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    write_pictures(pictures, out / "pictures")
    print(f"{len(texts)} texts, {len(names)} names, {len(pictures)} pictures")


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of fetched packages")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    write(arguments.cache.resolve(), arguments.out.resolve())


if __name__ == "__main__":
    main()
