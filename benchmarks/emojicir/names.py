"""From Unicode names to structure: which emoji are one concept but for skin tone, gender or hair.

A concept is a code point sequence without variation selectors. What is shared by its genders is its stem ("running",
"scientist", "person: red hair"); its base is the stem without hair, and decides its split. Its root is the same emoji
without a skin tone, and decides in which split lens-base had it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from emojicir.lens_base import split_of_label
from emojicir.split import TRAIN, part_of

TONES = ("none", "light", "medium-light", "medium", "medium-dark", "dark")
"""Values of skin tone; a concept's `tone` is an index into it, or MIXED."""

MIXED = -1
"""The tone of a group whose members differ in theirs."""

GENDERS = ("person", "woman", "man")
COUPLES = ("people", "women", "men", "woman and man")

_IRREGULAR = {
    "merperson": ("merperson", "person"),
    "mermaid": ("merperson", "woman"),
    "merman": ("merperson", "man"),
    "person with crown": ("with crown", "person"),
    "princess": ("with crown", "woman"),
    "prince": ("with crown", "man"),
    "baby": ("baby", "person"),
    "child": ("child", "person"),
    "girl": ("child", "woman"),
    "boy": ("child", "man"),
    "older person": ("older person", "person"),
    "old woman": ("older person", "woman"),
    "old man": ("older person", "man"),
    "Mx Claus": ("Claus", "person"),
    "Mrs. Claus": ("Claus", "woman"),
    "Santa Claus": ("Claus", "man"),
    "deaf person": ("deaf person", "person"),
    "deaf woman": ("deaf person", "woman"),
    "deaf man": ("deaf person", "man"),
    "pregnant person": ("pregnant person", "person"),
    "pregnant woman": ("pregnant person", "woman"),
    "pregnant man": ("pregnant person", "man"),
    "woman and man holding hands": ("couple holding hands", "woman and man"),
    "kiss": ("couple kissing", "people"),
    "couple with heart": ("couple with heart", "people"),
}
_PAIRED = {"woman, man": "woman and man", "man, man": "men", "woman, woman": "women"}
_HAIR = re.compile(r": (red hair|curly hair|white hair|blond hair|bald|beard)$")


@dataclass(frozen=True, slots=True)
class Concept:
    """An emoji: its name with all qualifiers, and what the name says. `gender` is "" where it has none.

    `split` is EmojiCIR's, `encoder` the split in which lens-base had the untoned emoji.
    """

    key: str
    name: str
    root: str
    stem: str
    gender: str
    tone: int
    split: str
    encoder: str

    @property
    def base(self) -> str:
        """The name without tone, gender and hair."""
        return _bare(self.stem)

    @property
    def seen(self) -> bool:
        """Whether lens-base was trained on the untoned emoji."""
        return self.encoder == TRAIN


def _bare(stem: str) -> str:
    """Return a stem without hair."""
    return _HAIR.sub("", stem)


def key_of(hexcode: str) -> str:
    """Return a code point sequence in one spelling: the vendors differ in case, separators, zeros and selectors."""
    parts = hexcode.upper().replace("_", "-").split("-")
    return "-".join(part.zfill(4) for part in parts if part != "FE0F")


def stem_of(label: str, labels: frozenset[str]) -> tuple[str, str]:
    """Return stem and gender of an untoned emoji; `labels` are all of them, as "cook" is neutral if a "man cook" is."""
    if label in _IRREGULAR:
        return _IRREGULAR[label]
    couple = re.fullmatch(r"(kiss|couple with heart): (.+)", label)
    if couple:
        return ("couple kissing" if couple[1] == "kiss" else couple[1]), _PAIRED[couple[2]]
    group = re.fullmatch(r"(people|women|men) (.+)", label)
    if group and {f"women {group[2]}", f"men {group[2]}"} <= labels:
        return f"couple {group[2]}", group[1]
    one = re.fullmatch(r"(person|woman|man)(:? ?)(.*)", label)
    if one and one[2] in ("", " ", ": ") and bool(one[2]) == bool(one[3]):
        gender, joint, rest = one.groups()
        hair = joint == ": " or not rest
        return (f"person{joint}{rest}" if hair else rest), gender
    return label, ("person" if {f"woman {label}", f"man {label}"} <= labels else "")


def base_of(label: str, labels: frozenset[str]) -> str:
    """Return the base of an untoned emoji of Unicode: its name without gender and hair; `labels` are all of them."""
    return _bare(stem_of(label, labels)[0])


def part_of_label(label: str, labels: frozenset[str]) -> str:
    """Return train, validation or test: EmojiCIR's split of an untoned emoji of Unicode, which is that of its base."""
    return part_of(base_of(label, labels))


def _toned(row: Mapping[str, Any]) -> Iterable[tuple[str, str, int]]:
    for skin in row.get("skins", ()):
        tone = skin["tone"]
        yield key_of(skin["hexcode"]), skin["label"], tone if isinstance(tone, int) else MIXED


def read_concepts(
    emojibase: Iterable[Mapping[str, Any]], openmoji: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Concept]:
    """Return every concept by key. `emojibase` names the emoji of Unicode, `openmoji` adds the others that it draws."""
    rows = list(emojibase)
    labels = frozenset(row["label"] for row in rows)
    found: dict[str, Concept] = {}
    for row in rows:
        root, label = key_of(row["hexcode"]), row["label"]
        stem, gender = stem_of(label, labels)
        split, encoder = part_of_label(label, labels), split_of_label(label)
        for key, name, tone in ((root, label, 0), *_toned(row)):
            found[key] = Concept(key, name, root, stem, gender, tone, split, encoder)
    for row in openmoji:
        key, label = key_of(row["hexcode"]), row["annotation"]
        if key not in found and not row["skintone"]:
            found[key] = Concept(key, label, key, label, "", 0, part_of(_bare(label)), split_of_label(label))
    return found
