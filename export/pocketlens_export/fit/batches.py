"""Which rows a step is trained on: a function of seed and step alone, so that a resumed run sees the same."""

from __future__ import annotations

import numpy as np

from pocketlens._types import Int64s

_CHUNK = 32  # batches of texts that are sorted by length together; more save padding and mix less


class Batches:
    """Epochs over `count` rows in batches of rows alike in length, in random order.

    Args:
        lengths: int64 (count,), of the rows; equal lengths leave the order to chance.
        batch: rows of a step; at most count are taken.
        seed: of the order.
    """

    def __init__(self, lengths: Int64s, batch: int, *, seed: int) -> None:
        self._lengths = lengths
        self._batch = min(batch, len(lengths))
        self._seed = seed
        self._epoch, self._order = -1, np.zeros((0, self._batch), dtype=np.int64)

    def rows(self, step: int) -> Int64s:
        """Return the rows of a step from 0 on, int64 (batch,)."""
        epoch, number = divmod(step, len(self._lengths) // self._batch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        rows: Int64s = self._order[number]
        return rows

    def _shuffled(self, epoch: int) -> Int64s:
        rng = np.random.default_rng([self._seed, epoch])
        whole = len(self._lengths) // self._batch * self._batch
        order = rng.permutation(len(self._lengths))[:whole]  # the rest gets its turn in other epochs
        for start in range(0, whole, _CHUNK * self._batch):
            chunk = order[start : start + _CHUNK * self._batch]
            order[start : start + len(chunk)] = chunk[np.argsort(self._lengths[chunk], kind="stable")]
        return rng.permutation(order.reshape(-1, self._batch), axis=0)
