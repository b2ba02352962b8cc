"""A picture that is still to be made, and the concepts that must not be seen."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lens_base import TEST, TRAIN, VALIDATION, concept_of, split_of
from PIL import Image

SIDE = 160
"""Longest side in pixels of every picture that is written."""

_TONE = re.compile(r"[- :]*(medium[- ])?(light|medium|dark)([- ]skin[- ]tone)?([- ]\d+)?$")
_STYLES = frozenset(
    "flat duo duotone fill filled outline outlined bold solid alt color colour line linear regular thin".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Item:
    """One picture: `name` is its file below the split's folder, without a suffix; `make` draws it (RGB or RGBA)."""

    name: str
    source: str
    licence: str
    part: str
    make: Callable[[], Image.Image]


def plain(name: str) -> str:
    """Return an icon's name as words, without skin tone and without the words that tell one style from another."""
    words = re.split(r"[^A-Za-z0-9]+", _TONE.sub("", name))
    return " ".join(word for word in words if word.lower() not in _STYLES)


def squashed(name: str) -> str:
    """Return a name's letters alone, in lower case."""
    return "".join(re.findall(r"[a-z]+", name.lower()))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What lens-base's split keeps from training: by the split's own hash, and by every name of its held-out emoji.

    Attributes:
        words: for each name of a held-out emoji, the words of its concept.
        squashed: the same names' letters, four or more.
    """

    words: frozenset[frozenset[str]]
    squashed: frozenset[str]

    def part_of(self, *names: str) -> str:
        """Return test if any of the names is held out for testing, else validation if any is, else train.

        A name is held out when its concept's hash says so.
        """
        parts = {split_of(concept_of(name)) for name in names if re.search(r"[A-Za-z]", name)}
        return next((part for part in (TEST, VALIDATION) if part in parts), TRAIN)

    def hides(self, name: str) -> bool:
        """Return whether an icon of this name may show what is held out.

        It may when its own concept is, or when it has all the words of a held-out emoji's name: "banana peel".
        """
        words = concept_of(plain(name)).split()
        some = (
            frozenset(words[i] for i in range(len(words)) if bits >> i & 1) for bits in range(1, 1 << len(words[:6]))
        )
        return self.part_of(name, plain(name)) != TRAIN or any(subset in self.words for subset in some)

    def hides_squashed(self, name: str) -> bool:
        """Return the same for a name that is written without spaces: "bananapeel"."""
        letters = squashed(name)
        return self.hides(name) or any(known in letters for known in self.squashed)


def held_out(emoji: Iterable[Any], shortcodes: Iterable[str]) -> HeldOut:
    """Return what is held out, from lens-base's emoji and from emojibase's files of other names for them."""
    hidden = {_code(picture.path.stem): picture.texts[0] for picture in emoji if picture.part != TRAIN}
    names = set(hidden.values())
    for text in shortcodes:
        known: dict[str, str | list[str]] = json.loads(text)
        for code, given in known.items():
            if _code(code) in hidden:
                names.update([given] if isinstance(given, str) else given)
    spoken = {name.replace("_", " ") for name in names}
    words = frozenset(frozenset(concept_of(name).split()) for name in spoken)
    return HeldOut(words, frozenset(letters for name in spoken if len(letters := squashed(name)) >= 4))


def _code(hexcode: str) -> str:
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")
