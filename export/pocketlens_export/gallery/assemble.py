"""From the shards of a run to a gallery: shard by shard in order, so memory does not grow with their number.

Pictures of equal bytes share the row of the first. Which hashes there were is kept on disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import IO

import numpy as np

from pocketlens._types import Float32s
from pocketlens.errors import NotWritten
from pocketlens.gallery_writer import GalleryWriter
from pocketlens.index import CROSSOVER_ROWS
from pocketlens.items import Item
from pocketlens.listing import Skipped
from pocketlens_export.gallery.accounting import Account
from pocketlens_export.gallery.generation import GenerationWriter
from pocketlens_export.gallery.shards import Shard, read_shard, shard_path

_ROWS = "rows.sqlite"
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE rows (sha256 BLOB PRIMARY KEY NOT NULL, row INTEGER NOT NULL) WITHOUT ROWID;
"""


def assemble(
    shards: Path,
    count: int,
    writer: GalleryWriter | GenerationWriter,
    *,
    probes: Callable[[], Float32s | None],
    work: Path,
    skipped_to: IO[str] | None,
    on_shard: Callable[[int], None] = lambda number: None,
    on_skipped: Callable[[Sequence[Skipped]], None] = lambda entries: None,
) -> Account:
    """Write the gallery of all shards, and return what became of every entry.

    Args:
        shards: their folder.
        count: how many there are.
        writer: of an empty folder; it is finished if there is a picture.
        probes: gives text-like queries to tune a search by partitions on.
        work: folder for what is needed meanwhile.
        skipped_to: gets a line of JSON for every entry that was skipped.
        on_shard: called with the number of shards done, of two rounds over them.
        on_skipped: called with the entries that were skipped of each shard, before the writer is finished.

    Raises:
        FormatError: a shard is damaged.
        NotWritten: the disk is full or failing.
    """
    path = work / _ROWS
    path.unlink(missing_ok=True)
    account = Account()
    try:
        with closing(sqlite3.connect(path)) as rows:
            rows.executescript(_SCHEMA)
            for number in range(count):
                shard = read_shard(shard_path(shards, number))
                _add(shard, writer, rows, account, skipped_to)
                on_skipped(shard.skipped)
                on_shard(number + 1)
            if account.rows:
                items = _items(shards, count, rows, lambda number: on_shard(count + number))
                found = probes() if account.rows >= CROSSOVER_ROWS else None
                writer.finish(items, counts=account.counts(), probes=found)
    except sqlite3.OperationalError as error:
        raise NotWritten(path, error) from error
    return account


def _add(
    shard: Shard,
    writer: GalleryWriter | GenerationWriter,
    rows: sqlite3.Connection,
    account: Account,
    skipped_to: IO[str] | None,
) -> None:
    new = []
    for own, records in groupby(sorted(shard.records, key=lambda record: record.row), lambda record: record.row):
        digest = bytes.fromhex(next(records).sha256)
        inserted = rows.execute("INSERT OR IGNORE INTO rows VALUES (?, ?)", (digest, account.rows)).rowcount
        if inserted:
            new.append(own)
            account.rows += 1
    if new:
        writer.add(shard.vectors[new], np.ascontiguousarray(shard.codes[new]))
    account.items += len(shard.records)
    account.skip(shard.skipped)
    if skipped_to is not None:
        skipped_to.writelines(json.dumps(asdict(skipped)) + "\n" for skipped in shard.skipped)


def _items(shards: Path, count: int, rows: sqlite3.Connection, on_shard: Callable[[int], None]) -> Iterator[Item]:
    for number in range(count):
        for each in read_shard(shard_path(shards, number)).records:
            digest = bytes.fromhex(each.sha256)
            (row,) = rows.execute("SELECT row FROM rows WHERE sha256 = ?", (digest,)).fetchone()
            yield Item(each.id, row, each.uri, each.width, each.height, each.sha256, each.attributes)
        on_shard(number + 1)
