"""Which towers a bundle gets, and from which of two models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from pocketlens._types import Float32s
from pocketlens.bundle import Tower
from pocketlens.encoder import TextEncoder
from pocketlens.model import Model

_SUBJECTS = ("dog", "cat", "child", "woman", "man", "car", "bicycle", "house", "tree", "flower", "boat", "train",
             "meal", "cup", "bird", "mountain")  # fmt: skip
_SETTINGS = ("at night", "in the rain", "on a beach", "in the snow", "from above", "close up", "in a kitchen",
             "in a street", "at sunset")  # fmt: skip


def choose_towers(query_model: Model, model: Model) -> list[tuple[Tower, Model]]:
    """Return where each tower comes from: the query model if it has it, but a text tower that can take texts first."""
    sources = (query_model, model)
    texts = [source for source in sources if source.manifest.text is not None]
    texts.sort(key=lambda source: not source.manifest.can_read)
    images = [source for source in sources if source.manifest.image is not None]
    towers: list[tuple[Tower, Model]] = [("text", source) for source in texts[:1]]
    return [*towers, *(("image", source) for source in images[:1])]


def check_towers(towers: Sequence[tuple[Tower, Model]]) -> None:
    """Raise `CorruptFile` if a file that the bundle will get is damaged."""
    for tower, source in towers:
        for name in source.manifest.only(tower).files:
            source.file(name)


def text_probes(towers: Sequence[tuple[Tower, Model]]) -> Float32s | None:
    """Return encoded everyday texts to tune a search on, float32 (144, dim); None when none can be encoded."""
    for tower, source in towers:
        if tower == "text" and source.manifest.can_read:
            return TextEncoder(source).encode([f"a photo of a {a} {b}" for a, b in product(_SUBJECTS, _SETTINGS)])
    return None
