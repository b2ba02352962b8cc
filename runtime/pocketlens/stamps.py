"""Files that were checked since the machine started are not hashed again.

A stamp is an empty file in memory (a tmpfs), outside the folder it vouches for, whose name is a hash over the boot, the
file (device, inode, size, times of the last change) and what it was checked against. It ends with the power, and any
write to the file takes it away, for it moves the file's times; a file that changed in the last two seconds gets none,
since clocks may be coarser than that. What rots on the disk after it was checked is noticed after the next start, or
by `pocketlens verify`, which hashes every time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

from pocketlens.errors import NotWritten
from pocketlens.files import check_file, write_file

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SETTLED_NS = 2_000_000_000
_MOST = 4_096  # stamps; a device that compacts for years forgets them all now and then


def check_file_once(path: Path, *, sha256: str, size_bytes: int) -> None:
    """Raise as `check_file` does, unless this very file was checked against the same since the machine started."""
    now, stamp = time.time_ns(), _stamp_of(path, sha256)
    if stamp is not None and stamp.exists():
        return
    changed = _changed_ns(path)
    check_file(path, sha256=sha256, size_bytes=size_bytes)
    if stamp is None or not changed < now - _SETTLED_NS or _stamp_of(path, sha256) != stamp:
        return
    with suppress(NotWritten, OSError):  # then it is hashed again
        if len(os.listdir(stamp.parent)) >= _MOST:  # noqa: PTH208
            shutil.rmtree(stamp.parent)
            return
        write_file(stamp, b"")


def _stamp_of(path: Path, sha256: str) -> Path | None:
    """Return the place of a file's stamp; None where there is no safe place, or no regular file."""
    folder = _folder()
    try:
        found, boot = path.stat(), _BOOT.read_text()
    except OSError:
        return None
    if folder is None or not stat.S_ISREG(found.st_mode):
        return None
    about = (boot.strip(), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, sha256)
    return folder / hashlib.sha256(repr(about).encode()).hexdigest()


def _changed_ns(path: Path) -> int:
    try:
        found = path.stat()
    except OSError:
        return 0  # `check_file` says it best
    return max(found.st_mtime_ns, found.st_ctime_ns)


def _folder() -> Path | None:
    """Return a folder in memory that nobody else can write; None where there is none."""
    if not hasattr(os, "geteuid"):
        return None
    given, user = os.environ.get("XDG_RUNTIME_DIR"), os.geteuid()
    folder = Path(given, "pocketlens") if given else Path("/dev/shm", f"pocketlens-{user}")
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == user and stat.S_IMODE(found.st_mode) & 0o077 == 0
    return folder if ours else None
