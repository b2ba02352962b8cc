"""What every source gives: pictures by id, where their bytes are, and what is known of them. Nothing is opened twice.

A source is listed once, before anything is decoded, so that the number of pictures is known and every id is compared
with all others. Bytes are read later, by whoever decodes them; an archive is never unpacked to disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pocketlens.listing import Skipped

REPEATED = "id repeats"
CUT_SHORT = "archive ends early"
LINKED = "linked folder"
_NO_TEXT = "name is not text"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture's bytes are.

    Attributes:
        kind: "file" is a whole file, "span" a stretch of one, "row" a value of a Parquet file.
        path: the file.
        start: of a span its first byte, of a row its number.
        size_bytes: of a span.
        column: of a row.
    """

    kind: Literal["file", "span", "row"]
    path: str
    start: int = 0
    size_bytes: int = 0
    column: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture that has not been opened yet.

    Attributes:
        id: stable; text that UTF-8 can hold. A path in an archive is only a name.
        uri: where the picture can be found, for people.
        place: where its bytes are.
        attributes: what the source knows of it, as far as it was asked for.
    """

    id: str
    uri: str
    place: Place
    attributes: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """One of the places that pictures are indexed from.

    Attributes:
        name: its absolute path.
    """

    @property
    def name(self) -> str:
        """Return its absolute path."""

    def entries(self) -> Iterator[Entry | Skipped]:
        """Yield every picture in a fixed order, and what is passed over.

        Raises:
            FormatError: it is no such source.
        """


def text_of(name: str) -> str | None:
    """Return a name that UTF-8 can hold, None for another."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    return name


def no_text(name: str) -> Skipped:
    """Return that a name cannot be an id."""
    return Skipped(name.encode(errors="replace").decode(), _NO_TEXT, "its name is not valid UTF-8")


def is_of_its_id(skipped: Skipped) -> bool:
    """Return whether an entry that is skipped would have been the picture of its id."""
    return skipped.reason not in (REPEATED, CUT_SHORT, _NO_TEXT)


def hidden_below(skipped: Skipped) -> str | None:
    """Return how the ids begin that an entry may hide, up to a "/"; None where it stands for itself alone."""
    if skipped.reason == CUT_SHORT:
        return f"{skipped.id.removesuffix('.tar')}/"
    if skipped.reason == LINKED:
        return f"{skipped.id}/"
    return skipped.id if skipped.id.endswith("/") else None  # a folder that cannot be read
