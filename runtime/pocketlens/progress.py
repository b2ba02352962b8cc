"""A bar with an ETA on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def show_progress(label: str, *, counted: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that draws a bar with an ETA on stderr; silent where stderr is no terminal.

    Args:
        label: what is going on.
        counted: show the two numbers too.
    """
    if not sys.stderr.isatty():  # click would still print the label
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, show_pos=counted, update_min_steps=1) as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield show
