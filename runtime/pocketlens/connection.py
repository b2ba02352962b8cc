"""A connection to a SQLite database that several processes change, and SQLite's errors as ours."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketlens.errors import BadQuery, Busy, CorruptFile, FormatError, NotWritten


def connect(path: Path, *, patience: float, alone: bool = False) -> sqlite3.Connection:
    """Open an existing database for threads that take turns. What is committed is on the disk.

    Args:
        path: the database.
        patience: seconds that a statement waits for another connection.
        alone: keep every other connection out, and so need no file that is shared with them.
    """
    uri = path.absolute().as_uri()
    mode = "mode=rw"
    if not os.access(path.parent, os.W_OK) and _is_empty(path.with_name(f"{path.name}-wal")):
        mode = "mode=ro&immutable=1"  # nobody can write here, and SQLite could not make the files that it shares
    connection = sqlite3.connect(
        f"{uri}?{mode}", uri=True, timeout=patience, isolation_level=None, check_same_thread=False
    )
    try:
        if alone:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        for pragma in ("synchronous = FULL", "trusted_schema = OFF", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


_WRITING = frozenset(
    (
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_DELETE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMMAP,
    )
)


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Raise what SQLite raises in the block as `BadQuery` (closed), `Busy`, `CorruptFile` or `FormatError`.

    Where the disk is full, read-only or failing, that is `NotWritten`.
    """
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise BadQuery(f"{path} cannot be asked: {error}") from error
    except (sqlite3.Error, UnicodeDecodeError) as error:  # sqlite3 decodes SQLite's messages, which quote rubbish
        raise _as_ours(error, path) from error


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _as_ours(error: Exception, path: Path) -> Exception:
    extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    code = extended & 0xFF  # the rest says more of the same
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"{path} is being changed by another process; try again")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT):
        return CorruptFile(path, found=str(error), expected="what was committed")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY) or extended in _WRITING:
        return NotWritten(path, error)
    return FormatError(f"{path} cannot be read or written: {error}")
