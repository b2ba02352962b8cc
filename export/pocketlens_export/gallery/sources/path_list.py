"""A text file with the path of a picture on each line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pocketlens.listing import Skipped
from pocketlens_export.gallery.sources.entry import Entry, Place, no_text

_BOM = b"\xef\xbb\xbf"


class PathList:
    """The pictures that a text file names, whatever their suffixes.

    A relative path starts at the folder of the list. An id is the path as it is written; empty lines count for nothing.

    Args:
        path: the text file, in UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """Return its absolute path."""
        return str(self._path.absolute())

    def entries(self) -> Iterator[Entry | Skipped]:
        """Yield every line's picture; see `Source.entries`."""
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                written = line.removeprefix(_BOM).rstrip(b"\r\n") if number == 1 else line.rstrip(b"\r\n")
                if not written.strip():
                    continue
                try:
                    id = written.decode()
                except UnicodeDecodeError:
                    yield no_text(written.decode(errors="surrogateescape"))
                    continue
                yield Entry(id, id, Place("file", str(self._path.parent / id)))
