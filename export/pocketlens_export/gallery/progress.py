"""How far a run is: for people a bar or now and then a line, for machines lines of JSON and a heartbeat file."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import click

from pocketlens.errors import NotWritten
from pocketlens.files import write_file

_WINDOW_S = 60.0  # that the rate is of
_BAR_S, _JSON_S, _LINE_S, _HEARTBEAT_S = 0.2, 2.0, 30.0, 5.0
_BAR_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: "listing", "encoding" or "assembling".
        done, total: entries, of an unknown number while they are listed.
        skipped: entries without a picture, of those done by this process.
        per_second: entries, over the last minute.
        left_s: seconds to the end of the stage; None while unknown.
    """

    stage: str
    done: int
    total: int | None
    skipped: int
    per_second: float
    left_s: float | None


Show: TypeAlias = Callable[[Progress], None]
"""Shows progress; called often, and for the last time when a stage ends."""


@dataclass(slots=True)
class Watch:
    """Follows a run and shows it.

    Attributes:
        shows: who is shown the progress.
        on_entry: called with (entries done, entries in all) for every one.
        seconds: by stage, what each took.
    """

    shows: list[Show] = field(default_factory=list)
    on_entry: Callable[[int, int], None] = lambda done, total: None
    seconds: dict[str, float] = field(default_factory=dict)
    _stage: str = ""
    _since: float = 0.0
    _done: int = 0
    _total: int | None = None
    _skipped: int = 0
    _past: deque[tuple[float, int]] = field(default_factory=deque)
    _shown: float = 0.0

    def begin(self, stage: str, *, done: int = 0, total: int | None = None) -> None:
        """Begin a stage of which some may have been done by an earlier run."""
        self.end()
        self._stage, self._since, self._done, self._total = stage, time.monotonic(), done, total
        self._past.clear()

    @property
    def has_begun(self) -> bool:
        """Whether there was a stage."""
        return bool(self._stage or self.seconds)

    def took(self, stage: str, seconds: float) -> None:
        """Count some of the present stage's time as another's."""
        self.seconds[stage] = seconds
        self._since += seconds

    def end(self) -> None:
        """End the stage."""
        if self._stage:
            self._show(time.monotonic())
            self.seconds[self._stage] = time.monotonic() - self._since
        self._stage = ""

    def step(self, was_read: bool) -> None:
        """Count an entry."""
        self.reach(self._done + 1, skipped=0 if was_read else 1)
        if self._total is not None:
            self.on_entry(self._done, self._total)

    def reach(self, done: int, *, skipped: int = 0) -> None:
        """Tell how many entries are done."""
        self._done = done
        self._skipped += skipped
        now = time.monotonic()
        if now - self._shown >= _BAR_S:
            self._show(now)

    def _show(self, now: float) -> None:
        self._shown = now
        self._past.append((now, self._done))
        while now - self._past[0][0] > _WINDOW_S and len(self._past) > 2:
            self._past.popleft()
        began, before = self._past[0] if len(self._past) > 1 else (self._since, self._done)
        rate = (self._done - before) / (now - began) if now > began else 0.0
        left = None if self._total is None or rate <= 0 else (self._total - self._done) / rate
        progress = Progress(self._stage, self._done, self._total, self._skipped, rate, left)
        for show in self.shows:
            show(progress)


class Bar:
    """One line on a terminal, rewritten; it appears after a second."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._is_drawn = False

    def __call__(self, progress: Progress) -> None:
        """Draw it."""
        if time.monotonic() - self._began > 1.0:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r{bar_of(progress)[:width]:{width}}")
            sys.stderr.flush()
            self._is_drawn = True

    def clear(self) -> None:
        """Leave the line empty for others."""
        if self._is_drawn:
            sys.stderr.write(f"\r{' ' * (shutil.get_terminal_size().columns - 1)}\r")
            sys.stderr.flush()


class Lines:
    """Lines on stderr: of JSON every two seconds, or for people every half minute where no terminal shows a bar."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Print one, if it is time."""
        now = time.monotonic()
        if now - self._last >= (_JSON_S if self._as_json else _LINE_S):
            self._last = now
            line = json.dumps({"event": "progress", **_rounded(progress)}) if self._as_json else bar_of(progress)
            click.echo(line, err=True)


class Heartbeat:
    """A small file of JSON that is replaced every five seconds, for whoever watches from outside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        """Write it, if it is time."""
        now = time.monotonic()
        if now - self._last >= _HEARTBEAT_S:
            self._last = now
            told = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **_rounded(progress)}
            with suppress(NotWritten):  # what must be written will tell
                write_file(self._path, (json.dumps(told) + "\n").encode())


def bar_of(progress: Progress) -> str:
    """Return a line for people."""
    if progress.total is None:
        return f"{progress.stage} {progress.done:,} found"
    share = progress.done / progress.total if progress.total else 1.0
    filled = round(share * _BAR_WIDTH)
    parts = [f"{progress.stage} {'█' * filled}{'░' * (_BAR_WIDTH - filled)} {progress.done:,}/{progress.total:,}"]
    parts.append(f"{progress.per_second:,.0f}/s")
    if progress.left_s is not None:
        parts.append(f"{duration(progress.left_s)} left")
    if progress.skipped:
        parts.append(f"{progress.skipped:,} skipped")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Return a time as people say it: 40 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def shares_of(busy: Mapping[str, float]) -> list[str]:
    """Return a line for each stage with the share of the time that it was busy, the slowest first."""
    ordered = sorted(busy.items(), key=lambda item: -item[1])
    lines = []
    for name, share in ordered:
        filled = round(min(share, 1.0) * _BAR_WIDTH)
        lines.append(f"  {name:10} {'█' * filled}{'░' * (_BAR_WIDTH - filled)} {share:4.0%} busy")
    return lines


def _rounded(progress: Progress) -> dict[str, object]:
    return {name: round(value, 1) if isinstance(value, float) else value for name, value in asdict(progress).items()}
