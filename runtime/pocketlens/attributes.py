"""Attributes of items: what each gallery knows by name and type, beside what pocketlens records of every picture.

A value is text, an integer, a real number, a time or a set of tags. An item may lack any of them. The types are the
gallery's schema; values that come from outside are checked against it, and are kept in one form each.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from pocketlens.errors import BadQuery
from pocketlens.moments import read_moment, write_moment

if TYPE_CHECKING:
    from pocketlens.items import Item

AttributeType: TypeAlias = Literal["text", "integer", "real", "time", "tags"]
Schema: TypeAlias = dict[str, AttributeType]
TYPES: tuple[str, ...] = get_args(AttributeType)

# What pocketlens knows of every picture; a caller may give only the time, which cameras get wrong.
RECORDED: Schema = {"width": "integer", "height": "integer", "size_bytes": "integer", "taken": "time", "folder": "text"}
OWN = ("width", "height", "size_bytes", "folder")
MAX_ATTRIBUTES = 256
MAX_NAME = 64  # characters
MAX_TEXT = 4_096  # characters of a text or a tag
MAX_TAGS = 1_000  # of an item
MAX_INTEGER = 2**63 - 1  # the least of 64 bits stands for a missing one
_PLAIN = 2**53
_LISTS = (list, tuple, set, frozenset)
_RESERVED = ("and", "or", "not", "id")
_OPERATORS = frozenset("=<>!~^:")  # of --where, and of a declared type


def check_name(name: Any) -> str:
    """Return an attribute's name.

    Raises:
        BadQuery: it is no text of 1 to 64 printable characters without an operator among them, or is reserved.
    """
    if not isinstance(name, str):
        raise BadQuery(f"an attribute's name is of type {type(name).__name__}, expected a str")
    plain = name.isprintable() and name.strip() == name and _OPERATORS.isdisjoint(name)
    if not plain or not 0 < len(name) <= MAX_NAME or name in _RESERVED or name[0] in "{[":
        raise BadQuery(
            f"{name[:80]!r} cannot be an attribute's name: expected 1 to {MAX_NAME} printable characters without "
            f"{' '.join(sorted(_OPERATORS))} and space around them, other than {', '.join(_RESERVED)}"
        )
    return name


def check_schema(schema: Mapping[str, str]) -> Schema:
    """Return the whole schema of a gallery: what pocketlens records, then other attributes, by name.

    Args:
        schema: types of other attributes, by name; what is recorded may stand among them with its own type.

    Raises:
        BadQuery: a name cannot be one, a type is unknown, a recorded attribute has another type, or there are too many.
    """
    whole = dict(RECORDED)
    for name in sorted(schema, key=str):
        type_ = schema[name]
        if type_ not in TYPES:
            raise BadQuery(f"attribute {name!r} is of type {type_!r}, expected one of {', '.join(TYPES)}")
        if RECORDED.get(check_name(name), type_) != type_:
            raise BadQuery(f"attribute {name!r} is of type {type_}, but pocketlens records it as {RECORDED[name]}")
        whole[name] = type_  # type: ignore[assignment]
    if len(whole) > MAX_ATTRIBUTES:
        raise BadQuery(f"{len(whole)} attributes, expected at most {MAX_ATTRIBUTES}")
    return whole


def infer_schema(values: Iterable[Mapping[str, Any]]) -> Schema:
    """Return the types of what items have, by name: of whole and other numbers together it is real.

    Raises:
        BadQuery: a value is of no type that an attribute may have, or two are of types that do not go together.
    """
    schema: Schema = {}
    for attributes in values:
        for name, value in attributes.items():
            if _is_missing(value):
                continue
            found = _type_of(name, value)
            type_ = schema.setdefault(name, found)
            if {type_, found} == {"integer", "real"}:
                schema[name] = "real"
            elif type_ != found:
                raise BadQuery(f"attribute {name!r} is {type_} in one item and {found} in another ({shown(value)})")
    return schema


def check_values(schema: Schema, given: Mapping[str, Any], *, of: str) -> dict[str, Any]:
    """Return an item's values in their one form, without those that are missing (None, or no tags).

    Args:
        schema: the gallery's.
        given: by name.
        of: whose they are, for the message.

    Raises:
        BadQuery: a name is not in the schema or is not the caller's to give, or a value is not of its type.
    """
    if not isinstance(given, Mapping):
        raise BadQuery(f"attributes of {of!r} are of type {type(given).__name__}, expected names with values")
    values = {}
    for name in given:
        if name in OWN:
            raise BadQuery(f"attribute {name!r} of {of!r} is recorded from the picture; give yours another name")
        if name not in schema:
            raise BadQuery(f"{of!r} has an attribute {name!r}, {lacking(schema)}")
        value = canonical(name, schema[name], given[name], of=of)
        if value is not None:
            values[name] = value
    return values


def canonical(name: str, type_: AttributeType, value: Any, *, of: str) -> Any:
    """Return a value in the form that its type is kept in: JSON, with tags sorted and times in full; None if missing.

    Raises:
        BadQuery: it is not of this type.
    """
    if _is_missing(value):
        return None
    where = f"attribute {name!r} of {of!r}"
    if type_ == "tags":
        if isinstance(value, str) or not isinstance(value, _LISTS):
            raise BadQuery(f"{where} is {shown(value)}, expected a list of tags")
        if len(value) > MAX_TAGS:
            raise BadQuery(f"{where} has {len(value)} tags, expected at most {MAX_TAGS}")
        return sorted({read_text(tag, f"{where} has a tag that") for tag in value})
    if type_ == "text":
        return read_text(value, where)
    if type_ == "time":
        try:
            return write_moment(read_moment(value).start)
        except BadQuery as error:
            raise BadQuery(f"{where} is {error}") from None
    return read_number(value, type_, where)


def record(given: Mapping[str, Any], *, size_bytes: int, taken: str | None) -> dict[str, Any]:
    """Return an item's values together with what its file says.

    Args:
        given: as `check_values` returns them.
        size_bytes: of the file.
        taken: the camera's time as EXIF has it, "2024:07:31 18:30:00"; what is no time counts as missing.
    """
    try:
        said = {} if taken is None else {"taken": write_moment(read_moment(taken.replace(":", "-", 2)).start)}
    except BadQuery:  # many a camera writes zeros
        said = {}
    return {**said, **given, "size_bytes": size_bytes}


def values_of(item: Item) -> dict[str, Any]:
    """Return what a filter sees of an item: its attributes, and what follows from the picture and its id."""
    folder = item.id.rpartition("/")[0]
    return {**item.attributes, "width": item.width, "height": item.height, "folder": folder}


def lacking(schema: Schema) -> str:
    """Return the end of a message about a name that a schema lacks."""
    return f"which this gallery does not have; it has {', '.join(f'{name} ({kind})' for name, kind in schema.items())}"


def read_text(value: Any, where: str) -> str:
    """Return a text that UTF-8 can hold, of at most 4,096 characters; `where` starts the message of a BadQuery."""
    if not isinstance(value, str):
        raise BadQuery(f"{where} is {shown(value)}, expected text")
    if len(value) > MAX_TEXT:
        raise BadQuery(f"{where} is {len(value)} characters long, expected at most {MAX_TEXT}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadQuery(f"{where} is {shown(value)}, which UTF-8 cannot hold") from None
    return value


def read_number(value: Any, type_: AttributeType, where: str) -> int | float:
    """Return an int of 64 bits or a finite float, by the type; `where` starts the message of a BadQuery."""
    if type(value) is (int if type_ == "integer" else float) and abs(value) <= _PLAIN:  # a filter may have thousands
        return value
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if type_ == "integer":
        if not number or not isinstance(value, numbers.Integral):
            raise BadQuery(f"{where} is {shown(value)}, expected an integer")
        if abs(int(value)) > MAX_INTEGER:
            raise BadQuery(f"{where} is {shown(int(value))}, expected an integer of 64 bits")
        return int(value)
    try:
        real = float(value) if number else math.nan
    except OverflowError:
        real = math.inf
    if not math.isfinite(real):
        raise BadQuery(f"{where} is {shown(value)}, expected a finite number")
    return real


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, _LISTS) and not value)


def _type_of(name: str, value: Any) -> AttributeType:
    kinds = (kind for types, kind in _KINDS if isinstance(value, types))
    kind = next(kinds, None)
    if kind is None:
        raise BadQuery(f"attribute {name!r} is {shown(value)}, expected text, a number, a date or a list of tags")
    return kind


def shown(value: Any) -> str:
    """Return a value as a message shows it, in at most 61 characters."""
    try:
        text = repr(value[:61] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list of itself in itself
        return f"a very large {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}…"


_KINDS: tuple[tuple[type | tuple[type, ...], AttributeType | None], ...] = (  # the first that fits
    (bool, None),
    (str, "text"),
    (date, "time"),
    (_LISTS, "tags"),
    (numbers.Integral, "integer"),
    (numbers.Real, "real"),
)
