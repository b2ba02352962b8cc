"""Training, validation and test rows by the hash of their content: a picture stays on its side in every collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pocketlens._types import Int64s

ONE_IN = 10


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows, int64 (k,) each, rising: to fit on, to choose by, and to report once."""

    train: Int64s
    validation: Int64s
    test: Int64s


def split_rows(sha256: Sequence[str]) -> Split:
    """Return a split of n contents: a tenth for validation, a tenth for the test, the rest to train on.

    Of three or more contents each part has one at least.

    Args:
        sha256: of every content, hex; all different.
    """
    keys = np.array([int(digest[:16], 16) for digest in sha256], dtype=np.uint64)
    part = np.minimum(keys % np.uint64(ONE_IN), np.uint64(2)).astype(np.int64)  # 0 test, 1 validation, 2 training
    by_hash = np.argsort(keys, kind="stable")
    for wanted in (0, 1, 2):
        if len(keys) >= 3 and not (part == wanted).any():
            counts = np.bincount(part, minlength=3)
            part[next(row for row in by_hash if counts[part[row]] > 1)] = wanted
    test, validation, train = (np.flatnonzero(part == each).astype(np.int64) for each in (0, 1, 2))
    return Split(train, validation, test)
