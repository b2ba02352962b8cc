"""The hand-written tables: phrases.tsv says how a modification is put, members.tsv which concepts it leads between."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PHRASINGS = ("predicate", "noun phrase", "prepositional", "contrast", "instruction")
"""What the phrasing with each index is; the same in all families."""

NOUN = PHRASINGS.index("noun phrase")
UNSAID = "-"
"""The value of a member that only serves as a reference."""


@dataclass(frozen=True, slots=True)
class Member:
    """A concept's stem within a set, the value by which it differs from the others, and its use."""

    stem: str
    value: str
    is_source: bool
    is_target: bool


@dataclass(frozen=True, slots=True)
class Tables:
    """`phrases[family, value]` are texts in the order of PHRASINGS; `sets[family, set]` are concepts to go between."""

    phrases: dict[tuple[str, str], tuple[str, ...]]
    sets: dict[tuple[str, str], tuple[Member, ...]]


def _rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def read_tables(folder: Path = HERE) -> Tables:
    """Return both tables.

    Raises:
        ValueError: a row has another number of columns, or a member's value has no phrases.
    """
    phrases: dict[tuple[str, str], tuple[str, ...]] = {}
    for family, value, *texts in _rows(folder / "phrases.tsv"):
        if len(texts) != len(PHRASINGS) or (family, value) in phrases:
            raise ValueError(f"phrases.tsv: {family} {value}: expected one row of {len(PHRASINGS)} texts")
        phrases[family, value] = tuple(texts)
    sets: dict[tuple[str, str], list[Member]] = defaultdict(list)
    for family, name, stem, value, use in _rows(folder / "members.tsv"):
        if (value != UNSAID and (family, value) not in phrases) or use not in ("both", "source", "target"):
            raise ValueError(f"members.tsv: {family} {stem}: unknown value {value} or use {use}")
        member = Member(stem, value, use != "target", use != "source" and value != UNSAID)
        sets[family, name].append(member)
    return Tables(phrases, {key: tuple(members) for key, members in sets.items()})
