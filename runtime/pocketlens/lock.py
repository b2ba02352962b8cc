"""A bundle's lock: whoever opens it shares it, whoever puts another folder in its place has it alone.

It is an advisory lock on the folder itself (flock), so it leaves no file behind and ends with its process. Windows has
none; there a folder in use cannot be replaced at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketlens.errors import Busy, FormatError

PATIENCE = 30.0  # seconds
_PAUSE = 0.005


@contextmanager
def hold(folder: Path, *, alone: bool = False, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock of the folder that stands at this path now.

    Args:
        folder: a bundle.
        alone: wait until nobody shares it, and let nobody in.
        patience: how long to wait, in seconds.

    Raises:
        FormatError: there is no folder, it cannot be read, or its file system has no locks to hold alone.
        Busy: others held it all the time.
    """
    deadline = time.monotonic() + patience
    handle = _locked(folder, alone, deadline)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)  # ends the lock


@contextmanager
def try_hold(folder: Path, *, patience: float = 0.0) -> Iterator[bool | None]:
    """Hold the lock of a folder alone, if nobody else holds it; yield whether, None where there are no locks.

    Raises:
        OSError: the folder cannot be opened.
    """
    if os.name == "nt":
        yield None
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            _wait(handle, folder, True, time.monotonic() + patience)
            held: bool | None = True
        except Busy:
            held = False
        except FormatError:
            held = None
        yield held
    finally:
        os.close(handle)


def _locked(folder: Path, alone: bool, deadline: float) -> int | None:
    if os.name == "nt":
        return None
    while True:
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise FormatError(f"{folder} does not exist; expected a pocketlens-bundle folder") from error
        except OSError as error:
            raise FormatError(f"{folder} cannot be opened: {error.strerror}; expected a bundle folder") from error
        try:
            _wait(handle, folder, alone, deadline)
            if _stands_at(handle, folder):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # another folder has taken its place meanwhile


def _wait(handle: int, folder: Path, alone: bool, deadline: float) -> None:
    import fcntl  # not on Windows

    while True:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise Busy(f"{folder} is in use by another process; try again") from error
            time.sleep(_PAUSE)
        except OSError as error:
            if alone:
                raise FormatError(f"{folder} lies on a file system without locks: {error.strerror}") from error
            return  # to read is safe where nobody can replace the folder


def _stands_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False
