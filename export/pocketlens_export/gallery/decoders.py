"""Processes that decode pictures beside the encoder, and what becomes of pictures that kill or hang one.

Each process has at most two pictures, so that none waits for the next, and answers in order: when it dies or takes too
long, the first of them did it. That one is tried once more, alone in a process; if it does it again, it is skipped.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from pocketlens._types import Uint8s
from pocketlens.decoders import SERVER, Limits
from pocketlens.errors import FormatError, PocketlensError
from pocketlens.listing import Skipped
from pocketlens.model import PictureSpec
from pocketlens_export.gallery.frames import Ended, read_frame, write_frame
from pocketlens_export.gallery.scan import Loaded
from pocketlens_export.gallery.sources.entry import Entry
from pocketlens_export.gallery.sources.parquet import RowReader

DIED = "killed its decoder"
HUNG = "took too long"
DEADLINE_S = 30.0
MEMORY_BYTES = 2 << 30
_AHEAD = 2  # pictures that a process has at most
_A_FEW = 8  # pictures that are not worth another process
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # fcntl.F_SETPIPE_SZ, Linux
_START_S = 120.0
_LAST_S = 5.0  # from closing its pipes to being gone


@dataclass(frozen=True, slots=True)
class Decoding:
    """How pictures are decoded.

    Attributes:
        spec: what the image tower takes.
        limits: which formats, and how large pictures may be.
        processes: how many decode at once.
        deadline_s: how long a picture may take, in seconds.
        memory_bytes: what a process may take beyond what it starts with.
    """

    spec: PictureSpec
    processes: int
    limits: Limits = SERVER
    deadline_s: float = DEADLINE_S
    memory_bytes: int = MEMORY_BYTES


@dataclass(slots=True)
class _Job:
    key: Any
    entry: Entry
    tried: bool = False


class Decoders:
    """Decodes pictures in several processes. A context manager; used by one thread.

    Attributes:
        busy_s: seconds that the processes have spent on pictures that came to an end.
    """

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._waiting: deque[_Job] = deque()
        self._alone: deque[_Job] = deque()
        self._rows = RowReader()
        self._unread: list[tuple[Any, Skipped]] = []
        self._processes: list[_Process] = []
        self._taken = 0
        self._selector = selectors.DefaultSelector()
        self.busy_s = 0.0

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.end()
        self._processes = []
        self._selector.close()

    @property
    def outstanding(self) -> int:
        """How many pictures have no outcome yet."""
        given = sum(len(process.jobs) for process in self._processes)
        return given + len(self._waiting) + len(self._alone) + len(self._unread)

    @property
    def has_room(self) -> bool:
        """Whether another picture would soon be begun."""
        return len(self._waiting) + len(self._alone) + len(self._unread) < self._decoding.processes

    def submit(self, key: Any, entry: Entry) -> None:
        """Take a picture; its outcome comes with this key."""
        self._waiting.append(_Job(key, entry))
        self._taken += 1
        self._hand_out()

    def wait(self, timeout_s: float) -> Iterator[tuple[Any, Loaded | Skipped]]:
        """Yield keys and outcomes that came within the time, as soon as there is one; in no order.

        Raises:
            PocketlensError: decoders cannot be started.
        """
        while self._unread:
            yield self._unread.pop()
        now = time.monotonic()
        ends = [process.ends_at for process in self._processes if process.jobs]
        until = min([now + timeout_s, *ends])
        for key, _ in self._selector.select(max(until - now, 0.0)):
            process: _Process = key.data
            try:
                found = process.read()
            except Ended:
                yield from self._failed(process, DIED)
                continue
            if found is not None:
                job, outcome, seconds = found
                self.busy_s += seconds
                yield job.key, outcome
        late = time.monotonic()
        for process in [each for each in self._processes if each.jobs and each.ends_at <= late]:
            yield from self._failed(process, HUNG)
        self._hand_out()

    def _hand_out(self) -> None:
        if len(self._processes) < self._decoding.processes and self._taken > _A_FEW * len(self._processes):
            self._start()
        for before in range(_AHEAD):
            for process in self._processes:
                if len(process.jobs) == before and not process.is_alone:
                    self._give(process)

    def _give(self, process: _Process) -> None:
        """Hand a process its next job, if there is one that it can take."""
        if not process.jobs and self._alone:
            job, process.is_alone = self._alone.popleft(), True
        elif self._waiting and not (process.jobs and self._waiting[0].entry.place.kind == "row"):
            job = self._waiting.popleft()  # a row's bytes fill the pipe, so they wait until the process reads
        else:
            return
        try:
            content = self._rows.read(job.entry.place) if job.entry.place.kind == "row" else b""
        except FormatError as error:
            self._unread.append((job.key, Skipped(job.entry.id, "unreadable", str(error))))
            return
        process.give(job, content)

    def _failed(self, process: _Process, reason: str) -> Iterator[tuple[Any, Skipped]]:
        """End a process; yield its first picture's outcome if that was tried before."""
        self._selector.unregister(process.answers)
        self._processes.remove(process)
        code = process.end(patience_s=_LAST_S if reason == DIED else 0.0)
        if not process.is_ready:
            raise PocketlensError(f"a decoder process ended with {code} before its first picture")
        jobs = process.jobs
        if jobs:
            first = jobs.popleft()
            if first.tried:
                detail = f"twice, alone the second time; {_of(code) if reason == DIED else self._deadline()}"
                yield first.key, Skipped(first.entry.id, reason, detail)
            else:
                first.tried = True
                self._alone.append(first)
        self._waiting.extendleft(reversed(jobs))

    def _deadline(self) -> str:
        return f"more than {self._decoding.deadline_s:g} s"

    def _start(self) -> None:
        process = _Process(self._decoding)
        self._processes.append(process)
        self._selector.register(process.answers, selectors.EVENT_READ, process)


class _Process:
    """One process and the pictures that it has."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        told = {
            "spec": asdict(decoding.spec), "formats": decoding.limits.formats,
            "file_bytes": decoding.limits.file_bytes, "pixels": dict(decoding.limits.pixels),
            "memory_bytes": decoding.memory_bytes, "alarm_s": 2 * decoding.deadline_s + 5,
        }  # fmt: skip
        command = [sys.executable, "-m", "pocketlens_export.gallery.decoder_process", json.dumps(told)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, env=environment)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._orders, self.answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        _enlarge(self.answers)
        self.jobs: deque[_Job] = deque()
        self.is_ready = False
        self.is_alone = False
        self._since = time.monotonic()

    @property
    def ends_at(self) -> float:
        """When its first picture has taken too long, by the monotonic clock."""
        return self._since + (self._decoding.deadline_s if self.is_ready else _START_S)

    def give(self, job: _Job, content: bytes) -> None:
        if not self.jobs and self.is_ready:
            self._since = time.monotonic()
        self.jobs.append(job)
        place = job.entry.place
        order = {"kind": place.kind, "path": place.path, "start": place.start, "size_bytes": place.size_bytes}
        with suppress(Ended):  # its end is noticed when its answer is read
            write_frame(self._orders, order, content)

    def read(self) -> tuple[_Job, Loaded | Skipped, float] | None:
        """Return what became of its first picture; None when it tells that it is ready."""
        about, content = read_frame(self.answers)
        self._since = time.monotonic()
        if not self.is_ready:
            self.is_ready = True
            return None
        job = self.jobs.popleft()
        self.is_alone = False
        seconds = about.pop("seconds")
        if "reason" in about:
            return job, Skipped(job.entry.id, about["reason"], about["detail"]), seconds
        return job, Loaded(job.entry.id, **about, pixels=self._pixels(content)), seconds

    def _pixels(self, content: Uint8s) -> Uint8s:
        side = self._decoding.spec.side
        return content.reshape(side, side, 3)

    def end(self, *, patience_s: float = 0.0) -> int:
        """End it, if it does not by itself in time, and return its exit code."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return self._process.wait()


def _of(code: int) -> str:
    """Return how a process ended, in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _enlarge(handle: int) -> None:
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(handle, _SET_PIPE_SIZE, _PIPE_BYTES)
