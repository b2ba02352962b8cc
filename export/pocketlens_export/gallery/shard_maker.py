"""Makes shards of a run in this process: opens the encoder and its decoders, and runs the pipeline.

The local engine has one of them, Ray one for each of its workers: whoever makes a shard, it is made here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens.encoder import ImageEncoder
from pocketlens.model import Model
from pocketlens_export.gallery.decoders import Decoders, Decoding
from pocketlens_export.gallery.pipeline import Outcome, Pipeline
from pocketlens_export.gallery.plan import Plan


@dataclass(frozen=True, slots=True)
class Work:
    """What making shards of a run takes. It can be sent to another process or machine that has the same files.

    Attributes:
        plan, rotation, shards: files of the run and the folder of its shards.
        model: folder of the gallery encoder.
        decoding: how pictures are decoded.
        threads: of the encoder.
        provider: of onnxruntime.
        batch: pictures that are encoded together.
    """

    plan: Path
    rotation: Path
    shards: Path
    model: Path
    decoding: Decoding
    threads: int
    provider: str
    batch: int


def make_here(work: Work, numbers: Iterable[int], tell: Outcome) -> dict[str, float]:
    """Make shards in this process, and return what share of the time each stage was busy."""
    with ShardMaker(work) as maker:
        for _ in maker.make(numbers, tell):
            pass
        return maker.busy


class ShardMaker:
    """Makes shards. A context manager.

    Attributes:
        busy: what share of the time each stage was busy, by name, of the shards made so far.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._encoder = ImageEncoder(Model.open(work.model), threads=work.threads, provider=work.provider)
        self._plan = Plan(work.plan)
        dim = self._encoder.dim
        self._rotation = np.fromfile(work.rotation, dtype=np.float32).reshape(dim, dim)
        self._decoders = Decoders(work.decoding)
        self.busy: dict[str, float] = {}

    def __enter__(self) -> ShardMaker:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoders.__exit__()
        self._plan.close()

    def make(self, numbers: Iterable[int], tell: Outcome = lambda was_read: None) -> Iterator[int]:
        """Make shards and yield each one's number when it stands on the disk; see `Pipeline.run`."""
        start, before = time.perf_counter(), self._decoders.busy_s
        encode, shards = self._encoder.encode_pixels, self._work.shards
        batch, decoders = self._work.batch, self._decoders
        pipeline = Pipeline(self._plan, shards, encode, decoders, self._rotation, batch=batch, tell=tell)
        for number in pipeline.run(numbers):
            took = max(time.perf_counter() - start, 1e-9)
            self.busy = {
                "decoding": (self._decoders.busy_s - before) / self._work.decoding.processes / took,
                "encoding": pipeline.encode_s / took,
                "writing": pipeline.write_s / took,
            }
            yield number
