"""Putting a folder in the place of another, so that at any moment the one or the other stands there.

Linux exchanges two names in one step (renameat2), and then there is no moment without a folder. Where the file system
or the system cannot, the old one steps aside under a hidden name first; `restore` puts it back after a crash between
the two steps. Temporary folders are locked by who makes them, so those that a crash left are known and removed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pocketlens.lock import try_hold

_MARK = ".pocketlens-"  # of hidden names, which would else be too like a user's
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_NOT_POSSIBLE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


@contextmanager
def temporary_beside(path: Path, *, aside: bool = False) -> Iterator[Path]:
    """Yield a new folder beside a path, locked; whatever stands there when the block ends is removed.

    Args:
        path: whose parent it gets, on the same file system.
        aside: it is for what stood at the path.
    """
    while True:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}{_MARK}{'old-' if aside else ''}"))
        with try_hold(temporary) as held:
            if not temporary.exists():  # taken for a dead process's before it was locked
                continue
            assert held or held is None
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return


def remove_leftovers(path: Path) -> None:
    """Remove the temporary folders of a path whose processes have died."""
    for leftover in path.parent.glob(f".{_escaped(path.name)}{_MARK}*"):
        with suppress(OSError), try_hold(leftover) as held:
            if held:
                shutil.rmtree(leftover, ignore_errors=True)


def restore(path: Path) -> None:
    """Put back the folder that stood at a path, when a crash left it beside its place."""
    if path.exists():
        return
    for aside in path.parent.glob(f".{_escaped(path.name)}{_MARK}old-*"):
        with suppress(OSError), try_hold(aside, patience=5.0) as held:  # a living process takes microseconds
            if held and not path.exists():
                (aside / path.name).rename(path)
                aside.rmdir()


def exchange(new: Path, path: Path) -> bool:
    """Exchange two folders of one parent in one step; return False where that cannot be done, and nothing was.

    Raises:
        OSError: it failed.
    """
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library that is older, or smaller
        return False
    if rename(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_POSSIBLE:
        return False
    raise OSError(number, os.strerror(number), str(path))


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
