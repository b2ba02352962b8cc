"""A bundle of which one picture is left, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pocketlens
from pocketlens.compose import METHODS
from pocketlens.lens import Lens, open_lens

ALL = ["red.png", "green.png", "blue.png", "white.png", "more/red copy.png"]


@pytest.fixture
def lens(own_bundle: Path) -> Iterator[Lens]:
    with open_lens(own_bundle, threads=1) as opened:
        yield opened


def queries(lens: Lens, pictures: Path) -> dict[str, Callable[[], list[pocketlens.Hit]]]:
    red = pictures / "red.png"
    composed = {
        f"{name}{more}": lambda name=name, extra=extra: lens.search(image=red, text="blue", method=name, **extra)
        for name, method in METHODS.items()
        if not set(method.needs) - {"text", "image"}
        for more, extra in (("", {}), (" without", {"negative": "green"}))
    }
    return {
        "text": lambda: lens.search(text="red"),
        "picture": lambda: lens.search(image=red),
        "vector": lambda: lens.search_vector(lens.encode(text="red")),
        "many": lambda: lens.search(text="red", k=1_000),
        "diverse": lambda: lens.search(text="red", diverse=True),
        "with bounds": lambda: lens.search(text="red", min_z=-100, min_margin=-2),
        **composed,
    }


def test_of_none_every_answer_is_empty(lens: Lens, pictures: Path) -> None:
    lens.remove(ALL)
    asked = queries(lens, pictures)
    assert len(asked) > 12
    assert {name: len(ask()) for name, ask in asked.items()} == dict.fromkeys(asked, 0)
    with pytest.raises(pocketlens.BadQuery, match=r"the item 'red\.png' was removed"):
        lens.similar("red.png")


@pytest.mark.parametrize("shipped", [True, False])
@pytest.mark.parametrize("compacted", [True, False])
def test_of_one_every_answer_is_that_one(lens: Lens, pictures: Path, shipped: bool, compacted: bool) -> None:
    if shipped:
        lens.remove(ALL[1:])
    else:
        lens.remove(ALL)
        lens.add([pictures / "red.png"])
    if compacted:
        lens.compact()
    asked = queries(lens, pictures)
    found = {name: [hit.id for hit in ask()] for name, ask in asked.items()}
    assert found == {name: ["red.png"] for name in asked}
    assert lens.similar("red.png") == []
