"""Which of a source's own columns become attributes of its pictures: `--keep caption,year:integer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketlens.attributes import OWN, TYPES, AttributeType, check_name
from pocketlens.errors import BadQuery


@dataclass(frozen=True, slots=True)
class Kept:
    """A column by name, with its type where it is declared."""

    name: str
    type: AttributeType | None


def read_kept(text: str | None) -> list[Kept]:
    """Return the columns that `--keep` names, by commas.

    Raises:
        BadQuery: a name cannot be an attribute's, a type is unknown, or a name stands twice.
    """
    kept: list[Kept] = []
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        name, colon, type_ = part.partition(":")
        if colon and type_ not in TYPES:
            raise BadQuery(f"--keep {part}: the type is {type_!r}, expected one of {', '.join(TYPES)}")
        if name in OWN:
            raise BadQuery(f"--keep {name}: pocketlens records it from the pictures")
        if name in [each.name for each in kept]:
            raise BadQuery(f"--keep names {name!r} twice")
        kept.append(Kept(check_name(name), type_ or None))  # type: ignore[arg-type]
    return kept


def take(kept: Sequence[Kept], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of these columns that are there, with texts as their types have them."""
    return {each.name: _typed(values[each.name], each.type) for each in kept if values.get(each.name) is not None}


def _typed(value: Any, type_: AttributeType | None) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if type_ == "text" and isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return _from_text(value, type_)
    return value


def _from_text(text: str, type_: AttributeType | None) -> Any:
    """Return a text as the number or the tags that it says; where it says none, the text, which is refused later."""
    if type_ == "tags":
        return [tag for tag in map(str.strip, text.split(";")) if tag]
    if type_ in ("integer", "real"):
        try:
            return int(text) if type_ == "integer" else float(text)
        except ValueError:
            return text
    return text
