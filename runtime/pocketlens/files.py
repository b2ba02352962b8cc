"""The one module that writes files, and the one that checks them.

Everything is written to a temporary name in the destination's own directory, flushed, fsynced, renamed, and the
directory fsynced: after a crash at any moment there is either the old content or the new, never a part. A folder that
replaces another is the exception: between two renames the old one stands beside its place, under a hidden name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketlens.errors import CorruptFile, FormatError

if TYPE_CHECKING:
    from zipfile import ZipFile

    from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 20
_MANIFESTS = ("bundle.json", "gallery.json", "model.json")
_OURS = {
    *_MANIFESTS, "index.usearch", "rescore.f16", "items.sqlite", "stats.npz", "partitions.npz", "golden.npz",
    "tokenizer.json", "concepts.npz", "quantization.md", "quantization.svg", "required_operators.config", "align.md",
    "align.svg",
}  # fmt: skip
_GRAPHS = (".onnx", ".ort")
_INVERSION = "inversion"  # the folder of networks, with a report and a plot of each
_REPORTS = (".md", ".svg")


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
        found = "something that is no file" if path.exists() else "nothing"
        raise FormatError(
            f"{path}: found {found}, expected a file of {size_bytes} bytes; its folder's manifest lists it"
        )
    found_bytes = path.stat().st_size
    if found_bytes != size_bytes:
        raise CorruptFile(path, found=f"{found_bytes} bytes", expected=f"{size_bytes} bytes")
    found = sha256_of(path)
    if found != sha256:
        raise CorruptFile(path, found=f"sha256 {found[:16]}…", expected=f"sha256 {sha256[:16]}…")


def read_arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays called `names` of an .npz file whose hash the caller has checked.

    Raises:
        FormatError: it is not such a file, or an array is missing.
    """
    import struct  # here, all of them: `pocketlens --help` reaches this module and loads no arrays
    import tokenize
    import zipfile
    import zlib

    import numpy as np

    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("it is one array without a name")
            with arrays:
                assert arrays.zip is not None  # until it is closed
                _check_compression(arrays.zip)
                return {name: arrays[name] for name in names}
    except (
        *(OSError, ValueError, KeyError, EOFError, MemoryError),  # MemoryError: a header may claim any shape
        *(zipfile.BadZipFile, zlib.error, struct.error, RuntimeError),  # RuntimeError: zipfile, where it is encrypted
        *(SyntaxError, tokenize.TokenError, TypeError, OverflowError, IndexError),  # NumPy, on an array's header
    ) as error:
        raise FormatError(f"{path} is not an .npz file with the arrays {', '.join(names)}: {error}") from error


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
def new_folder(path: Path, *, replace: bool = False, dropping: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; move it to `path` when the block ends well, else remove it.

    Args:
        path: the folder to make. Its parent is created when missing.
        replace: allow `path` to be a folder of pocketlens's own files, or an empty one; it is removed after the new
            one stands in its place.
        dropping: names of files right in the old folder that go with it, whatever they are.

    Raises:
        FormatError: `path` exists (and `replace` is false, or it is not such a folder).
    """
    _refuse_to_replace(path, replace, dropping)
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise FormatError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        _sync_tree(temporary)
        _swap(temporary, path) if replace and path.exists() else _move(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # somebody else has put something there by now
            for parent in made:
                parent.rmdir()
        raise
    _sync_directory(path.parent)


def _check_compression(archive: ZipFile) -> None:
    """Raise unless every member is stored or deflated: other ways raise errors of modules that a Python may lack."""
    for member in archive.infolist():
        if member.compress_type not in (0, 8):
            raise ValueError(f"{member.filename} is compressed by method {member.compress_type}, expected 0 or 8")


def _refuse_to_replace(path: Path, replace: bool, dropping: Collection[str]) -> None:
    if path.is_symlink():
        raise FormatError(f"{path} is a symbolic link, expected a folder or a free name")
    if not path.exists():
        return
    if not replace:
        raise FormatError(f"{path} exists already; remove it or choose another name")
    if not path.is_dir():
        raise FormatError(f"{path} is a file, and is not replaced by a folder; choose another name")
    dropped = {path / name for name in dropping}
    strange = [file for file in path.rglob("*") if not file.is_dir() and file not in dropped and not _is_ours(file)]
    if strange:
        raise FormatError(f"{path} is not replaced: {strange[0]} is no file that pocketlens wrote; choose another name")


def _is_ours(file: Path) -> bool:
    if file.name in _MANIFESTS:
        return b'"format": "pocketlens-' in file.read_bytes()[:200]
    is_report = file.parent.name == _INVERSION and file.suffix in _REPORTS
    return not file.is_symlink() and (file.name in _OURS or file.suffix in _GRAPHS or is_report)


def _move(new: Path, path: Path) -> None:
    """Rename a folder to a free name; unlike a look before, the rename itself cannot race with another process."""
    try:
        new.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise FormatError(f"{path} has come to exist meanwhile; nothing was written") from error
        raise


def _swap(new: Path, path: Path) -> None:
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    old = beside / path.name
    try:
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            old.rename(path)
            raise
        shutil.rmtree(old)
    finally:
        with suppress(OSError):  # not empty when the old folder could be neither put back nor removed
            beside.rmdir()


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
