"""A shard: what encoding some entries gave, in one file that is written whole or not at all.

What a shard holds depends on its entries, the model and the settings of the run, and on nothing else: not on who made
it, when, or beside what.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Float16s, Int8s, Uint8s
from pocketlens.errors import FormatError
from pocketlens.files import read_arrays, write_file
from pocketlens.listing import Skipped


@dataclass(frozen=True, slots=True)
class Record:
    """A picture of a shard, as `items.Item`, but `row` is one of the shard's own."""

    id: str
    row: int
    uri: str
    width: int
    height: int
    sha256: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shard:
    """What became of some entries.

    Attributes:
        vectors: float16 (n, dim), the different pictures'; those of equal bytes share a row.
        codes: int8 (n, dim), theirs.
        records: pictures that were read, in the order of the entries.
        skipped: entries without one, in their order.
    """

    vectors: Float16s
    codes: Int8s
    records: Sequence[Record]
    skipped: Sequence[Skipped]


def shard_path(folder: Path, number: int) -> Path:
    """Return where a shard of a run stands."""
    return folder / f"{number:07}.npz"


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard; a crash leaves none.

    Raises:
        NotWritten: the disk is full or failing.
    """
    buffer = io.BytesIO()
    np.savez(
        buffer,
        vectors=shard.vectors,
        codes=shard.codes,
        records=_to_bytes([asdict(record) for record in shard.records]),
        skipped=_to_bytes([asdict(skipped) for skipped in shard.skipped]),
    )
    write_file(path, buffer.getvalue())


def read_shard(path: Path) -> Shard:
    """Return a shard that was written.

    Raises:
        FormatError: it is damaged.
    """
    try:
        arrays = read_arrays(path, ["vectors", "codes", "records", "skipped"])
        records = [Record(**record) for record in json.loads(arrays["records"].tobytes())]
        skipped = [Skipped(**each) for each in json.loads(arrays["skipped"].tobytes())]
    except (FormatError, ValueError, TypeError) as error:
        raise FormatError(f"{path} is damaged: {error}; remove it, and the same command makes it again") from error
    return Shard(arrays["vectors"], arrays["codes"], records, skipped)


def _to_bytes(values: Any) -> Uint8s:
    return np.frombuffer(json.dumps(values, ensure_ascii=False).encode(), dtype=np.uint8)
