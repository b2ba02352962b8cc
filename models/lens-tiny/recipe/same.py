"""Writes which training pictures show the same emoji: `same.py --cache CACHE --pictures DIR --out FILE`.

A table with the columns file (below DIR) and thing, for `pocketlens fit distill --same`. Vendors' files are named by
code points, of which those without a skin tone get their Unicode name; emoji sets of icons are named by it already.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

from lens_base import NPM, fetch_npm, read_emoji
from training_pictures import EMOJI_LICENCES

NAMED = (
    "noto-v1", "fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "emojione", "emojione-v1",
    "emojione-monotone", "streamline-emojis",
)  # fmt: skip
"""Sets whose files are called by the Unicode name, with hyphens."""


def code_of(stem: str) -> str:
    """Return a file's code points, without variation selectors."""
    return "-".join(part for part in stem.lower().split("-") if part != "fe0f")


def slug(name: str) -> str:
    """Return a name as the icon sets write it: "Cat Face" is cat-face."""
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of fetched packages")
    parser.add_argument("--pictures", type=Path, required=True, help="the folder train/ of training_pictures.py")
    parser.add_argument("--out", type=Path, required=True, help="the table to write")
    arguments = parser.parse_args()
    packages = {name: fetch_npm(name, version, arguments.cache.resolve()) for name, version in NPM.items()}
    names = {code_of(picture.path.stem): slug(picture.texts[0]) for picture in read_emoji(packages)}
    with arguments.out.open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(["file", "thing"])
        for path in sorted(arguments.pictures.rglob("*.webp")):
            source = path.parent.name
            if source in EMOJI_LICENCES:
                code = code_of(path.stem)
                table.writerow([f"{source}/{path.name}", names.get(code, code)])
            elif source in NAMED:
                table.writerow([f"{source}/{path.name}", path.stem])


if __name__ == "__main__":
    main()
