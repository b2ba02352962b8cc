"""The modifications: every step from one concept to another that a family's words describe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emojicir.gallery import Gallery, is_coloured
from emojicir.names import COUPLES, GENDERS, TONES, Concept
from emojicir.render import FLUENT, OUTLINE
from emojicir.tables import UNSAID, Tables

TONE, GENDER, STYLE = "skin-tone", "gender", "style"
STYLES = (OUTLINE, FLUENT)

_SEXES = {"person": "neutral", "woman": "female", "man": "male"}
HIDDEN_SKIN = ("snowboarder", "horse racing")
"""Stems drawn so small or so wrapped up that their skin tone is hardly seen."""

NAMED_BY_GENDER = ("person", "child")
"""Stems whose pictures are named by their gender alone: "as a woman" would be the target's whole name."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A step from `source` to `target`, said by the phrases of `value`. `style` is the vendor that answers, or ""."""

    family: str
    value: str
    source: Concept
    target: Concept
    style: str = ""
    source_value: str = ""

    @property
    def answer_key(self) -> str:
        """What the answers are the pictures of: a concept, or a concept in a style."""
        return f"{self.target.key}@{self.style}" if self.style else self.target.key


def gender_value(concept: Concept) -> str:
    """Return the value in the table of phrases that says a concept's gender."""
    return _SEXES[concept.gender] if concept.stem in NAMED_BY_GENDER else concept.gender


def _tone_edits(gallery: Gallery) -> Iterator[Edit]:
    for source in gallery.concepts.values():
        if source.root not in gallery.toned or source.tone < 0 or source.stem in HIDDEN_SKIN:
            continue
        for tone, value in enumerate(TONES):
            target = gallery.variant(source, tone=tone)
            if target and target != source:
                yield Edit(TONE, value, source, target)


def _gender_edits(gallery: Gallery) -> Iterator[Edit]:
    for source in gallery.concepts.values():
        for gender in (*GENDERS, *COUPLES):
            target = gallery.variant(source, gender=gender) if source.gender and source.tone >= 0 else None
            if target and target != source:
                yield Edit(GENDER, gender_value(target), source, target)


def _style_edits(gallery: Gallery) -> Iterator[Edit]:
    for concept in gallery.concepts.values():
        for style in STYLES:
            hidden = style == OUTLINE and is_coloured(concept)
            if style in gallery.vendors(concept) and not hidden:
                yield Edit(STYLE, style, concept, concept, style)


def _member_edits(gallery: Gallery, tables: Tables) -> Iterator[Edit]:
    for (family, _), members in tables.sets.items():
        for source_member in (m for m in members if m.is_source):
            said = "" if source_member.value == UNSAID else source_member.value
            for source in gallery.stem(source_member.stem):
                for member in (m for m in members if m.is_target and m.value != source_member.value):
                    target = gallery.alike(source, member.stem)
                    if target:
                        yield Edit(family, member.value, source, target, source_value=said)


def edits(gallery: Gallery, tables: Tables) -> Iterator[Edit]:
    """Yield the edits of all families."""
    yield from _tone_edits(gallery)
    yield from _gender_edits(gallery)
    yield from _style_edits(gallery)
    yield from _member_edits(gallery, tables)
