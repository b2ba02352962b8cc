"""Forks: what was opened before one cannot be used after it.

Threads of onnxruntime and locks that others held stay with the parent, and SQLite loses track of its own. So everything
that is opened remembers the process it was opened in, and a child that uses it gets an error instead of a wait.
Nor may a child close it: a session would wait for its threads, a connection end the parent's locks. (With onnxruntime
imported, a child must end with os._exit, as multiprocessing's do: its own exit handlers wait in any fork.)
"""

from __future__ import annotations

import ctypes
import os
from weakref import WeakKeyDictionary

from pocketlens.errors import Forked


class _Mark:
    """Stands for one process; a fork gets another."""

    def __init__(self) -> None:
        self.id = os.getpid()


_mark = _Mark()
_kept: WeakKeyDictionary[object, object] = WeakKeyDictionary()  # by who opened them


class Process:
    """The process that something was opened in."""

    __slots__ = ("_mark",)

    def __init__(self) -> None:
        self._mark = _mark

    @property
    def is_here(self) -> bool:
        """Whether this is that process."""
        return self._mark is _mark

    def check(self, what: str) -> None:
        """Raise `Forked` in a child of that process."""
        if not self.is_here:
            raise Forked(
                f"{what} was opened in process {self._mark.id} and cannot be used in {_mark.id}, a fork of it; open "
                "the bundle in the child, or start it with multiprocessing's spawn"
            )


def keep_after_fork(owner: object, opened: object) -> None:
    """Let no child of this process ever close what an owner opened."""
    _kept[owner] = opened


def _after_in_child() -> None:
    global _mark
    _mark = _Mark()
    for opened in _kept.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened))  # a list would be cleared when the child ends
    _kept.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_in_child)
