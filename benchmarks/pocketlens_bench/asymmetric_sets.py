"""What is asked: queries with their right answers, from EmojiCIR's pictures and from any folder of pictures."""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from pocketlens.errors import BadQuery, FormatError
from pocketlens_bench.protocols import emojicir
from pocketlens_bench.protocols.annotations import Annotations
from pocketlens_bench.protocols.metrics import average_precision_at, recall_at
from pocketlens_bench.protocols.task import Example
from pocketlens_export.split import split_rows

Asked: TypeAlias = Literal["picture", "view", "text"]

ALL = "all"
SPLITS = ("test", "validation", "train", ALL)
HEADLINE = recall_at(10)
METRICS = (recall_at(1), recall_at(5), HEADLINE, average_precision_at(10))

_COLUMNS = ("id", "concept", "vendor", "name", "base", "encoder")
_TONES = frozenset({"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
_SAME = "Any of the answers counts for recall; the picture that is asked with is taken out of the gallery."
_VIEW = "A view keeps 50 to 90 % of the area, with its sides' ratio changed by up to 16 %, and may be mirrored."
_CAPTIONS = "The text is the name of the thing; any of its pictures counts."


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Queries over one gallery.

    Attributes:
        title: what is sought, for people.
        asked: what a query is: a picture of the gallery (`reference`), a view of one, or a text (`texts`).
        split: the part of the pictures or concepts that is asked with.
        examples: the queries; their answers are ids of the gallery, and families the parts they count in.
        gallery: ids of the pictures that are ranked.
        notes: what a reader of the figures must know.
    """

    title: str
    asked: Asked
    split: str
    examples: tuple[Example, ...]
    gallery: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of every query with its answers, hex: equal where the same was asked."""
        lines = sorted("\t".join([each.id, *each.texts, *sorted(each.answers)]) for each in self.examples)
        return hashlib.sha256("\n".join([self.asked, *lines]).encode()).hexdigest()

    @property
    def chance(self) -> float:
        """The headline, R@10, of a ranking by chance, in per cent: what a control that knows nothing comes to."""
        missed = [_missed(len(self.gallery) - len(each.excluded), len(each.answers)) for each in self.examples]
        return 100 * (1 - sum(missed) / len(missed))


def read_emojicir(
    folder: Path, ids: Collection[str], *, split: str, held_styles: Sequence[str] = ()
) -> tuple[QuerySet, ...]:
    """Return who draws the same emoji, and which pictures a name means.

    A concept's split is the one that lens-base's training had it in, whatever its tone and gender: nothing that follows
    the same split has seen a concept of the test part.

    Args:
        folder: EmojiCIR's data folder.
        ids: pictures that could be read, relative to its pictures/.
        split: train, validation, test or all.
        held_styles: vendors whose drawings were not trained on; figures are given for them together.

    Raises:
        BadQuery: a vendor is unknown.
        FormatError: pictures.tsv is missing or wrong, or no query is left.
    """
    listed = Annotations(folder).table(emojicir.PICTURES, _COLUMNS)
    rows = [row for row in listed if row["id"] in ids]
    vendors = sorted({row["vendor"] for row in listed})
    for style in held_styles:
        if style not in vendors:
            raise BadQuery(f"--held-style is {style!r}, expected one of {', '.join(vendors)}")
    asked = [row for row in rows if split in (ALL, row["encoder"])]
    labels = {row["id"]: row["concept"] for row in rows}
    parts = {row["id"]: _parts(row, split, held_styles) for row in asked}
    groups = {row["id"]: row["base"] for row in asked}
    gallery = tuple(labels)
    examples = same_thing(labels, groups, parts)
    if not examples:
        raise FormatError(
            f"{folder}: no concept of the split {split} is drawn by two vendors, of {len(rows)} pictures that were "
            f"read and {len(listed)} that {emojicir.PICTURES} lists"
        )
    notes = [_SAME, f"{len(listed) - len(rows)} listed pictures could not be read."][
        : 2 if len(rows) < len(listed) else 1
    ]
    names = {row["id"]: row["name"] for row in rows}
    return (
        QuerySet("the same emoji by another vendor", "picture", split, examples, gallery, tuple(notes)),
        QuerySet("an emoji by its name", "text", split, captioned(names, groups), gallery, (_CAPTIONS,)),
    )


def read_folder(folder: Path, ids: Sequence[str], sha256: Sequence[str], *, split: str) -> tuple[QuerySet, ...]:
    """Return which picture a view is of and, where all lie in sub-folders of one thing each, what shows the same thing.

    Args:
        folder: where the pictures lie, for messages.
        ids: of different pictures, their paths in it.
        sha256: of their bytes, hex; the split is by these, as in `pocketlens fit`.
        split: train, validation, test or all: pictures that are asked with. All are ranked.

    Raises:
        FormatError: no query is left.
    """
    rows = range(len(ids)) if split == ALL else getattr(split_rows(sha256), split)
    asked = [ids[row] for row in rows]
    if not asked:
        raise FormatError(
            f"{folder}: none of its {len(ids)} pictures is of the split {split}; --split all asks with all"
        )
    gallery = tuple(ids)
    views = tuple(Example(id, (), id, id, (), frozenset([id])) for id in asked)
    sets = [QuerySet("the picture that a view is of", "view", split, views, gallery, (_VIEW,))]
    labels = {id: id.rpartition("/")[0] for id in ids}
    if len(set(labels.values())) > 1 and all(labels.values()):
        groups = {id: labels[id] for id in asked}
        captions = {id: _caption(label) for id, label in labels.items()}
        same = same_thing(labels, groups, {})
        texts = captioned(captions, labels)
        sets += [QuerySet("the same thing", "picture", split, same, gallery, (_SAME,))] if same else []
        sets.append(QuerySet("a thing by its name", "text", ALL, texts, gallery, (_CAPTIONS,)))
    return tuple(sets)


def same_thing(
    labels: Mapping[str, str], groups: Mapping[str, str], parts: Mapping[str, tuple[str, ...]]
) -> tuple[Example, ...]:
    """Return queries by picture whose answers are the other pictures of the same label.

    Args:
        labels: what each picture of the gallery shows.
        groups: the bootstrap's group of each picture that is asked with; one without a like is left out.
        parts: which parts its figures count in.
    """
    by_label: dict[str, set[str]] = defaultdict(set)
    for id, label in labels.items():
        by_label[label].add(id)
    return tuple(
        Example(id, parts.get(id, ()), group, id, (), frozenset(others), excluded=frozenset([id]))
        for id, group in groups.items()
        if (others := by_label[labels[id]] - {id})
    )


def captioned(captions: Mapping[str, str], groups: Mapping[str, str]) -> tuple[Example, ...]:
    """Return queries by text, one for each caption of the pictures in `groups`; the answers are all that have it."""
    by_caption: dict[str, set[str]] = defaultdict(set)
    for id, caption in captions.items():
        by_caption[caption].add(id)
    asked: dict[str, str] = {}
    for id, group in groups.items():
        asked.setdefault(captions[id], group)
    return tuple(
        Example(caption, (), asked[caption], None, (caption,), frozenset(by_caption[caption]))
        for caption in sorted(asked)
    )


def limited(queries: QuerySet, limit: int | None) -> QuerySet:
    """Return at most so many queries, spread evenly; None: all."""
    count = len(queries.examples)
    if limit is None or limit >= count:
        return queries
    places = [round(place * (count - 1) / max(limit - 1, 1)) for place in range(limit)]
    return replace(queries, examples=tuple(queries.examples[place] for place in places))


def _missed(pictures: int, answers: int) -> float:
    """Return how probable it is that the first 10 of so many pictures in random order are no answers."""
    drawn = min(10, pictures)
    return math.comb(pictures - answers, drawn) / math.comb(pictures, drawn)


def _parts(row: Mapping[str, str], split: str, held_styles: Sequence[str]) -> tuple[str, ...]:
    toned = not _TONES.isdisjoint(row["concept"].split("-"))
    parts = [f"by {row['vendor']}", "with a skin tone" if toned else "without a skin tone"]
    if held_styles:
        parts.append("held-out styles" if row["vendor"] in held_styles else "other styles")
    if split == ALL:
        parts.append("seen concepts" if row["encoder"] == "train" else "unseen concepts")
    return tuple(parts)


def _caption(label: str) -> str:
    return " ".join(re.split(r"[\s_-]+", label.rpartition("/")[2])).strip()
