"""items.sqlite: what a gallery knows of each picture, for showing. Never written after the build."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pocketlens.errors import BadQuery, FormatError, NotWritten

_SCHEMA = """
CREATE TABLE items (
  id TEXT PRIMARY KEY NOT NULL,
  row INTEGER NOT NULL,
  uri TEXT NOT NULL,
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  attributes TEXT NOT NULL,
  encoder TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX items_by_row ON items (row, id);
"""
_MANY = 500  # values in one statement; SQLite takes 999 at least
_COLUMNS = {
    "id": str, "row": int, "uri": str, "width": int, "height": int, "sha256": str, "attributes": str, "encoder": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a gallery.

    Attributes:
        id: stable and unique; by default the path relative to the indexed folder, with forward slashes.
        row: its code row. Exact duplicates share one.
        uri: where the picture can be found.
        width, height: of the upright picture, in pixels.
        sha256: hex, over the picture file's bytes.
        attributes: what else is known of it, in the form of `attributes.check_values`: JSON values.
        encoder: name of the model that a device encoded it by; empty where the gallery's own did, on a server.
    """

    id: str
    row: int
    uri: str
    width: int
    height: int
    sha256: str
    attributes: dict[str, Any]
    encoder: str = ""


class Items:
    """Reads an items.sqlite whose hash the caller has checked. Safe to use from several threads.

    Attributes:
        path: the file.
        count: how many items it holds.

    Raises:
        FormatError: the file is not such a database, or an item in it cannot be read.
        BadQuery: it has been closed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        try:
            self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            self.count = int(self._connection.execute("SELECT count(*) FROM items").fetchone()[0])
        except sqlite3.Error as error:
            raise FormatError(f"{path} is not a gallery's item database: {error}") from error

    def of_row(self, row: int) -> list[Item]:
        """Return the items that share a code row, by id."""
        return self._read(f"SELECT {', '.join(_COLUMNS)} FROM items WHERE row = ? ORDER BY id", row)

    def find(self, id: str) -> Item | None:
        """Return the item of an id, if there is one.

        Raises:
            BadQuery: `id` is no string.
        """
        if not isinstance(id, str):
            raise BadQuery(f"an item's id is of type {type(id).__name__}, expected a str")
        try:
            id.encode()
        except UnicodeEncodeError:  # SQLite holds UTF-8, so no item can have it
            return None
        found = self._read(f"SELECT {', '.join(_COLUMNS)} FROM items WHERE id = ?", id)
        return found[0] if found else None

    def rows_of(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the code rows of those ids that items have; ids are text that UTF-8 can hold."""
        return dict(self._select_in("id, row", "id", ids))

    def ids_of(self, rows: Iterable[int]) -> dict[int, list[str]]:
        """Return the ids of the items that share each of these code rows, sorted."""
        found: dict[int, list[str]] = {}
        for row, id in self._select_in("row, id", "row", rows):
            found.setdefault(row, []).append(id)
        return {row: sorted(ids) for row, ids in found.items()}

    def read_all(self) -> list[Item]:
        """Return every item, by row and id."""
        return self._read(f"SELECT {', '.join(_COLUMNS)} FROM items ORDER BY row, id")

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def _select_in(self, columns: str, column: str, values: Iterable[int | str]) -> Iterator[tuple[Any, ...]]:
        wanted = iter(values)
        while some := list(islice(wanted, _MANY)):
            yield from self._fetch(
                f"SELECT {columns} FROM items WHERE {column} IN ({', '.join('?' * len(some))})", *some
            )

    def _read(self, query: str, *values: int | str) -> list[Item]:
        return [_from_record(record, self.path) for record in self._fetch(query, *values)]

    def _fetch(self, query: str, *values: int | str) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.ProgrammingError as error:
            raise BadQuery(f"{self.path} cannot be asked: {error}") from error
        except sqlite3.Error as error:
            raise FormatError(f"{self.path}: the items cannot be read: {error}") from error


def stream_items(path: Path, rows: range | None = None) -> Iterator[Item]:
    """Yield the items of a database, of some rows or all, by row and id, one at a time."""
    within = "" if rows is None else f"WHERE row >= {rows.start} AND row < {rows.stop}"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        for record in connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM items {within} ORDER BY row, id"):
            yield _from_record(record, path)


def stream_ids(path: Path, prefix: str) -> Iterator[str]:
    """Yield the ids of a database that begin with a prefix, which ends with "/", one at a time."""
    after = f"{prefix[:-1]}0"  # "0" follows "/"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        for (id,) in connection.execute("SELECT id FROM items WHERE id >= ? AND id < ?", (prefix, after)):
            yield id


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write a new items.sqlite; the same items in the same order give the same bytes.

    Raises:
        NotWritten: the disk is full or failing.
    """
    try:
        _write(path, items)
    except sqlite3.OperationalError as error:
        raise NotWritten(path, error) from error


def _write(path: Path, items: Iterable[Item]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
        with connection:
            connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(_to_record, items))


def _to_record(item: Item) -> tuple[Any, ...]:
    attributes = json.dumps(item.attributes, sort_keys=True, ensure_ascii=False)
    return (item.id, item.row, item.uri, item.width, item.height, item.sha256, attributes, item.encoder)


def _from_record(record: Sequence[Any], path: Path) -> Item:
    for (name, kind), value in zip(_COLUMNS.items(), record, strict=True):  # SQLite takes any type in any column
        if not isinstance(value, kind):
            raise FormatError(f"{path}: {name} is {value!r}, expected a value of type {kind.__name__}")
    id, row, uri, width, height, sha256, text, encoder = record
    try:
        attributes = json.loads(text)
    except (ValueError, RecursionError):
        attributes = None
    if not isinstance(attributes, dict):
        raise FormatError(f"{path}: attributes are {text[:40]!r}, expected a JSON object")
    return Item(id, row, uri, width, height, sha256, attributes, encoder)
