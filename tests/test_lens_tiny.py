"""lens-tiny's recipe: what is held out stays out, a licence that is not free is seen, and squares are seeded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

RECIPE = Path(__file__).parents[1] / "models" / "lens-tiny" / "recipe"
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: some pictures

Files: *
Copyright: everybody
License: GPL-2+

Files: images/land/*
Copyright: Various
License: public-domain
 Taken from morguefile.com.

Files: images/land/sky*
 images/land/fog?.jpg
Copyright: somebody
License: CC-BY-SA-3.0

Files: images/land/sky-nc.jpg
Copyright: somebody
License: CC-BY-NC-4.0

License: CC-BY-SA-3.0
 the whole text
"""


@dataclass(frozen=True)
class Emoji:
    """What lens-base's recipe tells of an emoji."""

    path: Path
    texts: tuple[str, ...]
    part: str


@pytest.fixture(scope="module")
def recipe() -> Iterator[dict[str, ModuleType]]:
    """The recipe's modules that need nothing beyond Pillow, imported as its script imports them."""
    sys.path.insert(0, str(RECIPE))
    before = set(sys.modules)
    import items  # type: ignore[import-not-found,unused-ignore]
    import lens_base  # type: ignore[import-not-found,unused-ignore]
    import photographs  # type: ignore[import-not-found,unused-ignore]

    yield {"items": items, "lens_base": lens_base, "photographs": photographs}
    sys.path.remove(str(RECIPE))
    for name in set(sys.modules) - before:
        del sys.modules[name]


def name_in(recipe: dict[str, ModuleType], part: str, names: list[str]) -> str:
    """Return the first of the names whose concept is in a part of lens-base's split."""
    base = recipe["lens_base"]
    return next(name for name in names if base.split_of(base.concept_of(name)) == part)


def test_licences_are_those_of_the_last_paragraph_that_matches(recipe: dict[str, ModuleType], tmp_path: Path) -> None:
    (tmp_path / "copyright").write_text(COPYRIGHT)
    licences = recipe["photographs"].Licences.read(tmp_path / "copyright")
    told = {
        "images/land/sky1.jpg": "CC-BY-SA-3.0",
        "images/land/fog2.jpg": "CC-BY-SA-3.0",
        "images/land/fog2.webp": "CC-BY-SA-3.0",  # shipped in another format than the source
        "images/land/fog22.jpg": "",  # from a site whose terms do not allow passing on
        "images/land/sky-nc.jpg": "",
        "images/ship/a.png": "",  # GPL
    }
    assert {path: licences.of(path) for path in told} == told


def test_an_emoji_that_is_held_out_hides_icons_of_all_its_names(recipe: dict[str, ModuleType]) -> None:
    fruit = ["apple", "banana", "cherry", "grape", "kiwi", "lemon", "mango", "melon", "peach", "pear", "plum", "fig"]
    known, hidden = (name_in(recipe, part, fruit) for part in ("train", "validation"))
    emoji = [Emoji(Path("1f34c.svg"), (hidden,), "validation"), Emoji(Path("1f34e.svg"), (known,), "train")]
    codes = json.dumps({"1F34C-FE0F": ["zzyellow_treat", hidden], "1F34E": "zzround_treat"})
    held = recipe["items"].held_out(emoji, [codes])
    assert held.words == {frozenset({hidden}), frozenset({"treat", "zzyellow"})}
    for name in (f"{hidden}-flat", f"{hidden}s-2", f"half-of-a-{hidden}-and-knife", "zzyellow-treat-dark-skin-tone"):
        assert held.hides(name), name
    assert held.hides_squashed(f"big{hidden}bite")
    assert not held.hides(f"{known}-flat") and not held.hides_squashed(known)


def test_a_name_is_held_out_by_lens_bases_own_split(recipe: dict[str, ModuleType]) -> None:
    held = recipe["items"].held_out([], [])
    words = [f"{a}{b}" for a in ("boat", "horse", "ladder", "violin") for b in ("house", "man", "like", "less")]
    names = {part: name_in(recipe, part, words) for part in ("train", "test")}
    assert held.part_of(names["train"]) == "train"
    assert held.part_of(names["train"], names["test"], "17") == "test"
    assert held.hides(f"{names['test']}-outline") and not held.hides(f"{names['train']}-outline")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("man-running-medium-dark-skin-tone", "man running"),
        ("judge-medium-light", "judge"),
        ("waving hand: light skin tone", "waving hand"),
        ("cloud-1-flat", "cloud 1"),
        ("house-duotone", "house"),
    ],
)
def test_names_lose_skin_tone_and_style(recipe: dict[str, ModuleType], name: str, plain: str) -> None:
    assert recipe["items"].plain(name) == plain


def test_squares_are_the_same_for_the_same_seed(recipe: dict[str, ModuleType], tmp_path: Path) -> None:
    picture = Image.effect_noise((400, 300), 90).convert("RGB")
    picture.save(tmp_path / "noise.png")
    photo = recipe["photographs"].Photograph(tmp_path / "noise.png", "noise.png", False)
    square = recipe["photographs"].square
    assert square(photo, "noise-0").tobytes() == picture.tobytes()
    first, again, other = (square(photo, seed) for seed in ("noise-1", "noise-1", "noise-2"))
    assert first.tobytes() == again.tobytes()
    assert (first.size, first.tobytes()) != (other.size, other.tobytes())
    assert 72 <= first.width == first.height <= 300
