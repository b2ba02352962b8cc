"""A tar archive: the shards of a WebDataset, or any other. It is never unpacked.

Files that share a name up to its first dot are a sample, and follow one another: `0001.jpg`, `0001.json`, `0001.txt`.
Every picture is an entry; the other files are what is known of it. Headers alone are read when it is listed.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from pocketlens.decoders import Limits
from pocketlens.errors import FormatError
from pocketlens.listing import Skipped, skip_suffix
from pocketlens_export.gallery.sources.columns_kept import Kept, take
from pocketlens_export.gallery.sources.entry import CUT_SHORT, Entry, Place, no_text, text_of

_MAX_ABOUT = 1 << 20  # bytes of a file that says something of a picture
_BLOCK = 512


class Tar:
    """The pictures of a tar archive. An id is the archive's name, without `.tar`, "/" and the picture's name in it.

    Args:
        path: the archive, which is not compressed.
        limits: say which suffixes are read.
        kept: what is taken over of a sample's other files: keys of its `.json`, or the ending of another, such as txt.
    """

    def __init__(self, path: Path, limits: Limits, kept: Sequence[Kept]) -> None:
        self._path = path
        self._limits = limits
        self._kept = kept

    @property
    def name(self) -> str:
        """Return its absolute path."""
        return str(self._path.absolute())

    def entries(self) -> Iterator[Entry | Skipped]:
        """Yield every picture in the order of the archive; see `Source.entries`.

        Files that no picture is made of, by their suffix, count for nothing here. An archive that ends early gives what
        is whole of it, and one entry that is skipped.
        """
        with self._path.open("rb") as file:
            try:
                archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # it holds nothing but the file
            except tarfile.TarError as error:
                raise FormatError(f"{self._path} is no plain tar archive: {error}") from error
            broken: list[str] = []
            for _, sample in groupby(_members(archive, broken), lambda member: _sample_of(member.name)):
                yield from self._entries_of(list(sample), file)
            if broken:
                yield self._cut_short(broken[0])
            elif not _has_end(file, archive.offset):
                yield self._cut_short("there is no mark of its end")

    def _cut_short(self, detail: str) -> Skipped:
        return Skipped(self._path.name, CUT_SHORT, f"{detail}; what stands before it was taken")

    def _entries_of(self, sample: Sequence[tarfile.TarInfo], file: IO[bytes]) -> Iterator[Entry | Skipped]:
        about: dict[str, Any] | None = None
        for member in sample:
            name = text_of(member.name.removeprefix("./"))
            if name is None:
                yield no_text(member.name)
                continue
            id = f"{self._path.name.removesuffix('.tar')}/{name}"
            passed = skip_suffix(id, self._limits)
            if passed is not None:
                if passed.reason != "not a picture":
                    yield passed
            elif not member.isreg() or member.sparse is not None:
                yield Skipped(id, "unreadable", "it is no plain file in the archive")
            else:
                about = self._about(sample, file) if about is None else about
                place = Place("span", str(self._path), member.offset_data, member.size)
                yield Entry(id, f"{self._path.name}#{name}", place, about)

    def _about(self, sample: Sequence[tarfile.TarInfo], file: IO[bytes]) -> dict[str, Any]:
        """Return what is kept of the files beside a picture."""
        if not self._kept:
            return {}
        found: dict[str, Any] = {}
        wanted = {kept.name for kept in self._kept}
        for member in sample:
            ending = member.name.rpartition(".")[2].lower()
            if (ending in wanted or ending == "json") and member.isreg() and member.size <= _MAX_ABOUT:
                file.seek(member.offset_data)
                text = file.read(member.size).decode(errors="replace")
                found |= _read_json(text) if ending == "json" else {ending: text.strip()}
        return take(self._kept, found)


def _members(archive: tarfile.TarFile, broken: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yield files that are not hidden, until the archive ends; what keeps it from being read further is added."""
    while True:
        try:
            member = archive.next()
        except tarfile.TarError as error:
            broken.append(str(error))
            return
        if member is None:
            return
        archive.members = []  # type: ignore[attr-defined]  # it would keep them all
        if not member.isdir() and not member.name.rpartition("/")[2].startswith("."):
            yield member


def _sample_of(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _has_end(file: IO[bytes], offset: int) -> bool:
    """Tell whether a block of zeros, the mark of an archive's end, stands where the last header was looked for."""
    file.seek(offset)
    return file.read(_BLOCK) == bytes(_BLOCK)


def _read_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
