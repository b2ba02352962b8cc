"""local.sqlite: what a device has added to its bundle and removed from it. The shipped gallery itself never changes.

A transaction is on the disk when its COMMIT returns (WAL, synchronous=FULL). SQLite notices little of what a rotten
card does to its pages, so every row has a checksum, and one seal covers them all: a row that was changed, lost or came
back is found when the store is read, and named. The store belongs to one gallery and is refused beside any other.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Float16s
from pocketlens.connection import connect, typed_errors
from pocketlens.errors import CorruptFile, FormatError
from pocketlens.files import write_file
from pocketlens.forks import keep_after_fork
from pocketlens.items import Item

NAME = "local.sqlite"
FILES = (NAME, f"{NAME}-wal", f"{NAME}-shm")
FORMAT = "pocketlens-local"
VERSION = 1
PATIENCE = 10.0  # seconds that a transaction waits for another to end
_TABLES = {
    "base": "CREATE TABLE base (format TEXT, version INTEGER, gallery TEXT, space TEXT, dim INTEGER, seal BLOB)",
    "items": "CREATE TABLE items (id TEXT PRIMARY KEY NOT NULL, uri TEXT, width INTEGER, height INTEGER, sha256 TEXT, "
    "attributes TEXT, encoder TEXT, graph_sha256 TEXT, vector BLOB, checksum BLOB) WITHOUT ROWID",
    "removed": "CREATE TABLE removed (id TEXT PRIMARY KEY NOT NULL, checksum BLOB) WITHOUT ROWID",
}
_COLUMNS = {
    "id": str, "uri": str, "width": int, "height": int, "sha256": str, "attributes": str, "encoder": str,
    "graph_sha256": str, "vector": bytes,
}  # fmt: skip
_WAL = slice(18, 20)  # bytes of the header that say which journal is used; 2 is WAL (sqlite.org/fileformat.html)
NO_ROW = -1
_MANY = 500  # ids in one statement; SQLite takes 999 at least


@dataclass(frozen=True, slots=True)
class Base:
    """What a store belongs to: the sha256 of gallery.json, the id of its space and the vectors' width."""

    gallery: str
    space: str
    dim: int


@dataclass(frozen=True, slots=True)
class Addition:
    """An item that the device added.

    Attributes:
        item: what is known of the picture; its row is -1.
        graph_sha256: of the image tower that encoded it.
        vector: float16 (dim,), a unit vector of the gallery's space.
    """

    item: Item
    graph_sha256: str
    vector: Float16s


@dataclass(frozen=True, slots=True)
class Local:
    """One committed state of a store.

    Attributes:
        additions: by id, in the order of ids.
        removed: ids of shipped items that are no more.
    """

    additions: Mapping[str, Addition]
    removed: frozenset[str]


NOTHING = Local({}, frozenset())


class Store:
    """A connection to a bundle's local.sqlite. It may be used from several threads.

    Args:
        folder: the bundle.
        base: what it must belong to.
        patience: seconds that a transaction waits for another to end.
        alone: keep every other connection out.

    Raises:
        FormatError: it is of another version or gallery, or cannot be opened (NotWritten: the disk is so full that
            SQLite cannot make the file that connections share; `alone` needs none).
        CorruptFile: it is no such store.
    """

    def __init__(self, folder: Path, base: Base, *, patience: float = PATIENCE, alone: bool = False) -> None:
        self.path = folder / NAME
        self._base = base
        self._lock = threading.RLock()
        self._known: dict[tuple[str, bytes], Addition] = {}  # by id and checksum
        with typed_errors(self.path):
            self._connection = connect(self.path, patience=patience, alone=alone)
        keep_after_fork(self, self._connection)
        try:
            with typed_errors(self.path):
                self._check()
        except BaseException:
            self._connection.close()
            raise

    def version(self) -> int:
        """Return a number that changes whenever another connection has committed."""
        with self._lock, typed_errors(self.path):
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def read(self) -> Local:
        """Return the state that was committed last; within a transaction, what it has made of it.

        Raises:
            CorruptFile: a row, or the file, is damaged.
        """
        with self._lock, typed_errors(self.path):
            with nullcontext() if self._connection.in_transaction else self._transaction("BEGIN"):
                seal = self._connection.execute("SELECT seal FROM base").fetchone()[0]
                items = self._connection.execute("SELECT id, checksum FROM items ORDER BY id").fetchall()
                removed = self._connection.execute("SELECT id, checksum FROM removed").fetchall()
                self._fetch([id for id, checksum in items if (id, checksum) not in self._known])
            for id, checksum in removed:
                self._expect(checksum == _sum("removed", id), f"a damaged removal of {id!r}")
            found = _sealed(self._base_sum(), [checksum for _, checksum in (*items, *removed)])
            self._expect(seal == found, "a seal that does not fit the rows: some are lost, or came back")
            self._known = {key: self._known[key] for key in items}
            return Local({key[0]: self._known[key] for key in items}, frozenset(id for id, _ in removed))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make `put`, `drop` and `remove` within the block one: all of them are kept, or none.

        Raises:
            Busy: another transaction did not end in time.
            FormatError: the store cannot be written.
        """
        with self._lock, typed_errors(self.path), self._transaction("BEGIN IMMEDIATE"):
            yield

    def has_added(self, id: str) -> bool:
        """Return whether an item of this id was added."""
        with self._lock, typed_errors(self.path):
            return self._checksum("items", id) is not None

    def has_removed(self, id: str) -> bool:
        """Return whether the shipped item of this id was removed."""
        with self._lock, typed_errors(self.path):
            return self._checksum("removed", id) is not None

    def put(self, addition: Addition) -> None:
        """Keep an item, in the place of one of the same id."""
        assert addition.vector.dtype == np.float16 and addition.vector.shape == (self._base.dim,)
        self.drop(addition.item.id)
        record = _to_record(addition)
        checksum = _sum("item", *record)
        with self._lock, typed_errors(self.path):
            self._connection.execute(f"INSERT INTO items VALUES ({', '.join('?' * 10)})", (*record, checksum))
            self._reseal(checksum)

    def drop(self, id: str) -> None:
        """Forget what the store says of an id, whether it was added or removed."""
        with self._lock, typed_errors(self.path):
            for table in ("items", "removed"):
                checksum = self._checksum(table, id)
                if checksum is not None:
                    self._connection.execute(f"DELETE FROM {table} WHERE id = ?", (id,))
                    self._reseal(checksum)

    def remove(self, id: str) -> None:
        """Remember that the shipped item of this id is no more."""
        self.drop(id)
        checksum = _sum("removed", id)
        with self._lock, typed_errors(self.path):
            self._connection.execute("INSERT INTO removed VALUES (?, ?)", (id, checksum))
            self._reseal(checksum)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def _check(self) -> None:
        answer = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        self._expect(answer == "ok", str(answer))
        tables: dict[str, str] = dict(self._connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
        self._expect(tables == _TABLES, f"tables {', '.join(map(repr, tables)) or 'none'}, or other columns")
        rows = self._connection.execute("SELECT format, version, gallery, space, dim FROM base").fetchall()
        self._expect(len(rows) == 1, f"{len(rows)} rows in the table base")
        format, version, gallery, space, dim = rows[0]
        if (format, version) != (FORMAT, VERSION):
            raise FormatError(
                f"{self.path}: format is {format!r}, version {version!r}; this pocketlens reads {FORMAT!r}, {VERSION}"
            )
        base = self._base
        if (gallery, space, dim) != (base.gallery, base.space, base.dim):
            raise FormatError(
                f"{self.path} belongs to the gallery {str(gallery)[:16]}… in space {space} ({dim}-d), but the bundle's "
                f"is {base.gallery[:16]}… in space {base.space} ({base.dim}-d); put the right one back, or remove "
                f"{', '.join(FILES)} to go without what was added and removed"
            )

    def _fetch(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _MANY):
            some = ids[start : start + _MANY]
            query = f"SELECT * FROM items WHERE id IN ({', '.join('?' * len(some))})"
            for record in self._connection.execute(query, some):
                self._known[record[0], record[-1]] = self._addition(record)

    def _addition(self, record: Sequence[Any]) -> Addition:
        *values, checksum = record
        id, uri, width, height, sha256, attributes, encoder, graph_sha256, vector = values
        what = f"damaged item {id!r}, which pocketlens remove lets go of"
        typed = all(isinstance(value, kind) for value, kind in zip(values, _COLUMNS.values(), strict=True))
        self._expect(typed and checksum == _sum("item", *values) and len(vector) == 2 * self._base.dim, what)
        item = Item(id, NO_ROW, uri, width, height, sha256, json.loads(attributes), encoder)
        return Addition(item, graph_sha256, np.frombuffer(vector, dtype="<f2"))

    def _checksum(self, table: str, id: str) -> bytes | None:
        found = self._connection.execute(f"SELECT checksum FROM {table} WHERE id = ?", (id,)).fetchone()
        if found is None:
            return None
        sound = isinstance(found[0], bytes) and len(found[0]) == 32
        return found[0] if sound else b""  # the seal will tell

    def _reseal(self, checksum: bytes) -> None:
        seal = self._connection.execute("SELECT seal FROM base").fetchone()[0]
        self._expect(isinstance(seal, bytes) and len(seal) == 32, "a damaged seal")
        self._connection.execute("UPDATE base SET seal = ?", (_sealed(seal, [checksum]),))

    def _base_sum(self) -> bytes:
        return _sum("base", self._base.gallery, self._base.space, self._base.dim)

    def _expect(self, ok: bool, found: str) -> None:
        if not ok:
            raise CorruptFile(self.path, found=found, expected="what was committed")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise


def create_store(folder: Path, base: Base) -> None:
    """Write an empty local.sqlite into a bundle that has none. The caller holds the bundle's lock alone."""
    remove_stale(folder)
    seal = _sum("base", base.gallery, base.space, base.dim)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in _TABLES.values():
            connection.execute(statement)
        values = (FORMAT, VERSION, base.gallery, base.space, base.dim, seal)
        connection.execute("INSERT INTO base VALUES (?, ?, ?, ?, ?, ?)", values)
        content = bytearray(connection.serialize())
    content[_WAL] = b"\2\2"
    write_file(folder / NAME, bytes(content))


def read_alone(folder: Path, base: Base) -> Local:
    """Return the committed state of a store on a full disk, which is not kept open.

    Raises:
        Busy: another process has it open.
        FormatError, CorruptFile: as `Store`.
    """
    with closing(Store(folder, base, alone=True)) as store:
        return store.read()


def signature(folder: Path) -> tuple[tuple[int, int], ...]:
    """Return what changes with every commit to a store that nobody keeps open here: sizes and times of its files."""
    found = []
    for path in map(folder.joinpath, FILES[:2]):
        with suppress(FileNotFoundError):  # not there, or removed by who closed the store last
            stat = path.stat()
            found.append((stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def remove_stale(folder: Path) -> None:
    """Remove what is left of a store that was lost or half made. The caller holds the lock alone; there is no store."""
    for stale in (*map(folder.joinpath, FILES[1:]), *folder.glob(f".{NAME}.*")):
        stale.unlink(missing_ok=True)


def _to_record(addition: Addition) -> tuple[Any, ...]:
    item = addition.item
    attributes = json.dumps(item.attributes, sort_keys=True, ensure_ascii=False)
    known = (item.id, item.uri, item.width, item.height, item.sha256, attributes)
    return (*known, item.encoder, addition.graph_sha256, addition.vector.astype("<f2").tobytes())


def _sum(*values: Any) -> bytes:
    """Return the sha256 of values: text, integers and bytes, each with its type and length."""
    digest = hashlib.sha256()
    for value in values:
        content = value if isinstance(value, bytes) else str(value).encode()
        digest.update(f"{type(value).__name__} {len(content)} ".encode() + content)
    return digest.digest()


def _sealed(seal: bytes, checksums: Sequence[bytes]) -> bytes:
    """Return a seal with checksums taken in or out, which is the same: the exclusive or of them all."""
    value = int.from_bytes(seal)
    for checksum in checksums:
        value ^= int.from_bytes(checksum)
    return value.to_bytes(32)
