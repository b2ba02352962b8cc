"""What there is to do: every picture of every source by number, kept on disk, so that a stopped run can go on.

The plan is made once, before anything is decoded, and put in its place whole. It is a SQLite database of the run's
own; nobody else reads it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pocketlens.additions import MAX_ID
from pocketlens.attributes import RECORDED, Schema, canonical, check_schema, infer_schema
from pocketlens.errors import FormatError, NotWritten
from pocketlens.listing import Skipped
from pocketlens_export.gallery.sources.entry import REPEATED, Entry, Place, Source

SHARD_ENTRIES = 1_024
_SPEED = "".join(  # until the file is whole it is worth nothing
    f"PRAGMA {name}.journal_mode = OFF; PRAGMA {name}.synchronous = OFF;" for name in ("main", "seen")
)
_IDS = "CREATE TABLE seen.ids (id TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID;"
_SCHEMA = """
CREATE TABLE entries (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  uri TEXT, kind TEXT, path BLOB, start INTEGER, size_bytes INTEGER, image_column TEXT, attributes TEXT,
  reason TEXT, detail TEXT
);
CREATE TABLE about (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Plan:
    """A finished plan, opened for reading. It may be used by one thread at a time.

    Attributes:
        total: how many entries there are.
        shard: entries of a shard.
        schema: types of all attributes, those that are recorded first.
        strange: the first of the ids that attributes were given for and no entry has, and how many there are.
        matched: how many ids that attributes were given for are entries.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        about = dict(self._connection.execute("SELECT name, value FROM about"))
        self.total: int = json.loads(about["total"])
        self.shard: int = json.loads(about["shard"])
        self.schema: Schema = json.loads(about["schema"])
        self.strange: tuple[str, int] = tuple(json.loads(about["strange"]))
        self.matched: int = json.loads(about["matched"])
        self._listed: dict[str, list[int]] = json.loads(about["listed"])

    @property
    def shards(self) -> int:
        """How many shards the entries make."""
        return -(-self.total // self.shard)

    def entries(self, number: int) -> list[Entry | Skipped]:
        """Return the entries of a shard, in order."""
        span = (number * self.shard, (number + 1) * self.shard)
        rows = self._connection.execute("SELECT * FROM entries WHERE number >= ? AND number < ? ORDER BY number", span)
        return [self._read(row) for row in rows]

    def check_listed(self) -> None:
        """Raise `FormatError` where a tar, a Parquet file or a list is not as it was: entries are found by place there.

        Size and time of the last change tell.
        """
        for path, before in self._listed.items():
            if _state(path) != before:
                raise FormatError(
                    f"{path} changed since it was listed; put it back as it was to go on, or --restart to begin anew"
                )

    def count_of(self, number: int) -> int:
        """Return how many entries a shard has."""
        return min(self.shard, self.total - number * self.shard)

    def first_id(self) -> str | None:
        """Return the first entry's id; None where there is none."""
        row = self._connection.execute("SELECT id FROM entries WHERE number = 0").fetchone()
        return None if row is None else str(row[0])

    def ids(self) -> Iterator[str]:
        """Yield the id of every entry."""
        return (str(row[0]) for row in self._connection.execute("SELECT id FROM entries"))

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _read(self, row: Sequence[Any]) -> Entry | Skipped:
        _, id, uri, kind, path, start, size_bytes, column, attributes, reason, detail = row
        if reason is not None:
            return Skipped(id, reason, detail)
        kept = json.loads(attributes or "{}")
        values = {name: canonical(name, self.schema[name], value, of=id) for name, value in kept.items()}
        return Entry(id, uri, Place(kind, os.fsdecode(path), start, size_bytes, column), values)


def write_plan(
    path: Path,
    sources: Sequence[Source],
    *,
    given: Mapping[str, Mapping[str, Any]],
    types: Mapping[str, str],
    shard: int = SHARD_ENTRIES,
    on_listed: Callable[[int], None] = lambda count: None,
) -> None:
    """List every source.

    An id that came before is an entry that is skipped. A crash leaves no plan.

    Args:
        path: of the plan, which is not there yet.
        sources: where pictures come from.
        given: attributes by id, in the form of `attributes.check_values`, beside those that sources have.
        types: of attributes by name, all that are given among them; of others they follow from the values.
        shard: entries of a shard.
        on_listed: called with the number of entries, now and then.

    Raises:
        FormatError: a source is none.
        BadQuery: an attribute of a source cannot be one.
        NotWritten: the disk is full or failing.
    """
    unfinished = path.with_name(f"{path.name}.new")
    ids = path.with_name(f"{path.name}.ids")
    for old in (unfinished, ids):
        old.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(unfinished)) as connection:
            connection.execute("ATTACH ? AS seen", (str(ids),))
            connection.executescript(_SPEED + _SCHEMA + _IDS)
            listed = {source.name: state for source in sources if (state := _state(source.name)) is not None}
            with connection:
                connection.execute("INSERT INTO about VALUES ('listed', ?)", (json.dumps(listed),))
                _fill(connection, sources, given, types, on_listed)
                connection.execute("INSERT INTO about VALUES ('shard', ?)", (json.dumps(shard),))
    except sqlite3.OperationalError as error:
        raise NotWritten(path, error) from error
    finally:
        ids.unlink(missing_ok=True)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def _fill(
    connection: sqlite3.Connection,
    sources: Sequence[Source],
    given: Mapping[str, Mapping[str, Any]],
    types: Mapping[str, str],
    on_listed: Callable[[int], None],
) -> None:
    strange = set(given)
    total = 0

    def store() -> Iterator[dict[str, Any]]:
        """Put every entry into the database, and yield the attributes whose types follow from them."""
        nonlocal total
        for entry in (entry for source in sources for entry in source.entries()):
            strange.discard(entry.id)
            free = {} if isinstance(entry, Skipped) else {k: v for k, v in entry.attributes.items() if k not in types}
            _insert(connection, total, entry, {**types, **_schema_of([free])}, given.get(entry.id, {}))
            total += 1
            if total % 1_000 == 0:
                on_listed(total)
            yield free

    schema = check_schema({**_schema_of(store()), **types})
    about = {"total": total, "schema": schema, "strange": [min(strange, default=""), len(strange)],
             "matched": len(given) - len(strange)}  # fmt: skip
    connection.executemany(
        "INSERT INTO about VALUES (?, ?)", [(name, json.dumps(each)) for name, each in about.items()]
    )
    on_listed(total)


def _state(path: str) -> list[int] | None:
    """Return size and time of the last change of a file; None for a folder, and for what is not there."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else None


def _schema_of(values: Iterable[Mapping[str, Any]]) -> Schema:
    return {name: RECORDED.get(name, kind) for name, kind in infer_schema(values).items()}


def _insert(
    connection: sqlite3.Connection,
    number: int,
    entry: Entry | Skipped,
    types: Mapping[str, str],
    given: Mapping[str, Any],
) -> None:
    if not isinstance(entry, Skipped) and (len(entry.id) > MAX_ID or "\0" in entry.id):
        detail = f"expected at most {MAX_ID:,} characters, none of them NUL"
        entry = Skipped(f"{entry.id[:60]!r}", "id cannot be one", detail)
    if not isinstance(entry, Skipped):
        taken = connection.execute("INSERT OR IGNORE INTO seen.ids VALUES (?)", (entry.id,)).rowcount == 0
        if taken:
            entry = Skipped(entry.id, REPEATED, f"{entry.uri} has the id of an earlier one")
    if isinstance(entry, Skipped):
        values: tuple[Any, ...] = (entry.id, *[None] * 7, entry.reason, entry.detail)
    else:
        place = entry.place
        where = (place.kind, os.fsencode(place.path), place.start, place.size_bytes, place.column)
        attributes = {**_plain(entry, types), **given}
        values = (entry.id, entry.uri, *where, json.dumps(attributes) if attributes else None, None, None)
    connection.execute(f"INSERT INTO entries VALUES ({', '.join('?' * 11)})", (number, *values))


def _plain(entry: Entry, types: Mapping[str, str]) -> dict[str, Any]:
    """Return an entry's attributes in the form that they are kept in; those without a value have no type."""
    values = {}
    for name, value in entry.attributes.items():
        if name in types:
            values[name] = canonical(name, types[name], value, of=entry.id)  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if value is not None}
