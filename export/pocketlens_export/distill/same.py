"""Pictures of the same thing: each is drawn to where the heavy tower puts the others.

What finds a thing again in another drawing of it is not what tells drawings apart, and a small tower cannot learn both.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.errors import FormatError
from pocketlens.files import sha256_of
from pocketlens_export.embeddings import Embeddings

COLUMNS = ("file", "thing")


@dataclass(frozen=True, slots=True, eq=False)
class Others:
    """Where other pictures of the same thing lie.

    Attributes:
        means: for each picture the mean of the heavy tower's vectors of the others, scaled to length 1, float32
            (n, dim); zeros where there is none.
        pull: from 0 to 1, how far a picture's own vector is drawn to it.
        sha256: of the table that says which pictures show the same thing.
    """

    means: Float32s
    pull: float
    sha256: str

    @property
    def count(self) -> int:
        """Pictures that have others."""
        return int(self.means.any(axis=1).sum())

    def draw(self, vectors: Float32s, pictures: Int64s) -> Float32s:
        """Return unit vectors, float32 (k, dim), of k pictures, drawn to their others."""
        means = self.means[pictures]
        pull = self.pull * means.any(axis=1, keepdims=True)  # (k, 1)
        drawn = (1 - pull) * vectors + pull * means
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def read_same(path: Path, pictures: Embeddings, rows: Int64s, *, pull: float) -> Others:
    """Return where others of the same thing lie, among the pictures of `rows`.

    Args:
        path: a table, CSV in UTF-8 with the columns file (a picture's id: its path below the folder) and thing.
        pictures: with the heavy tower's vectors.
        rows: those that may be learnt from, int64 (m,).
        pull: from 0 to 1.

    Raises:
        FormatError: the table cannot be read, names a picture twice, or has no two of these pictures of one thing.
    """
    things = _read(path)
    allowed = set(rows.tolist())
    alike: dict[str, list[int]] = defaultdict(list)
    for row, id in enumerate(pictures.ids):
        if id in things:
            alike[things[id]].append(row)
    means = np.zeros_like(pictures.vectors)
    for group in alike.values():
        _add_means(means, pictures.vectors, group, [row for row in group if row in allowed])
    found = Others(means, pull, sha256_of(path))
    if not found.count:
        raise FormatError(
            f"{path} has no two pictures of the same thing among {len(rows)} that are trained on, such as "
            f"{pictures.ids[0]}; its first file is {next(iter(things), 'missing')}"
        )
    return found


def _add_means(means: Float32s, vectors: Float32s, group: Sequence[int], known: Sequence[int]) -> None:
    total = vectors[known].sum(axis=0)
    for row in group:
        others = total - vectors[row] if row in known else total
        if len(known) > (row in known):
            means[row] = others / np.linalg.norm(others)


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            table = csv.DictReader(lines, strict=True)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise FormatError(f"{path} has the columns {table.fieldnames}, expected {', '.join(COLUMNS)}")
            read = [(row["file"], row["thing"]) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path} cannot be read as a table (CSV in UTF-8): {error}") from error
    things = {file: thing for file, thing in read if thing}
    if len({file for file, _ in read}) < len(read):
        twice = next(file for file, _ in read if sum(file == other for other, _ in read) > 1)
        raise FormatError(f"{path} names {twice} twice")
    return things
