"""Cases: a reference picture, a modification in several phrasings, and all its answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emojicir.families import STYLE, TONE, Edit
from emojicir.gallery import Gallery, picture_id
from emojicir.tables import Tables


@dataclass(frozen=True, slots=True)
class Case:
    """What its queries share. `kind` is what quotas are shared out by: the family, or the sort of negative."""

    family: str
    kind: str
    split: str
    seen: bool
    reference: str
    target: str
    root: str
    texts: tuple[str, ...]
    answers: tuple[str, ...]
    negative: str | None = None
    unwanted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A stable id."""
        without = f"!{self.negative.replace(' ', '-')}" if self.negative else ""
        return f"{self.family}:{self.reference}>{self.target}{without}"

    @property
    def vendor(self) -> str:
        """The vendor of the reference."""
        return self.reference.split("/")[0]


def answers_of(edit: Edit, gallery: Gallery) -> tuple[str, ...]:
    """Return the pictures that answer an edit, sorted."""
    if edit.style:
        return (picture_id(edit.style, edit.target.key),)
    return tuple(sorted(gallery.answers(edit.target, tone_matters=edit.family == TONE)))


def positive_cases(edits: Iterable[Edit], gallery: Gallery, tables: Tables) -> Iterator[Case]:
    """Yield a case for each vendor's picture of each edit's source. A case's split is that of its target."""
    for edit in edits:
        answers = answers_of(edit, gallery)
        vendors = gallery.references(edit.source, any_tone=edit.family in (TONE, STYLE))
        for vendor in vendors if answers else ():
            if vendor != edit.style:
                yield Case(
                    family=edit.family,
                    kind=edit.family,
                    split=edit.target.split,
                    seen=edit.target.seen,
                    reference=picture_id(vendor, edit.source.key),
                    target=edit.answer_key,
                    root=edit.target.root,
                    texts=tables.phrases[edit.family, edit.value],
                    answers=answers,
                )
