"""Attributes of pictures from a table beside them: CSV, or Parquet where pyarrow is installed.

The column `id` names pictures by their path below the indexed folder. Every other column is an attribute; its name may
end in its type, `year:integer`, and otherwise the type follows from the values.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketlens.attributes import (
    OWN,
    RECORDED,
    TYPES,
    AttributeType,
    Schema,
    canonical,
    check_name,
    check_schema,
    infer_schema,
    shown,
)  # fmt: skip
from pocketlens.errors import BadQuery, FormatError, MissingPart
from pocketlens.moments import read_moment

MAX_BYTES = 2 << 30
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")  # "007" is a text: its zeros mean something
_REAL = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")  # a time that is told without its type starts with a day
_TAGS = ("tag", "tags")  # columns that hold tags unless another type is declared
_SEPARATOR = ";"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a table says: types of its attributes, and values by id, without those that are missing."""

    types: Schema
    attributes: dict[str, dict[str, Any]]


def read_sidecar(path: Path) -> Sidecar:
    """Read a table of attributes; a name that ends in .parquet is Parquet, any other CSV in UTF-8.

    Raises:
        FormatError: the file is no such table, or a value does not fit its column.
        MissingPart: it is Parquet, and pyarrow is not installed.
    """
    if not path.is_file():
        raise FormatError(f"{path} is not a file; expected a table with a column id")
    if path.stat().st_size > MAX_BYTES:
        raise FormatError(f"{path} has {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
    header, rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    return _as_sidecar(path, header, rows)


_Rows = Sequence[tuple[str, Sequence[Any]]]  # where a row stands, and its values


def _read_csv(path: Path) -> tuple[list[str], _Rows]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            rows = [(f"line {reader.line_num}", row) for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is not CSV in UTF-8: {error}") from error
    for where, row in rows:
        if len(row) != len(header):
            raise FormatError(f"{path}, {where}: {len(row)} values, expected {len(header)}, as in the first line")
    return header, rows


def _read_parquet(path: Path) -> tuple[list[str], _Rows]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingPart(
            f'{path} needs pyarrow, which is not installed: pip install "pocketlens[parquet]"; CSV needs nothing'
        ) from error
    try:
        table = parquet.read_table(path)
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"{path} is not Parquet that can be read: {error}") from error
    return table.column_names, [(f"row {n}", row) for n, row in enumerate(zip(*columns, strict=True), start=1)]


def _as_sidecar(path: Path, header: Sequence[str], rows: _Rows) -> Sidecar:
    names, declared = _read_header(path, header)
    at = names.index("id")
    types: Schema = {}
    columns: dict[str, list[Any]] = {}
    try:
        for n, name in enumerate(names):
            if n != at:
                columns[name] = [_cell(row[n]) for _, row in rows]
                types[name] = declared.get(name) or _infer(name, columns[name])
        check_schema(types)
    except BadQuery as error:
        raise FormatError(f"{path}: {error}") from error
    attributes: dict[str, dict[str, Any]] = {}
    for number, (where, row) in enumerate(rows):
        id = row[at]
        if not isinstance(id, str) or not id or id in attributes:
            again = "stands twice" if isinstance(id, str) and id else "is no text"
            raise FormatError(f"{path}, {where}: the id {shown(id)} {again}")
        attributes[id] = _values(path, where, id, types, {name: column[number] for name, column in columns.items()})
    return Sidecar(types, attributes)


def _read_header(path: Path, header: Sequence[str]) -> tuple[list[str], dict[str, AttributeType]]:
    names, declared = [], dict[str, AttributeType]()
    for column in header:
        name, colon, kind = column.rpartition(":") if ":" in column else (column, "", "")
        name = name.strip()
        if colon and kind.strip() not in TYPES:
            raise FormatError(f"{path}: column {column!r} is of type {kind.strip()!r}, expected {', '.join(TYPES)}")
        if name in names:
            raise FormatError(f"{path}: the column {name!r} stands twice")
        if name in OWN:
            raise FormatError(f"{path}: the column {name!r} is recorded from the pictures; leave it out or rename it")
        names.append(name)
        if colon:
            declared[name] = kind.strip()  # type: ignore[assignment]
    if "id" not in names:
        raise FormatError(f"{path}: columns are {', '.join(map(repr, names)) or 'none'}, expected one called id")
    try:
        for name in names:
            if name != "id":
                check_name(name)
    except BadQuery as error:
        raise FormatError(f"{path}: {error}") from error
    return names, declared


def _cell(value: Any) -> Any:
    """Return a cell's value; None where it is empty."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _infer(name: str, column: Sequence[Any]) -> AttributeType:
    there = [value for value in column if value is not None]
    if name in RECORDED:
        return RECORDED[name]
    if name in _TAGS:
        return "tags"
    if not all(isinstance(value, str) for value in there):
        return infer_schema({name: value} for value in there)[name]
    tests: dict[AttributeType, Callable[[str], bool]] = {
        "integer": lambda text: bool(_INTEGER.fullmatch(text)),
        "real": lambda text: bool(_REAL.fullmatch(text)) and math.isfinite(float(text)),
        "time": _is_time,
    }
    return next((kind for kind, test in tests.items() if there and all(map(test, there))), "text")


def _is_time(text: str) -> bool:
    try:
        return bool(_DAY.match(text)) and read_moment(text) is not None
    except BadQuery:
        return False


def _values(path: Path, where: str, id: str, types: Schema, row: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, value in row.items():
        try:
            read = canonical(name, types[name], _typed(value, types[name]), of=id)
        except BadQuery as error:
            raise FormatError(f"{path}, {where}: {error}") from error
        if read is not None:
            values[name] = read
    return values


def _typed(value: Any, kind: AttributeType) -> Any:
    """Return a cell's text as a number or as tags where it reads as such; other values stay."""
    if not isinstance(value, str):
        return str(value) if kind == "text" and isinstance(value, int | float) else value
    if kind == "tags":
        return [tag for tag in map(str.strip, value.split(_SEPARATOR)) if tag]
    if kind == "integer" and _INTEGER.fullmatch(value):
        return int(value)
    if kind == "real" and _REAL.fullmatch(value):
        return float(value)
    return value
