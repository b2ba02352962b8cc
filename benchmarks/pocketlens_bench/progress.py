"""A bar for what takes long, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import click

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told of a stage: its name, how much is done, and of how much."""


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yield a callback that draws a bar with an ETA on stderr for every stage; silent where it is no terminal."""
    if not sys.stderr.isatty():  # click would still print the label
        yield lambda what, done, of: None
        return
    with ExitStack() as stage:
        bar: Any = None
        drawn = ("", 0)

        def show(what: str, done: int, of: int) -> None:
            nonlocal bar, drawn
            if what != drawn[0]:
                stage.close()  # the stage before is over
                steps = max(1, of // 1_000)
                bar = click.progressbar(length=of, label=what, file=sys.stderr, show_pos=True, update_min_steps=steps)
                stage.enter_context(bar)
                drawn = (what, 0)
            bar.update(done - drawn[1])
            drawn = (what, done)

        yield show
