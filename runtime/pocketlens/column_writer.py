"""Writes the columns of a gallery from a stream of items; see `columns` for what they are and docs/formats.md.

Numbers go to their files block by block, and so does the place of each text, which is corrected once all texts are
known. What stays in memory are the distinct texts and tags, and four bytes for each tag of each item.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from pocketlens.attributes import AttributeType, Schema, values_of
from pocketlens.column import COLUMNS, Words
from pocketlens.columns import FOLDER, ROWS
from pocketlens.items import Item

_BLOCK = 16_384
_NO_WORD = -1


class _Writer(Protocol):
    """Takes the values of one attribute, block by block; None is missing."""

    def add(self, values: Sequence[Any]) -> None:
        """Take the values of the next items."""

    def finish(self) -> None:
        """Write what is left; the files are complete."""


def write_columns(folder: Path, schema: Schema, items: Iterable[Item]) -> None:
    """Write the columns of a gallery that is being made.

    Args:
        folder: the gallery's; it has no columns yet.
        schema: names and types; the items' attributes conform to it.
        items: all of them, by row and id; each row has one.

    Raises:
        OSError: the disk is full or failing.
    """
    (folder / FOLDER).mkdir()
    with ExitStack() as files:
        writers = {
            name: _WRITERS[kind](folder / FOLDER, str(n), kind, files) for n, (name, kind) in enumerate(schema.items())
        }
        rows = files.enter_context((folder / ROWS).open("wb"))
        following, last, count = iter(items), -1, 0
        while block := list(islice(following, _BLOCK)):
            first = array("q")
            for number, item in enumerate(block, start=count):
                if item.row != last:
                    assert item.row == last + 1, "a row has no item, or items are out of order"
                    first.append(number)
                    last = item.row
            rows.write(np.array(first, dtype="<i8").data)
            values = [values_of(item) for item in block]
            for name, writer in writers.items():
                writer.add([each.get(name) for each in values])
            count += len(block)
        rows.write(np.array([count], dtype="<i8").data)
        for writer in writers.values():
            writer.finish()


class _Numbers:
    """Integers, reals and times: one number an item."""

    def __init__(self, folder: Path, stem: str, kind: AttributeType, files: ExitStack) -> None:
        (end,) = COLUMNS[kind].ENDS
        self._encode = COLUMNS[kind].encode
        self._file = files.enter_context((folder / f"{stem}.{end}").open("wb"))

    def add(self, values: Sequence[Any]) -> None:
        self._file.write(self._encode(values)[0].tobytes())

    def finish(self) -> None:
        pass


class _Texts:
    """Places in the order in which texts were met, until all are known."""

    def __init__(self, folder: Path, stem: str, kind: AttributeType, files: ExitStack) -> None:
        self._words = folder / f"{stem}.words"
        self._file: BinaryIO = files.enter_context((folder / f"{stem}.i32").open("w+b"))
        self._met: dict[str, int] = {}

    def add(self, values: Sequence[Any]) -> None:
        met = self._met
        places = [_NO_WORD if value is None else met.setdefault(value, len(met)) for value in values]
        self._file.write(np.array(places, dtype="<i4").data)

    def finish(self) -> None:
        words = sorted(self._met)
        place = np.empty(len(words) + 1, dtype="<i4")  # by when a text was met; the last one is -1's
        place[[self._met[word] for word in words]] = np.arange(len(words), dtype="<i4")
        place[_NO_WORD] = _NO_WORD
        self._file.seek(0)
        while block := self._file.read(4 * _BLOCK):
            self._file.seek(-len(block), 1)
            self._file.write(place[np.frombuffer(block, dtype="<i4")].data)
        _write_words(self._words, words)


class _Tags:
    """The items of each tag."""

    def __init__(self, folder: Path, stem: str, kind: AttributeType, files: ExitStack) -> None:
        self._stem = folder / stem
        self._items: dict[str, array[int]] = {}
        self._count = 0

    def add(self, values: Sequence[Any]) -> None:
        for number, tags in enumerate(values, start=self._count):
            for tag in tags or ():
                self._items.setdefault(tag, array("i")).append(number)
        self._count += len(values)

    def finish(self) -> None:
        words = sorted(self._items)
        starts = np.cumsum([0, *(len(self._items[word]) for word in words)], dtype="<i8")
        with Path(f"{self._stem}.i32").open("wb") as file:
            for word in words:
                file.write(np.array(self._items[word], dtype="<i4").data)
        Path(f"{self._stem}.starts.i64").write_bytes(starts.data)
        _write_words(Path(f"{self._stem}.words"), words)


def _write_words(path: Path, words: Sequence[str]) -> None:
    offsets, blob = Words.encode(words)
    path.with_name(f"{path.name}.i64").write_bytes(offsets.data)
    path.with_name(f"{path.name}.utf8").write_bytes(blob.data)


_WRITERS: dict[AttributeType, type[_Numbers | _Texts | _Tags]] = {
    "integer": _Numbers, "real": _Numbers, "time": _Numbers, "text": _Texts, "tags": _Tags,
}  # fmt: skip
