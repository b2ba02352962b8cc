"""The one module that writes files, and the one that checks them.

Everything is written to a temporary name in the destination's own directory, flushed, fsynced, renamed, and the
directory fsynced: after a crash at any moment there is either the old content or the new, never a part. How a folder
takes the place of another is told in `swap`. What fails to be written is `NotWritten`, and nothing is left of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pocketlens import swap
from pocketlens.errors import Busy, CorruptFile, FormatError, NotWritten
from pocketlens.lock import PATIENCE, try_hold

if TYPE_CHECKING:
    from zipfile import ZipFile

    from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 20
_MANIFESTS = ("bundle.json", "gallery.json", "model.json")
_OURS = {
    *_MANIFESTS, "index.usearch", "rescore.f16", "items.sqlite", "stats.npz", "partitions.npz", "gone.i64",
    "golden.npz", "tokenizer.json", "concepts.npz", "quantization.md", "quantization.svg", "required_operators.config",
    "align.md", "align.svg", "distill.md", "distill.svg",
}  # fmt: skip
_GRAPHS = (".onnx", ".ort")
_LOCAL = "local.sqlite"  # local.NAME, which is read with more
_INVERSION = "inversion"  # the folder of networks, with a report and a plot of each
_REPORTS = (".md", ".svg")
_COLUMNS = "columns"  # the folder of a gallery's attributes
_COLUMN_ENDS = (".i64", ".f64", ".i32", ".utf8")
_UNFINISHED = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # what `write_file` leaves when its process is killed


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
    """Write `content` to `path` so that a crash leaves the old file or the new one, complete.

    Raises:
        NotWritten: the disk is full, read-only or failing.
    """
    with new_file(path) as file:
        file.write(content)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file beside `path`; put it there, complete, when the block ends well, else remove it.

    Raises:
        NotWritten: the disk is full, read-only or failing; also an OSError in the block.
    """
    with _not_written(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)


def share_file(source: Path, target: Path) -> None:
    """Give a file, which is never written again, a second name on the same disk; copy it where that cannot be done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except (OSError, NotImplementedError):
        shutil.copyfile(source, target)


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
        NotWritten: the disk is full, read-only or failing; also an OSError in the block.
        Busy: others kept opening what stands there.
    """
    check_free(path, replace=replace, dropping=dropping)
    made = [parent for parent in path.parents if not parent.exists()]
    with _not_written(path), _removed_on_error(made):
        path.parent.mkdir(parents=True, exist_ok=True)
        swap.remove_leftovers(path)
        with swap.temporary_beside(path) as temporary:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            _sync_tree(temporary)
            _put(temporary, path, replace)


def restore_folder(path: Path) -> None:
    """Put back what stood at `path`, when a crash of `new_folder` left it beside its place."""
    swap.restore(path)


@contextmanager
def _not_written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotWritten(path, error) from error


@contextmanager
def _removed_on_error(made: Collection[Path]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):  # somebody else has put something there by now
            for parent in made:
                parent.rmdir()
        raise


def _check_compression(archive: ZipFile) -> None:
    """Raise unless every member is stored or deflated: other ways raise errors of modules that a Python may lack."""
    for member in archive.infolist():
        if member.compress_type not in (0, 8):
            raise ValueError(f"{member.filename} is compressed by method {member.compress_type}, expected 0 or 8")


def check_free(path: Path, *, replace: bool = False, dropping: Collection[str] = ()) -> None:
    """Raise `FormatError` unless `new_folder` may put a folder at this path."""
    if path.is_symlink():
        raise FormatError(f"{path} is a symbolic link, expected a folder or a free name")
    if not path.exists():
        return
    if not replace:
        raise FormatError(f"{path} exists already; remove it or choose another name")
    if not path.is_dir():
        raise FormatError(f"{path} is a file, and is not replaced by a folder; choose another name")
    dropped = {path / name for name in dropping}
    if (path / _LOCAL).exists() and _LOCAL not in dropping:
        raise FormatError(f"{path} is not replaced: {_LOCAL} holds what was added on this device; compact or remove it")
    strange = [file for file in path.rglob("*") if not file.is_dir() and file not in dropped and not _is_ours(file)]
    if strange:
        raise FormatError(f"{path} is not replaced: {strange[0]} is no file that pocketlens wrote; choose another name")


def _is_ours(file: Path) -> bool:
    if file.name in _MANIFESTS:
        return b'"format": "pocketlens-' in file.read_bytes()[:200]
    unfinished = _UNFINISHED.fullmatch(file.name)
    name = unfinished[1] if unfinished else file.name
    is_report = file.parent.name == _INVERSION and file.suffix in _REPORTS
    is_column = file.parent.name == _COLUMNS and file.suffix in _COLUMN_ENDS
    return not file.is_symlink() and (name in _OURS or file.suffix in _GRAPHS or is_report or is_column)


def _put(new: Path, path: Path, replace: bool) -> None:
    """Put a folder in its place for good: what stood there goes when the new one cannot be lost any more."""
    if not (replace and path.exists()):
        _move(new, path)
        with _undone(lambda: path.rename(new)):
            _sync_directory(path.parent)
        return
    with try_hold(path, patience=PATIENCE) as held:  # so that nobody opens half of each
        if held is False:
            raise Busy(f"{path} is in use by another process; try again")
        if swap.exchange(new, path):
            with _undone(lambda: swap.exchange(new, path)):
                _sync_directory(path.parent)
        else:
            _step_aside(new, path)


def _move(new: Path, path: Path) -> None:
    """Rename a folder to a free name; unlike a look before, the rename itself cannot race with another process."""
    try:
        new.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise FormatError(f"{path} has come to exist meanwhile; nothing was written") from error
        raise


def _step_aside(new: Path, path: Path) -> None:
    with swap.temporary_beside(path, aside=True) as aside:
        old = aside / path.name
        path.rename(old)
        with _undone(lambda: old.rename(path)):
            new.rename(path)
        with _undone(lambda: (path.rename(new), old.rename(path))):
            _sync_directory(path.parent)


@contextmanager
def _undone(undo: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        undo()
        raise


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
