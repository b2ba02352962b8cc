"""Filters as data: which items a search may find, `{"year": {"gte": 2020}, "tag": {"in": ["beach", "sea"]}}`.

All entries of an object must hold. A key is an attribute with its conditions, by operator, or a value that it must
equal; or "and" and "or" with a list of filters, or "not" with one. Nothing of a filter is ever run as a program or put
into a query of a database: it is parsed once against the gallery's schema, and answered from its columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from pocketlens._types import Bools
from pocketlens.attributes import AttributeType, Schema, lacking, read_number, read_text, shown
from pocketlens.columns import Columns
from pocketlens.errors import BadQuery
from pocketlens.moments import Moment, read_moment

MAX_DEPTH = 32
MAX_CONDITIONS = 1_000
MAX_VALUES = 100_000  # of all conditions together
_ORDER = ("eq", "ne", "lt", "lte", "gt", "gte", "in", "exists")
OPERATORS: dict[AttributeType, tuple[str, ...]] = {
    "text": (*_ORDER, "contains", "starts"),
    "integer": _ORDER,
    "real": _ORDER,
    "time": _ORDER,
    "tags": ("eq", "ne", "in", "contains", "exists"),
}
Value: TypeAlias = str | int | float | Moment


@dataclass(frozen=True, slots=True)
class Condition:
    """What an attribute's value must be. A value is missing: the condition does not hold, whatever it is.

    Attributes:
        name: the attribute's.
        op: one of `OPERATORS` of its type.
        values: one; any number for "in"; none for "exists".
    """

    name: str
    op: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Every part must hold; without parts it does."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One part must hold; without parts it does not."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part must not hold."""

    part: Filter


Filter: TypeAlias = Condition | All | Either | Not


def parse_filter(data: Any, schema: Schema) -> Filter:
    """Return a filter, checked against a gallery's schema.

    Raises:
        BadQuery: it is no such data, names what the schema lacks, has a value of another type than the attribute's, or
            is too deep or too large.
    """
    return _Parser(schema).filter(data, "where", MAX_DEPTH)


def select_items(filter: Filter, columns: Columns) -> Bools:
    """Return which items a filter lets through, bool (items,)."""
    if isinstance(filter, Condition):
        return columns.match(filter.name, filter.op, filter.values)
    if isinstance(filter, Not):
        return ~select_items(filter.part, columns)
    every = isinstance(filter, All)
    found = np.full(columns.count, every)
    for part in filter.parts:
        found = found & select_items(part, columns) if every else found | select_items(part, columns)
    return found


class _Parser:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._conditions = 0
        self._values = 0

    def filter(self, data: Any, where: str, depth: int) -> Filter:
        if depth == 0:
            raise BadQuery(f"where is nested more than {MAX_DEPTH} deep")
        if not isinstance(data, Mapping):
            raise BadQuery(f"{where} is {shown(data)}, expected an object such as {{'year': {{'gte': 2020}}}}")
        parts = [part for key, value in data.items() for part in self._entry(key, value, where, depth)]
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _entry(self, key: Any, value: Any, where: str, depth: int) -> list[Filter]:
        if not isinstance(key, str):
            raise BadQuery(f"{where} has a key {shown(key)}, expected an attribute's name, 'and', 'or' or 'not'")
        if key == "not":
            return [Not(self.filter(value, f"{where}.not", depth - 1))]
        if key not in ("and", "or"):
            return self._conditions_on(key, value, where)
        if not isinstance(value, list | tuple):
            raise BadQuery(f"{where}.{key} is {shown(value)}, expected a list of filters")
        self._count(len(value), 0)
        parts = tuple(self.filter(part, f"{where}.{key}[{n}]", depth - 1) for n, part in enumerate(value))
        return [All(parts) if key == "and" else Either(parts)]

    def _conditions_on(self, name: str, value: Any, where: str) -> list[Filter]:
        if name not in self._schema:
            raise BadQuery(f"{where} asks for {shown(name)}, {lacking(self._schema)}")
        place = f"{where}.{name}"
        if not isinstance(value, Mapping):
            return [self._condition(name, "eq", value, place)]
        if not value:
            raise BadQuery(f"{place} has no condition, expected one of {', '.join(self._operators(name))}")
        return [self._condition(name, op, wanted, place) for op, wanted in value.items()]

    def _condition(self, name: str, op: Any, wanted: Any, place: str) -> Filter:
        if op not in self._operators(name):
            expected = ", ".join(self._operators(name))
            raise BadQuery(f"{place} has the operator {shown(op)}, but {self._schema[name]} takes {expected}")
        if op == "exists":
            if not isinstance(wanted, bool):
                raise BadQuery(f"{place}.exists is {shown(wanted)}, expected True or False")
            self._count(1, 0)
            exists = Condition(name, op, ())
            return exists if wanted else Not(exists)
        if op == "in":
            if isinstance(wanted, str) or not isinstance(wanted, list | tuple | set | frozenset):
                raise BadQuery(f"{place}.in is {shown(wanted)}, expected a list of values")
        else:
            wanted = (wanted,)
        self._count(1, len(wanted))
        kind, place = self._schema[name], f"{place}.{op}"
        return Condition(name, op, tuple(self._value(kind, value, place) for value in wanted))

    def _value(self, kind: AttributeType, value: Any, place: str) -> Value:
        if kind in ("text", "tags"):
            return read_text(value, place)
        if kind != "time":
            return read_number(value, kind, place)
        try:
            return read_moment(value)
        except BadQuery as error:
            raise BadQuery(f"{place} is {error}") from None

    def _operators(self, name: str) -> tuple[str, ...]:
        return OPERATORS[self._schema[name]]

    def _count(self, conditions: int, values: int) -> None:
        self._conditions += conditions
        self._values += values
        if self._conditions > MAX_CONDITIONS or self._values > MAX_VALUES:
            raise BadQuery(
                f"where has {self._conditions} conditions with {self._values} values, expected at most "
                f"{MAX_CONDITIONS} with {MAX_VALUES}"
            )
