"""Reading annotation files: JSON whose fields are checked when they are read, and a hash of every file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketlens.errors import FormatError


class Record:
    """One entry of an annotation file. A field that is missing or of another type is a FormatError that names it."""

    __slots__ = ("_fields", "_where")

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{where} is {_shown(value)}, expected an object")
        self._fields = value
        self._where = where

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def text(self, name: str) -> str:
        """Return a field that is a string."""
        return str(self._field(name, str, "a string"))

    def optional_text(self, name: str) -> str | None:
        """Return a field that is a string or null."""
        return None if self._fields.get(name, "") is None else self.text(name)

    def truth(self, name: str) -> bool:
        """Return a field that is true or false."""
        value = self._fields.get(name)
        if not isinstance(value, bool):
            found = f"{name} is {_shown(value)}" if name in self._fields else f"field {name!r} is missing"
            raise FormatError(f"{self._where}: {found}, expected true or false")
        return value

    def integer(self, name: str) -> int:
        """Return a field that is an integer."""
        return int(self._field(name, int, "an integer"))

    def texts(self, name: str, *, least: int = 0) -> tuple[str, ...]:
        """Return a field that is a list of at least so many strings."""
        return tuple(self._several(name, str, "strings", least))

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a field that is a list of integers."""
        return tuple(self._several(name, int, "integers", 0))

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """Return a field that is a list of so many finite numbers."""
        values = self._several(name, int | float, "numbers", count)
        if len(values) != count or not all(abs(value) < 1e9 for value in values):
            raise FormatError(f"{self._where}: {name} is {_shown(values)}, expected {count} finite numbers")
        return tuple(map(float, values))

    def record(self, name: str) -> Record:
        """Return a field that is an object."""
        return Record(self._field(name, dict, "an object"), f"{self._where}: {name}")

    def records(self, name: str) -> tuple[Record, ...]:
        """Return a field that is a list of objects."""
        values = self._field(name, list, "a list of objects")
        return tuple(Record(value, f"{self._where}: {name}[{i}]") for i, value in enumerate(values))

    def paths(self) -> Iterator[tuple[str, str]]:
        """Yield the names and values of an object of strings."""
        for name in self._fields:
            yield name, self.text(name)

    def _several(self, name: str, kind: Any, plural: str, least: int) -> list[Any]:
        values = self._field(name, list, f"a list of {plural}")
        if len(values) < least or not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
            expected = f"a list of {plural}" if not least else f"a list of at least {least} {plural}"
            raise FormatError(f"{self._where}: {name} is {_shown(values)}, expected {expected}")
        return list(values)

    def _field(self, name: str, kind: Any, expected: str) -> Any:
        if name not in self._fields:
            raise FormatError(f"{self._where}: field {name!r} is missing, expected {expected}")
        value = self._fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise FormatError(f"{self._where}: {name} is {_shown(value)}, expected {expected}")
        return value


class Annotations:
    """A folder of annotation files.

    Attributes:
        folder: where they are.
        sha256: hex, of every file read so far, by its path in the folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FormatError(f"{folder} is not a folder; expected a folder of annotation files")
        self.folder = folder
        self.sha256: dict[str, str] = {}

    def first(self, *names: str) -> str:
        """Return the first of some paths that is a file.

        Raises:
            FormatError: none is; names them all.
        """
        for name in names:
            if (self.folder / name).is_file():
                return name
        raise FormatError(f"{self.folder} has no {' or '.join(names)}; pocketlens eval --help says what is expected")

    def records(self, name: str) -> list[Record]:
        """Return the entries of a file that holds a JSON list of objects."""
        values = self._list(name)
        return [Record(value, f"{self.folder / name}: entry {i}") for i, value in enumerate(values)]

    def lines(self, name: str) -> list[Record]:
        """Return the entries of a file that holds one JSON object a line."""
        path, entries = self.folder / name, []
        for number, line in enumerate(self._text(name).split("\n"), start=1):
            if line.strip():
                entries.append(Record(_parse(line, f"{path}: line {number}"), f"{path}: line {number}"))
        return entries

    def table(self, name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
        """Return the rows of a file of tab-separated values with a header line, by column.

        Raises:
            FormatError: a column is missing, or a row has another number of values than the header.
        """
        rows = list(csv.reader(io.StringIO(self._text(name)), delimiter="\t", quoting=csv.QUOTE_NONE))
        path, header = self.folder / name, rows[0] if rows else []
        for column in columns:
            if column not in header:
                raise FormatError(f"{path}: columns are {', '.join(header) or 'none'}, expected also {column!r}")
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(header):
                raise FormatError(f"{path}: line {number} has {len(row)} values, expected {len(header)}")
        return [dict(zip(header, row, strict=True)) for row in rows[1:]]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a file that holds a JSON list of strings."""
        values = self._list(name)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise FormatError(f"{self.folder / name}: entry {i} is {_shown(value)}, expected a string")
        return tuple(values)

    def record(self, name: str) -> Record:
        """Return a file that holds one JSON object."""
        return Record(_parse(self._text(name), f"{self.folder / name}"), f"{self.folder / name}")

    def _list(self, name: str) -> list[Any]:
        values = _parse(self._text(name), f"{self.folder / name}")
        if not isinstance(values, list):
            raise FormatError(f"{self.folder / name} is {_shown(values)}, expected a list")
        return values

    def _text(self, name: str) -> str:
        name = self.first(name)
        path = self.folder / name
        try:
            content = path.read_bytes()
            text = content.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{path} is not UTF-8: {error}") from error
        except OSError as error:
            raise FormatError(f"{path} cannot be read: {error.strerror}") from error
        self.sha256[name] = hashlib.sha256(content).hexdigest()
        return text


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not valid JSON: {error}") from error


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:60]}…"
