"""The values of one attribute, item by item, in plain arrays; each type answers conditions with a mask over the items.

An item that lacks the attribute meets no condition on it, "ne" included.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Bools, Int64s
from pocketlens.attributes import AttributeType
from pocketlens.moments import Moment, read_moment

Array: TypeAlias = NDArray[Any]
DTYPES = {"i64": "<i8", "f64": "<f8", "i32": "<i4", "utf8": "u1"}  # by the last part of a file's name
_MISSING = np.iinfo(np.int64).min
_NO_WORD = -1


class WrongColumn(ValueError):
    """A column's arrays cannot be; the first argument is the end of the file's name, the second what was found."""


class Column(Protocol):
    """A column over its arrays, in the order of `ENDS`.

    Attributes:
        ENDS: of the names of the column's files; the last part says the type.
    """

    ENDS: ClassVar[tuple[str, ...]]

    def __init__(self, parts: Sequence[Array], count: int) -> None:
        """Take the arrays of a column of `count` items; raises WrongColumn."""

    @staticmethod
    def encode(values: Sequence[Any]) -> tuple[Array, ...]:
        """Return the arrays for the value of each item in its one form; None where it is missing."""

    def match(self, op: str, values: Sequence[Any]) -> Bools:
        """Return which items meet a condition, bool (items,); one value, any number for "in", none for "exists"."""


class _Integers:
    """int64; the least is missing."""

    ENDS: ClassVar[tuple[str, ...]] = ("i64",)

    def __init__(self, parts: Sequence[Array], count: int) -> None:
        (self._values,) = parts
        _expect(len(self._values) == count, "i64", f"{len(self._values)} values, expected {count}")

    @staticmethod
    def encode(values: Sequence[Any]) -> tuple[Array, ...]:
        return (np.array([_MISSING if value is None else value for value in values], dtype="<i8"),)

    def match(self, op: str, values: Sequence[Any]) -> Bools:
        return _match_numbers(self._values, self._values != _MISSING, op, values)


class _Reals:
    """float64; NaN is missing."""

    ENDS: ClassVar[tuple[str, ...]] = ("f64",)

    def __init__(self, parts: Sequence[Array], count: int) -> None:
        (self._values,) = parts
        _expect(len(self._values) == count, "f64", f"{len(self._values)} values, expected {count}")

    @staticmethod
    def encode(values: Sequence[Any]) -> tuple[Array, ...]:
        return (np.array([np.nan if value is None else value for value in values], dtype="<f8"),)

    def match(self, op: str, values: Sequence[Any]) -> Bools:
        return _match_numbers(self._values, ~np.isnan(self._values), op, values)


class _Times:
    """Microseconds since 1970, int64; the least is missing. Conditions are on spans."""

    ENDS: ClassVar[tuple[str, ...]] = ("i64",)

    def __init__(self, parts: Sequence[Array], count: int) -> None:
        (self._values,) = parts
        _expect(len(self._values) == count, "i64", f"{len(self._values)} values, expected {count}")

    @staticmethod
    def encode(values: Sequence[Any]) -> tuple[Array, ...]:
        return _Integers.encode([None if value is None else read_moment(value).start for value in values])

    def match(self, op: str, values: Sequence[Moment]) -> Bools:
        there = self._values != _MISSING
        if op in ("exists", "eq", "ne", "in"):
            return _by_kind(op, there, lambda: self._within(values))
        at, compare = {
            "lt": (values[0].start, np.less),
            "lte": (values[0].stop, np.less),
            "gt": (values[0].stop, np.greater_equal),
            "gte": (values[0].start, np.greater_equal),
        }[op]
        return np.asarray(compare(self._values, at) & there)

    def _within(self, spans: Sequence[Moment]) -> Bools:
        found = np.zeros(len(self._values), dtype=bool)
        for span in spans:
            found |= (self._values >= span.start) & (self._values < span.stop)
        return found


class _Texts:
    """The place of each item's text among the words, int32; -1 is missing. Then the words."""

    ENDS: ClassVar[tuple[str, ...]] = ("i32", "words.i64", "words.utf8")

    def __init__(self, parts: Sequence[Array], count: int) -> None:
        self._codes, *words = parts
        self._words = Words(*words)
        _expect(len(self._codes) == count, "i32", f"{len(self._codes)} values, expected {count}")
        _check_places(self._codes, "i32", _NO_WORD, self._words.count)

    @staticmethod
    def encode(values: Sequence[Any]) -> tuple[Array, ...]:
        words = sorted({value for value in values if value is not None})
        place = {word: n for n, word in enumerate(words)}
        codes = np.array([_NO_WORD if value is None else place[value] for value in values], dtype="<i4")
        return (codes, *Words.encode(words))

    def match(self, op: str, values: Sequence[str]) -> Bools:
        codes, there = self._codes, self._codes != _NO_WORD
        if op == "exists":
            return np.asarray(there)
        if op in ("in", "contains"):
            words = self._words
            return self._one_of(words.places(values) if op == "in" else words.containing(values[0]))
        span = self._words.span("eq" if op == "ne" else op, values[0])
        inside = (codes >= span.start) & (codes < span.stop)
        return np.asarray(there & ~inside if op == "ne" else inside)

    def _one_of(self, places: Int64s) -> Bools:
        wanted = np.zeros(self._words.count + 1, dtype=bool)  # the last one is -1's
        wanted[places] = True
        return wanted[self._codes]


class _Tags:
    """The items of each tag, int32, tag after tag; where each tag's start, int64 (tags + 1,). Then the tags."""

    ENDS: ClassVar[tuple[str, ...]] = ("i32", "starts.i64", "words.i64", "words.utf8")

    def __init__(self, parts: Sequence[Array], count: int) -> None:
        self._items, self._starts, *words = parts
        self._words = Words(*words)
        self._count = count
        _check_places(self._items, "i32", 0, count)
        _check_offsets(self._starts, "starts.i64", self._words.count, len(self._items))

    @staticmethod
    def encode(values: Sequence[Any]) -> tuple[Array, ...]:
        items: dict[str, list[int]] = {}
        for number, tags in enumerate(values):
            for tag in tags or ():
                items.setdefault(tag, []).append(number)
        words = sorted(items)
        starts = np.cumsum([0, *(len(items[word]) for word in words)], dtype="<i8")
        return (np.array([n for word in words for n in items[word]], dtype="<i4"), starts, *Words.encode(words))

    def match(self, op: str, values: Sequence[str]) -> Bools:
        if op == "exists":
            return self._with([slice(None)])
        found = self._with(map(self._of, self._words.places(values).tolist()))
        return self.match("exists", ()) & ~found if op == "ne" else found

    def _of(self, place: int) -> slice:
        return slice(int(self._starts[place]), int(self._starts[place + 1]))

    def _with(self, parts: Iterable[slice]) -> Bools:
        found = np.zeros(self._count, dtype=bool)
        for part in parts:
            found[self._items[part]] = True
        return found


class Joined:
    """A column of items whose arrays lie in several segments."""

    def __init__(self, columns: Sequence[Column | Joined]) -> None:
        self._columns = columns

    def match(self, op: str, values: Sequence[Any]) -> Bools:
        """Return which items meet a condition, bool (items,); see `Column`."""
        return np.concatenate([column.match(op, values) for column in self._columns])


class Words:
    """Distinct texts in the order of their code points: where each starts, int64 (words + 1,), in a blob of UTF-8."""

    def __init__(self, offsets: Array, blob: Array) -> None:
        _expect(len(offsets) > 0, "words.i64", "nothing")
        _check_offsets(offsets, "words.i64", len(offsets) - 1, len(blob))
        _check_utf8(offsets, blob)
        self._offsets = offsets
        self._blob = blob
        self.count = len(offsets) - 1

    @staticmethod
    def encode(words: Sequence[str]) -> tuple[Array, Array]:
        """Return the arrays of distinct texts in order."""
        blobs = [word.encode() for word in words]
        offsets = np.cumsum([0, *map(len, blobs)], dtype="<i8")
        return offsets, np.frombuffer(b"".join(blobs), dtype="u1")

    @cached_property
    def words(self) -> list[str]:
        """The texts, decoded when first asked for."""
        blob = self._blob.tobytes()
        return [blob[start:stop].decode() for start, stop in pairwise(self._offsets.tolist())]

    def span(self, op: str, value: str) -> range:
        """Return the places of the words that compare so with a value; they follow one another."""
        words = self.words
        left, right = bisect_left(words, value), bisect_right(words, value)
        if op == "starts":
            return range(left, bisect_right(words, value, key=lambda word: word[: len(value)]))
        return {"eq": range(left, right), "lt": range(left), "lte": range(right), "gt": range(right, self.count),
                "gte": range(left, self.count)}[op]  # fmt: skip

    def places(self, values: Iterable[str]) -> Int64s:
        """Return the places of those values that are words."""
        return np.array([place for value in values for place in self.span("eq", value)], dtype=np.int64)

    def containing(self, value: str) -> Int64s:
        """Return the places of the words that a value is a part of, by comparing bytes of all words at once."""
        needle = value.encode()
        if not needle:
            return np.arange(self.count)
        at = np.flatnonzero(self._blob == needle[0])  # where the value may start
        at = at[at <= len(self._blob) - len(needle)]
        for n, byte in enumerate(needle[1:], start=1):
            at = at[self._blob[at + n] == byte]
        places = np.searchsorted(self._offsets, at, side="right") - 1
        return np.asarray(places[at + len(needle) <= self._offsets[places + 1]])


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "lt": np.less, "lte": np.less_equal, "gt": np.greater, "gte": np.greater_equal,
}  # fmt: skip


def _match_numbers(column: Array, there: Bools, op: str, values: Sequence[Any]) -> Bools:
    if op in _COMPARE:
        return np.asarray(_COMPARE[op](column, values[0]) & there)
    if op == "exists":
        return there
    wanted = np.asarray(values, dtype=column.dtype)
    return _by_kind(op, there, lambda: np.isin(column, wanted) if op == "in" else np.asarray(column == wanted[0]))


def _by_kind(op: str, there: Bools, has: Callable[[], Bools]) -> Bools:
    """Return the mask of "exists", of "ne", or of an operator that asks whether an item has one of the values."""
    if op == "exists":
        return there
    return there & ~has() if op == "ne" else has()


def _check_places(places: Array, end: str, least: int, stop: int) -> None:
    if len(places):
        low, high = int(places.min()), int(places.max())
        _expect(least <= low and high < stop, end, f"numbers from {low} to {high}, expected {least} to {stop - 1}")


def _check_offsets(offsets: Array, end: str, count: int, stop: int) -> None:
    _expect(len(offsets) == count + 1, end, f"{len(offsets)} offsets, expected {count + 1}")
    rising = int(offsets[0]) == 0 and int(offsets[-1]) == stop and bool((np.diff(offsets) >= 0).all())
    _expect(rising, end, f"offsets that do not rise from 0 to {stop}")


def _check_utf8(offsets: Array, blob: Array) -> None:
    try:
        blob.tobytes().decode()
    except UnicodeDecodeError as error:
        raise WrongColumn("words.utf8", f"bytes that are not UTF-8 ({error})") from error
    inner = offsets[offsets < len(blob)]
    _expect(bool(((blob[inner] & 0xC0) != 0x80).all()), "words.i64", "offsets inside a character")


def _expect(ok: bool, end: str, found: str) -> None:
    if not ok:
        raise WrongColumn(end, found)


COLUMNS: dict[AttributeType, type[Column]] = {
    "text": _Texts,
    "integer": _Integers,
    "real": _Reals,
    "time": _Times,
    "tags": _Tags,
}
