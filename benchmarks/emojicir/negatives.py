"""Cases with a negative text and the pictures that it makes unwanted, in three sorts.

A group: any picture of a stem will do but those of a gender or a tone. A style: any picture of a concept will do but
the one in a style. A contrast: a modification whose negative says what the reference shows; unwanted are the other
pictures of the reference's concept, which a search that leans on its reference finds first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from emojicir.cases import Case, answers_of
from emojicir.families import GENDER, HIDDEN_SKIN, NAMED_BY_GENDER, STYLE, STYLES, TONE, Edit
from emojicir.gallery import Gallery, is_coloured, picture_id
from emojicir.names import MIXED, Concept
from emojicir.render import OUTLINE
from emojicir.tables import NOUN, Tables

FAMILY = "negative"
_TONE_RANGES = {"light": (1, 2), "dark": (4, 5), "none": (0,)}
"""Tones that a negative text excludes: who wants no dark skin wants no medium-dark skin either."""


def plain_texts(name: str, *, gendered: bool) -> tuple[str, ...]:
    """Return the phrasings of a plain name, in the order of PHRASINGS."""
    kind, _, rest = name.partition(" ")
    if kind == "person:":
        plain = f"someone {rest}" if rest == "bald" else f"someone with {'a ' if rest == 'beard' else ''}{rest}"
    elif kind == "person" and rest:
        plain = f"someone {rest.replace(':', ',')}"
    else:
        plain = f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if gendered else name
    return f"shows {plain}", plain, f"showing {plain}", f"once more {plain}", f"find {plain}"


def _group(
    family: str, value: str, members: Sequence[Concept], out: Sequence[Concept], gallery: Gallery, tables: Tables
) -> Iterator[Case]:
    """Yield the cases of a stem of which the concepts `out` are excluded."""
    kept = [concept for concept in members if concept not in out]
    tone_matters = family == TONE
    wanted = sorted(p for c in kept for p in gallery.answers(c, tone_matters=tone_matters))
    unwanted = sorted(p for c in out for p in gallery.answers(c, tone_matters=tone_matters))
    if not unwanted or len({(c.split, c.seen) for c in kept}) != 1:
        return
    head = members[0]
    texts = plain_texts(head.name, gendered=bool(head.gender))
    negative = tables.phrases[family, value][NOUN]
    for source in kept:
        for vendor in gallery.references(source, any_tone=False):
            reference = picture_id(vendor, source.key)
            answers = tuple(p for p in wanted if p != reference)
            if answers:
                target = f"{head.root}!{value}"
                yield Case(
                    FAMILY, f"not {family}", source.split, source.seen, reference, target, head.root, texts, answers,
                    negative, tuple(unwanted),
                )  # fmt: skip


def group_cases(gallery: Gallery, tables: Tables) -> Iterator[Case]:
    """Yield the groups: stems without a gender, and without a range of tones."""
    couples = {c.root for c in gallery.concepts.values() if c.tone == MIXED}
    for stem in sorted({c.stem for c in gallery.concepts.values() if c.tone >= 0 and c.root not in couples}):
        members = sorted(gallery.stem(stem), key=lambda c: (c.tone, c.gender != "person", c.gender))
        # The plain name must not name the gender: a stem without a neutral form has none.
        if stem in NAMED_BY_GENDER or members[0].gender not in ("", "person"):
            continue
        for gender in ("woman", "man"):
            out = [m for m in members if m.gender == gender]
            if len(out) < len(members):
                yield from _group(GENDER, gender, members, out, gallery, tables)
        for value, tones in _TONE_RANGES.items():
            if any(m.tone for m in members) and stem not in HIDDEN_SKIN:
                out = [m for m in members if m.tone in tones]
                yield from _group(TONE, value, members, out, gallery, tables)


def style_cases(gallery: Gallery, tables: Tables) -> Iterator[Case]:
    """Yield the concepts of which the drawing in one style is unwanted."""
    for concept in gallery.concepts.values():
        vendors = gallery.vendors(concept)
        if concept.tone or is_coloured(concept):
            continue
        for style in (s for s in STYLES if s in vendors):
            texts = plain_texts(concept.name, gendered=False)
            others = [v for v in vendors if v != style]
            for vendor in gallery.references(concept, any_tone=False):
                answers = tuple(picture_id(v, concept.key) for v in others if v != vendor)
                if vendor not in (style, OUTLINE) and answers:
                    yield Case(
                        FAMILY, f"not {STYLE}", concept.split, concept.seen, picture_id(vendor, concept.key),
                        f"{concept.key}!{style}", concept.root, texts, answers, tables.phrases[STYLE, style][NOUN],
                        (picture_id(style, concept.key),),
                    )  # fmt: skip


def contrast_cases(edits: Iterable[Edit], gallery: Gallery, tables: Tables) -> Iterator[Case]:
    """Yield modifications whose negative is what the reference shows."""
    for edit in edits:
        if not edit.source_value:
            continue
        answers = answers_of(edit, gallery)
        negative = tables.phrases[edit.family, edit.source_value][NOUN]
        for vendor in gallery.references(edit.source, any_tone=False):
            reference = picture_id(vendor, edit.source.key)
            unwanted = tuple(p for p in gallery.answers(edit.source) if p != reference)
            if answers and unwanted:
                yield Case(
                    FAMILY, f"not {edit.family}", edit.target.split, edit.target.seen, reference, edit.target.key,
                    edit.target.root, tables.phrases[edit.family, edit.value], answers, negative, unwanted,
                )  # fmt: skip


def negative_cases(edits: Sequence[Edit], gallery: Gallery, tables: Tables) -> Iterator[Case]:
    """Yield the cases of all three sorts."""
    yield from group_cases(gallery, tables)
    yield from style_cases(gallery, tables)
    yield from contrast_cases(edits, gallery, tables)
