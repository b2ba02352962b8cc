"""Filters as words of the command line: `year>=2020`, `tag=beach`, `folder^=animals`, `taken`, `!taken`, or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pocketlens.errors import BadQuery

OPERATORS = {"=": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "~=": "contains", "^=": "starts"}
_FORM = re.compile(r"([^=<>!~^]+)(!=|>=|<=|~=|\^=|=|>|<)(.*)", re.DOTALL)
_EXPECTED = "NAME=VALUE (or !=, >, >=, <, <=, ~= contains, ^= starts with), NAME, !NAME or a JSON object"
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")


def read_where(expressions: Sequence[str], schema: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the filter that expressions together are, or None for none; values are of the attribute's type.

    Args:
        expressions: as given to --where; all must hold.
        schema: types of attributes by name. What it lacks is left to `filter.parse_filter`.

    Raises:
        BadQuery: an expression is none, or a value is no number where the attribute is one.
    """
    return {"and": [_read(expression, schema) for expression in expressions]} if expressions else None


def _read(expression: str, schema: Mapping[str, str]) -> dict[str, Any]:
    text = expression.strip()
    if text.startswith("{"):
        return _read_json(text)
    if found := _FORM.fullmatch(text):
        name, value = found[1].strip(), found[3].strip()
        return {name: {OPERATORS[found[2]]: _typed(value, schema.get(name), expression)}}
    missing, name = text.startswith("!"), text.removeprefix("!").strip()
    if not name or re.search("[=<>!~^]", name):
        raise BadQuery(f"--where is {expression!r}, expected {_EXPECTED}")
    return {name: {"exists": not missing}}


def _read_json(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadQuery(f"--where is {text[:60]!r}, which is not valid JSON: {error}") from error
    assert isinstance(data, dict)  # it starts with a brace
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return data


def _typed(value: str, kind: str | None, expression: str) -> str | int | float:
    if kind == "integer":
        if not _INTEGER.fullmatch(value):
            raise BadQuery(f"--where {expression!r} has the value {value!r}, expected an integer")
        return int(value)
    if kind == "real":
        try:
            return float(value)
        except ValueError:
            raise BadQuery(f"--where {expression!r} has the value {value!r}, expected a number") from None
    return value
