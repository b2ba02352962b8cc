"""A folder of pictures, walked recursively in the order of `listing.list_files`, one folder at a time in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pocketlens.decoders import Limits
from pocketlens.errors import FormatError
from pocketlens.listing import Skipped, is_bundle, skip_reason
from pocketlens_export.gallery.sources.entry import LINKED, Entry, Place


class Folder:
    """The pictures below a folder. An id is the path below it; hidden files and bundles are left out.

    Args:
        path: the folder.
        limits: say which suffixes are read.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits

    @property
    def name(self) -> str:
        """Return its absolute path."""
        return str(self._path.absolute())

    def entries(self) -> Iterator[Entry | Skipped]:
        """Yield every file, sorted by its path; see `Source.entries`."""
        try:
            names = _names(self._path)
        except OSError as error:
            what = f"{self._path} cannot be read: {error.strerror}; expected a folder of pictures"
            raise FormatError(what) from error
        yield from self._of(names, self._path, "")

    def _below(self, folder: Path, prefix: str) -> Iterator[Entry | Skipped]:
        try:
            names = _names(folder)
        except OSError as error:
            yield Skipped(prefix.encode(errors="replace").decode(), "unreadable", error.strerror or str(error))
            return
        yield from self._of(names, folder, prefix)

    def _of(self, names: Sequence[str], folder: Path, prefix: str) -> Iterator[Entry | Skipped]:
        for name in names:
            path = folder / name.rstrip("/")
            if name.endswith("/"):
                yield from self._below(path, prefix + name)
                continue
            id = prefix + name
            passed = skip_reason(id, path, self._limits)
            if passed is not None and path.is_symlink() and not path.exists():
                passed = replace(passed, reason=LINKED, detail="the link leads nowhere")
            yield passed or Entry(id, id, Place("file", str(path)))


def _names(folder: Path) -> list[str]:
    """Return what lies in a folder; "/" at the end of a folder's name sorts it as the paths below it would be.

    A linked folder counts as a file: it is told of, and not followed.
    """
    with os.scandir(folder) as found:
        there = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found if entry.name[0] != "."]
    return sorted(
        f"{name}/" if is_folder else name for name, is_folder in there if not (is_folder and is_bundle(folder / name))
    )
