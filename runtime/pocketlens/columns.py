"""The attributes of all items as memory-mapped columns: what a filter looks at. See docs/formats.md.

Items are numbered by row and id, so those that share a row follow one another. A row may be found when one of its
items may.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Bools, Int64s
from pocketlens.attributes import Schema, values_of
from pocketlens.column import COLUMNS, DTYPES, Array, Column, Joined, WrongColumn
from pocketlens.errors import FormatError
from pocketlens.items import Item

FOLDER = "columns"
ROWS = f"{FOLDER}/rows.i64"


class Columns:
    """The attributes of a gallery's items, or of a device's additions. It may be used from several threads.

    Attributes:
        schema: names and types.
        first: int64 (rows + 1,), the number of each row's first item, then the number of items.

    Raises:
        WrongColumn: the arrays cannot be such columns; the first argument is a file's name.
    """

    def __init__(self, schema: Schema, arrays: dict[str, Array]) -> None:
        self.schema = schema
        self.first: Int64s = arrays[ROWS]
        self._columns: dict[str, Column | Joined] = {}
        for n, (name, kind) in enumerate(schema.items()):
            stem = f"{FOLDER}/{n}"
            parts = [arrays[f"{stem}.{end}"] for end in COLUMNS[kind].ENDS]
            try:
                self._columns[name] = COLUMNS[kind](parts, self.count)
            except WrongColumn as error:
                raise WrongColumn(f"{stem}.{error.args[0]}", error.args[1]) from error

    @classmethod
    def join(cls, parts: Sequence[Columns]) -> Columns:
        """Return the columns of several segments with one schema as one; items and rows are numbered through."""
        if len(parts) == 1:
            return parts[0]
        joined = cls.__new__(cls)
        joined.schema = parts[0].schema
        before = np.cumsum([0, *(part.count for part in parts)])
        starts = [part.first[:-1] + start for part, start in zip(parts, before[:-1], strict=True)]
        joined.first = np.concatenate([*starts, before[-1:]])
        joined._columns = {name: Joined([part._columns[name] for part in parts]) for name in joined.schema}
        return joined

    @property
    def count(self) -> int:
        """How many items there are."""
        return int(self.first[-1])

    def match(self, name: str, op: str, values: Sequence[Any]) -> Bools:
        """Return which items meet a condition, bool (items,); see `column.Column`."""
        return self._columns[name].match(op, values)

    def rows_of(self, items: Bools) -> Int64s:
        """Return the rows that have one of these items, int64 (m,), rising; `items` is bool (items,)."""
        if self.count == len(self.first) - 1:  # one item a row
            return np.flatnonzero(items)
        return np.flatnonzero(np.logical_or.reduceat(items, self.first[:-1]))

    def rows_without(self, items: Bools) -> Bools:
        """Return which rows have none of these items, bool (rows,); `items` is bool (items,)."""
        return ~np.logical_or.reduceat(items, self.first[:-1])

    def of_row(self, row: int) -> slice:
        """Return where the items of a row stand among all; there they are in the order of their ids."""
        return slice(int(self.first[row]), int(self.first[row + 1]))


def file_names(schema: Schema) -> list[str]:
    """Return the files that columns of a schema are, relative to the gallery."""
    ends = [(n, end) for n, kind in enumerate(schema.values()) for end in COLUMNS[kind].ENDS]
    return [ROWS, *(f"{FOLDER}/{n}.{end}" for n, end in ends)]


def encode_columns(schema: Schema, items: Iterable[Item], rows: int) -> dict[str, Array]:
    """Return what each file of `file_names` holds.

    Args:
        schema: names and types; the items' attributes conform to it.
        items: all of them, in any order.
        rows: how many there are; each has an item.
    """
    ordered = sorted(items, key=lambda item: (item.row, item.id))
    first = np.searchsorted([item.row for item in ordered], np.arange(rows + 1)).astype("<i8")
    assert first[-1] == len(ordered) and (np.diff(first) > 0).all(), "a row has no item, or an item no row"
    values = [values_of(item) for item in ordered]
    arrays: dict[str, Array] = {ROWS: first}
    for n, (name, kind) in enumerate(schema.items()):
        encoded = COLUMNS[kind].encode([each.get(name) for each in values])
        arrays |= {f"{FOLDER}/{n}.{end}": part for end, part in zip(COLUMNS[kind].ENDS, encoded, strict=True)}
    return arrays


def open_columns(folder: Path, schema: Schema, *, rows: int, items: int) -> Columns:
    """Map the columns of a gallery whose hashes the caller has checked.

    Raises:
        FormatError: a file's length or content cannot be.
    """
    arrays = {name: _map(folder / name) for name in file_names(schema)}
    first = arrays[ROWS]
    if len(first) != rows + 1 or first[0] != 0 or first[-1] != items or (np.diff(first) < 1).any():
        raise FormatError(f"{folder / ROWS} does not rise from 0 to {items}, the items, over {rows} rows")
    try:
        return Columns(schema, arrays)
    except WrongColumn as error:
        raise FormatError(f"{folder / error.args[0]} holds {error.args[1]}") from error


def _map(path: Path) -> Array:
    dtype, size_bytes = np.dtype(DTYPES[path.name.rpartition(".")[2]]), path.stat().st_size
    if size_bytes % dtype.itemsize:
        raise FormatError(f"{path} has {size_bytes} bytes, expected a multiple of {dtype.itemsize}")
    if size_bytes == 0:  # cannot be mapped
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
