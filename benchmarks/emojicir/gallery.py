"""The pictures of the benchmark: which concepts each vendor draws, and where a concept's picture can be an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from emojicir.names import TONES, Concept
from emojicir.render import OUTLINE

_COLOURS = frozenset("red orange yellow green blue light-blue purple pink brown black white grey".split())  # noqa: SIM905
_HAIR_COLOURS = ("person: red hair", "person: white hair", "person: blond hair")


def picture_id(vendor: str, key: str) -> str:
    """Return a picture's id: its path under the folder of pictures."""
    return f"{vendor}/{key}.webp"


def is_coloured(concept: Concept) -> bool:
    """Whether only its colour tells a concept from others, so that an outline drawing does not show it."""
    words = concept.name.replace("light blue", "light-blue").split()
    shape = len(words) > 1 and words[-1] in ("heart", "circle", "square") and words[0] in _COLOURS
    return shape or concept.stem in _HAIR_COLOURS


class Gallery:
    """Concepts and their pictures, looked up by key, by picture and by what the names say."""

    def __init__(self, concepts: Mapping[str, Concept], vendors: Mapping[str, Iterable[str]]) -> None:
        self.concepts = dict(concepts)
        self._vendors: dict[str, list[str]] = defaultdict(list)
        for vendor in sorted(vendors):
            for key in vendors[vendor]:
                self._vendors[key].append(vendor)
        self._by_name = {(c.stem, c.gender, c.tone): c for c in concepts.values() if c.tone >= 0}
        self._genders: dict[str, set[str]] = defaultdict(set)
        for concept in concepts.values():
            self._genders[concept.stem].add(concept.gender)
        self.toned = frozenset(c.root for c in concepts.values() if c.tone != 0)

    def vendors(self, concept: Concept) -> tuple[str, ...]:
        """Return the vendors that draw a concept, sorted."""
        return tuple(self._vendors.get(concept.key, ()))

    def stem(self, stem: str) -> list[Concept]:
        """Return all concepts of a stem with a single tone or none: its genders and their tones."""
        found = (
            self._by_name.get((stem, g, t)) for g in sorted(self._genders.get(stem, ())) for t in range(len(TONES))
        )
        return [concept for concept in found if concept]

    def alike(self, source: Concept, stem: str) -> Concept | None:
        """Return the concept of `stem` with the gender and tone of `source`.

        A stem whose one form is neutral, as the baby's, takes any gender; others are only reached from the same.
        """
        genders = self._genders.get(stem, set())
        gender = next(iter(genders)) if genders in ({""}, {"person"}) else source.gender
        return self._by_name.get((stem, gender, source.tone))

    def variant(self, source: Concept, *, gender: str | None = None, tone: int | None = None) -> Concept | None:
        """Return the concept that differs from `source` in gender or tone alone."""
        return self._by_name.get(
            (source.stem, source.gender if gender is None else gender, source.tone if tone is None else tone)
        )

    def answers(self, concept: Concept, *, tone_matters: bool = False) -> list[str]:
        """Return the pictures that show a concept, by any vendor.

        Outlines are left out where they do not show it: of things that differ by colour, and, when tone is what the
        query is about, of everything that has skin.
        """
        blind = is_coloured(concept) or (tone_matters and concept.root in self.toned)
        return [picture_id(v, concept.key) for v in self.vendors(concept) if not (blind and v == OUTLINE)]

    def references(self, concept: Concept, *, any_tone: bool) -> list[str]:
        """Return the vendors whose picture of a concept can be a reference: an outline shows no tone to keep."""
        blind = concept.root in self.toned and not any_tone
        return [v for v in self.vendors(concept) if not (blind and v == OUTLINE)]
