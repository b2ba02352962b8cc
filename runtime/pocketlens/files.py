"""The one module that writes files, and the one that checks them.

Everything is written to a temporary name in the destination's own directory, flushed, fsynced, renamed, and the
directory fsynced: after a crash at any moment there is either the old content or the new, never a part.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketlens.errors import CorruptFile, FormatError

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file's bytes, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_file(path: Path, *, sha256: str, size_bytes: int) -> None:
    """Raise unless `path` is a regular file of exactly this size and sha256.

    Raises:
        FormatError: the file is missing or not a regular file.
        CorruptFile: its size or its hash differs.
    """
    if not path.is_file():
        raise FormatError(f"{path} is missing; its folder's manifest lists it")
    found_bytes = path.stat().st_size
    if found_bytes != size_bytes:
        raise CorruptFile(path, found=f"{found_bytes} bytes", expected=f"{size_bytes} bytes")
    found = sha256_of(path)
    if found != sha256:
        raise CorruptFile(path, found=f"sha256 {found[:16]}…", expected=f"sha256 {sha256[:16]}…")


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a crash leaves the old file or the new one, complete."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; move it to `path` when the block ends well, else remove it.

    Args:
        path: the folder to make. Its parent is created when missing.
        replace: allow `path` to exist; the old folder is removed after the new one stands in its place.

    Raises:
        FormatError: `path` exists (and `replace` is false, or it is a file).
    """
    if path.exists() and (not replace or not path.is_dir()):
        raise FormatError(f"{path} exists already; remove it or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        _sync_tree(temporary)
        _swap(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_directory(path.parent)


def _swap(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    path.rename(old / path.name)
    new.rename(path)
    shutil.rmtree(old)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _sync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _sync_directory(folder: Path) -> None:
    if os.name == "nt":  # directories cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
