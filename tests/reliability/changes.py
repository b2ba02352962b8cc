"""Changes of a bundle and what plain Python says comes of them: a state is the colour of each item by its id.

Pictures are of one colour, for which the tower of tests/colours.py can be worked out by hand.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import numpy as np
from PIL import Image

from pocketlens._types import Float32s
from pocketlens.additions import BATCH
from pocketlens.contents import Contents
from pocketlens.lens import Lens

Colour: TypeAlias = tuple[int, int, int]
State: TypeAlias = dict[str, Colour]
Change: TypeAlias = tuple[
    str, Any
]  # what `perform` takes: "add" {id: colour}, "remove" [id, …], "compact", "apply" Update

BIAS = 0.2
STORED = 2e-3  # a vector of four float16 numbers, and its cosine, are off by less
QUERIES = np.array([[1, 0, 0, 0.2], [0, 1, 0.5, 0.2], [0.3, 0.2, 1, 0.2], [1, 1, 1, 0]], dtype=np.float32)


class Update(TypedDict):
    """An update of the shipped pictures: its file, what it brings, and what it takes away."""

    file: str
    brings: State
    takes: list[str]


@cache
def picture(colour: Colour) -> bytes:
    """Return a PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "png")
    return file.getvalue()


@cache
def sha256(colour: Colour) -> str:
    """Return the hash of that file."""
    return hashlib.sha256(picture(colour)).hexdigest()


def vector(colour: Colour) -> Float32s:
    """Return what the image tower makes of it, float32 (4,)."""
    found = np.array([*(value / 255 for value in colour), BIAS], dtype=np.float32)
    return np.asarray(found / np.linalg.norm(found))


def steps(state: State, change: Change) -> list[State]:
    """Return the state after each step of a change, the last of them after all; each step is kept whole or not at all.

    A change that is refused has no steps.
    """
    kind, what = change
    if kind == "add":
        found, items = [], list(what.items())
        for start in range(0, len(items), BATCH):
            state = {**state, **dict(items[start : start + BATCH])}
            found.append(state)
        return found
    if kind == "remove":
        if not set(what) <= set(state):
            return []
        return [{id: colour for id, colour in state.items() if id not in what}]
    if kind == "apply":  # of pictures that the device has not touched
        return [{**{id: colour for id, colour in state.items() if id not in what["takes"]}, **what["brings"]}]
    return [state] if state else []


def perform(lens: Lens, change: Change, done: Callable[[], None] = lambda: None) -> None:
    """Make a change, and call `done` after each step of it."""
    kind, what = change
    if kind == "add":
        pictures = {id: picture((int(colour[0]), int(colour[1]), int(colour[2]))) for id, colour in what.items()}
        lens.add(pictures, on_progress=lambda number, total: done())
        return
    if kind == "remove":
        lens.remove(what)
    elif kind == "apply":
        lens.apply(what["file"])
    else:
        lens.compact()
    done()


def draw(rng: random.Random, state: State, kind: str) -> Change:
    """Return a random change of a kind that is not refused."""
    if kind == "remove" and len(state) > 3:
        return ("remove", rng.sample(sorted(state), rng.randint(1, min(len(state) - 2, 4))))
    if kind == "compact":
        return ("compact", None)
    ids = rng.sample([f"{number}.png" for number in range(60)], rng.choice([1, 2, 5, 20]))
    return ("add", {id: (rng.randrange(256), rng.randrange(256), rng.randrange(256)) for id in ids})


def observe(contents: Contents) -> dict[str, str]:
    """Return the sha256 of each item by id, as the bundle tells it."""
    return {item.id: item.sha256 for item in contents.read_all()}


def hashes(state: State) -> dict[str, str]:
    """Return the sha256 of each item by id, as it should be."""
    return {id: sha256(colour) for id, colour in state.items()}


def wrong_answers(lens: Lens, state: State, *, k: int = 10, where: Mapping[str, Any] | None = None) -> list[str]:
    """Return what a bundle answers wrongly when it is in this state, or holds these items that `where` lets through."""
    wrong = []
    for query in QUERIES:
        hits = lens.search_vector(query, k=k, where=where)
        wrong += wrong_hits([(hit.id, hit.cosine) for hit in hits], query, state, k=k)
    return wrong


def wrong_hits(hits: Sequence[tuple[str, float]], query: Float32s, state: State, *, k: int) -> list[str]:
    """Return what is wrong with hits, (id, cosine) each, best first."""
    unit = query / np.linalg.norm(query)
    cosines = {id: float(vector(colour) @ unit) for id, colour in state.items()}
    ids = [id for id, _ in hits]
    if len(ids) != min(k, len(state)) or len(set(ids)) != len(ids) or not set(ids) <= set(state):
        return [f"{len(ids)} hits {ids} of {len(state)} items"]
    best = sorted(cosines.values(), reverse=True)[: len(ids)]
    off = [f"{id}: {cosine} at {cosines[id]}" for id, cosine in hits if abs(cosine - cosines[id]) > STORED]
    misplaced = [
        f"{id}: not {at}" for (id, _), at in zip(hits, best, strict=True) if abs(cosines[id] - at) > 2 * STORED
    ]
    return off + misplaced


def left_beside(bundle: Path) -> list[str]:
    """Return what lies beside a bundle, or in it, that should not be there."""
    inside = [path.relative_to(bundle).as_posix() for path in bundle.rglob(".*")]
    return inside + [path.name for path in bundle.parent.iterdir() if path != bundle]
