"""lens-tiny's recipe: what is held out stays out, licences that are not free are seen, what is too large stays."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from pocketlens.errors import EncoderMismatch, FormatError, Refused
from pocketlens.inspect import verify
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, MANIFEST, VERSION, Model, Space
from tests.colours import write_colours

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
    yield {name: importlib.import_module(name) for name in ("items", "lens_base", "photographs", "ship_tiny")}
    sys.path.remove(str(RECIPE))
    for name in ("items", "lens_base", "photographs", "ship_tiny", "sources", "split"):
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


@pytest.fixture
def small(colours: Path, tmp_path: Path) -> Path:
    """A query model of the colours' space: their image tower."""
    source = Model.open(colours)
    manifest = dataclasses.replace(source.manifest.only("image"), name="small", quality={"image_cosine_mean": 0.99})
    (tmp_path / "small").mkdir()
    for name in manifest.files:
        shutil.copyfile(source.file(name), tmp_path / "small" / name)
    write_manifest(tmp_path / "small" / MANIFEST, manifest, format=FORMAT, version=VERSION)
    return tmp_path / "small"


def results(model: Path) -> dict[str, Any]:
    """What `pocketlens eval asymmetric` writes, as far as it is read."""

    def row(kind: str, label: str, figure: str, value: float, share: float) -> dict[str, Any]:
        parts = {"all": {"figures": {figure: {"value": value}}, "of_heavy": {figure: {"value": share}}}}
        return {"kind": kind, "query": label, "method": "sum", "parts": parts}

    image = Model.open(model).manifest.files["image.onnx"].sha256
    rows = [row("heavy-heavy", "heavy", "R@10", 80.0, 100.0), row("light-light", "small #2", "R@10", 60.0, 75.0)]
    rows += [row("light-heavy", "other", "R@10", 40.0, 50.0), row("light-heavy", "small #2", "R@10", 76.0, 95.0)]
    return {
        "split": "test",
        "models": [
            {"label": "small #1", "role": "heavy", "image_sha256": image, "latency_of_heavy": 1.0},
            {"label": "small #2", "role": "query", "image_sha256": image, "latency_of_heavy": 0.25},
        ],
        "sets": [
            {"asked": "picture", "rows": rows},
            {"asked": "text", "rows": [row("light-heavy", "small #2", "R@10", 1.0, 2.0)]},
        ],
        "composed": [row("", "heavy", "mAP@10", 12.0, 100.0), row("", "small #2", "mAP@10", 10.8, 90.0)],
    }


def ship(recipe: dict[str, ModuleType], small: Path, heavy: Path, told: dict[str, Any]) -> Path:
    measured, out = small.parent / "measured.json", small.parent / "out"
    measured.write_text(json.dumps(told))
    recipe["ship_tiny"].ship(small, measured, out, heavy=Model.open(heavy))
    return out


def test_what_ships_has_the_figures_that_were_measured_of_it(
    recipe: dict[str, ModuleType], small: Path, colours: Path
) -> None:
    out = ship(recipe, small, colours, results(small))
    verify(out)
    assert Model.open(out).manifest.quality == {
        "asymmetric_latency_of_heavy": 0.25,
        "asymmetric_test_recall_at_10": 0.76,
        "asymmetric_test_of_heavy_recall_at_10": 0.95,
        "asymmetric_test_composed_sum_map_at_10": 0.108,
        "asymmetric_test_composed_sum_of_heavy_map_at_10": 0.9,
        "image_cosine_mean": 0.99,
    }


def test_what_is_too_large_too_slow_or_of_another_space_does_not_ship(
    recipe: dict[str, ModuleType], small: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = results(small)
    slow, unknown, chosen_by = (copy.deepcopy(told) for _ in range(3))
    slow["models"][1]["latency_of_heavy"] = 0.334
    unknown["models"][1]["image_sha256"] = "0" * 64
    chosen_by["split"] = "validation"
    for harmed, error, match in (
        (slow, Refused, "takes 0.334 of the heavy model's time"),
        (unknown, FormatError, "no query model has the image tower"),
        (chosen_by, FormatError, "split is 'validation', expected 'test'"),
    ):
        with pytest.raises(error, match=match):
            ship(recipe, small, colours, harmed)
    with pytest.raises(Refused, match="has a text tower"):
        ship(recipe, colours, colours, told)
    elsewhere = write_colours(tmp_path / "elsewhere", space=Space("elsewhere@" + "5" * 64, 4))
    with pytest.raises(EncoderMismatch, match="elsewhere@"):
        ship(recipe, small, elsewhere, told)
    monkeypatch.setattr(recipe["ship_tiny"], "MAX_BYTES", (small / "image.onnx").stat().st_size - 1)
    with pytest.raises(Refused, match="expected at most"):
        ship(recipe, small, colours, told)
    assert not (tmp_path / "out").exists()
