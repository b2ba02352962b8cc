"""From entries to shards: pictures are decoded in processes beside the encoder, which takes them in batches.

A batch is made of entries that follow one another in a shard, whatever the order in which they were decoded, so the
same entries always give the same bytes. It is encoded as soon as it is whole: a picture that takes long holds up its
own batch, and nobody else's while few shards are open. What waits between the stages is bounded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pocketlens._types import Float16s, Float32s, Uint8s
from pocketlens.attributes import record
from pocketlens.codes import to_codes
from pocketlens.listing import Skipped
from pocketlens_export.gallery.decoders import Decoders
from pocketlens_export.gallery.plan import Plan
from pocketlens_export.gallery.scan import Loaded
from pocketlens_export.gallery.shards import Record, Shard, shard_path, write_shard
from pocketlens_export.gallery.sources.entry import Entry

_OPEN_SHARDS = 8
_AHEAD = 64  # pictures that wait for the encoder
_PATIENCE_S = 0.2
_NO_PIXELS: Uint8s = np.zeros((0, 0, 3), dtype=np.uint8)
Outcome = Callable[[bool], None]
"""Told of every entry: whether a picture was read."""


@dataclass(slots=True)
class _Batch:
    """Entries that are encoded together; pixels by place, until they are."""

    shard: _OpenShard
    waiting: int
    pixels: dict[int, Uint8s] = field(default_factory=dict)


@dataclass(slots=True)
class _OpenShard:
    """A shard on its way: outcomes and vectors by place."""

    number: int
    entries: list[Entry | Skipped]
    left: int
    outcomes: dict[int, Loaded | Skipped] = field(default_factory=dict)
    vectors: dict[int, Float32s] = field(default_factory=dict)


class Pipeline:
    """Makes shards of a plan.

    Args:
        plan: what there is.
        folder: where shards are written.
        encode: pixels, uint8 (n, side, side, 3), to unit vectors, float32 (n, dim).
        decoders: decode pictures.
        rotation: of the codes, float32 (dim, dim).
        batch: pictures that are encoded together.
        tell: called for every entry.

    Attributes:
        encode_s, write_s: seconds spent on either.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        encode: Callable[[Uint8s], Float32s],
        decoders: Decoders,
        rotation: Float32s,
        *,
        batch: int,
        tell: Outcome = lambda was_read: None,
    ) -> None:
        self._plan, self._folder = plan, folder
        self._encode, self._decoders, self._rotation = encode, decoders, rotation
        self._batch, self._tell = batch, tell
        self._todo: deque[tuple[_Batch, int]] = deque()  # entries of the newest shard that nobody has
        self._open: dict[int, _OpenShard] = {}
        self._encoding: deque[tuple[_Batch, Future[Float32s]]] = deque()
        self.encode_s = self.write_s = 0.0

    def run(self, numbers: Iterable[int]) -> Iterator[int]:
        """Make shards, and yield each one's number when it stands on the disk.

        Raises:
            NotWritten: the disk is full or failing.
            FormatError: the encoder cannot be run.
            BadQuery: it gives NaN for a picture.
        """
        following = deque(numbers)
        pool = ThreadPoolExecutor(max_workers=1)
        try:
            while True:
                self._fill(following)
                yield from self._written()
                if not self._open and not following:
                    return
                if self._decoders.outstanding:
                    for (batch, place), outcome in self._decoders.wait(_PATIENCE_S):
                        self._take(batch, place, outcome, pool)
                self._collect()
        finally:
            pool.shutdown(cancel_futures=True)

    def _fill(self, following: deque[int]) -> None:
        while self._decoders.has_room:
            if not self._todo:
                if not following or len(self._open) == _OPEN_SHARDS:
                    return
                self._begin(following.popleft())
                continue
            batch, place = self._todo.popleft()
            entry = batch.shard.entries[place]
            assert isinstance(entry, Entry)
            self._decoders.submit((batch, place), entry)

    def _begin(self, number: int) -> None:
        entries = self._plan.entries(number)
        shard = _OpenShard(number, entries, left=len(entries))
        self._open[number] = shard
        places = [place for place, entry in enumerate(entries) if isinstance(entry, Entry)]
        for start in range(0, len(places), self._batch):
            some = places[start : start + self._batch]
            batch = _Batch(shard, waiting=len(some))
            self._todo += [(batch, place) for place in some]
        for place, entry in enumerate(entries):
            if isinstance(entry, Skipped):
                self._note(shard, place, entry)

    def _note(self, shard: _OpenShard, place: int, outcome: Loaded | Skipped) -> None:
        shard.outcomes[place] = outcome
        if isinstance(outcome, Skipped):
            shard.left -= 1
        self._tell(isinstance(outcome, Loaded))

    def _take(self, batch: _Batch, place: int, outcome: Loaded | Skipped, pool: ThreadPoolExecutor) -> None:
        if isinstance(outcome, Loaded):
            batch.pixels[place] = outcome.pixels
            outcome = _without_pixels(outcome)
        self._note(batch.shard, place, outcome)
        batch.waiting -= 1
        if batch.waiting == 0 and batch.pixels:
            self._encoding.append((batch, pool.submit(self._run_encoder, batch)))

    def _run_encoder(self, batch: _Batch) -> Float32s:
        start = time.perf_counter()
        vectors = self._encode(np.stack([batch.pixels[place] for place in sorted(batch.pixels)]))
        self.encode_s += time.perf_counter() - start
        return vectors

    def _collect(self) -> None:
        """Take what the encoder has done; wait for it where too much is ahead of it, or nothing else is under way."""
        while self._encoding:
            batch, future = self._encoding[0]
            must_wait = len(self._encoding) * self._batch > _AHEAD + self._batch or not self._decoders.outstanding
            if not (must_wait or future.done()):
                return
            vectors = future.result()
            self._encoding.popleft()
            batch.shard.vectors |= dict(zip(sorted(batch.pixels), vectors, strict=True))
            batch.shard.left -= len(batch.pixels)
            batch.pixels = {}

    def _written(self) -> Iterator[int]:
        for shard in [shard for shard in self._open.values() if shard.left == 0]:
            start = time.perf_counter()
            write_shard(shard_path(self._folder, shard.number), _close(shard, self._rotation))
            del self._open[shard.number]
            self.write_s += time.perf_counter() - start
            yield shard.number


def _close(shard: _OpenShard, rotation: Float32s) -> Shard:
    """Return the finished shard: a row for all pictures of the same bytes, the first one's vector."""
    rows: dict[str, int] = {}
    vectors: list[Float32s] = []
    records, skipped = [], []
    for place, entry in enumerate(shard.entries):
        outcome = shard.outcomes[place]
        if isinstance(outcome, Skipped):
            skipped.append(outcome)
            continue
        assert isinstance(entry, Entry)
        if outcome.sha256 not in rows:
            rows[outcome.sha256] = len(rows)
            vectors.append(shard.vectors[place])
        attributes = record(entry.attributes, size_bytes=outcome.size_bytes, taken=outcome.taken)
        size = (outcome.width, outcome.height)
        records.append(Record(entry.id, rows[outcome.sha256], entry.uri, *size, outcome.sha256, attributes))
    stacked: Float32s = np.stack(vectors) if vectors else np.zeros((0, len(rotation)), dtype=np.float32)
    halves: Float16s = stacked.astype("<f2")
    return Shard(halves, to_codes(stacked, rotation) if vectors else halves.astype(np.int8), records, skipped)


def _without_pixels(loaded: Loaded) -> Loaded:
    size = (loaded.width, loaded.height)
    return Loaded(loaded.id, loaded.sha256, loaded.size_bytes, *size, loaded.taken, _NO_PIXELS)
