from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlens.attributes import check_schema
from pocketlens.column_writer import write_columns
from pocketlens.columns import FOLDER, Columns, encode_columns, file_names, open_columns
from pocketlens.errors import FormatError
from pocketlens.gallery import Gallery
from pocketlens.inspect import verify
from tests.filters import TYPES, random_item
from tests.folders import edit_json, sign
from tests.galleries import gallery_of, item_of

SCHEMA = check_schema(
    TYPES
)  # width 0, height 1, size_bytes 2, taken 3, folder 4, mood 5, score 6, seen 7, tag 8, year 9
ROWS, ITEMS = 20, 30


def items() -> list[Any]:
    generator = random.Random(1)
    return [random_item(number, number % ROWS, generator) for number in range(ITEMS)]


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A gallery of 30 items on 20 rows with attributes of every type."""
    vectors = rng.standard_normal((ROWS, 4)).astype(np.float32)
    gallery_of(tmp_path, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), items(), types=TYPES).close()
    return tmp_path / "gallery"


def test_the_files_hold_what_the_format_says(tmp_path: Path) -> None:
    described = [item_of(1, id="b/x"), item_of(0, id="c"), item_of(1, id="a")]
    described[0].attributes.update(mood="ж", tag=["sea"], seen="1970-01-01T00:00:01", score=0.5)
    described[1].attributes.update(mood="a", tag=["beach", "sea"], year=-1)
    schema = check_schema({"mood": "text", "tag": "tags", "seen": "time", "score": "real", "year": "integer"})
    write_columns(tmp_path, schema, [described[1], described[2], described[0]])  # by row and id: c, a, b/x

    def read(name: str, dtype: str) -> list[Any]:
        return np.fromfile(tmp_path / FOLDER / name, dtype=dtype).tolist()  # type: ignore[no-any-return]

    missing = -(2**63)
    assert list(schema)[5:] == ["mood", "score", "seen", "tag", "year"]
    assert read("rows.i64", "<i8") == [0, 1, 3]
    assert read("0.i64", "<i8") == [10, 10, 10]
    assert read("3.i64", "<i8") == [missing] * 3
    assert (read("4.i32", "<i4"), read("4.words.i64", "<i8"), read("4.words.utf8", "u1")) == (
        [0, 0, 1],
        [0, 0, 1],
        [98],
    )
    assert read("5.i32", "<i4") == [0, -1, 1]
    assert bytes(read("5.words.utf8", "u1")).decode() == "aж" and read("5.words.i64", "<i8") == [0, 1, 3]
    np.testing.assert_equal(read("6.f64", "<f8"), [np.nan, np.nan, 0.5])
    assert read("7.i64", "<i8") == [missing, missing, 1_000_000]
    assert (read("8.i32", "<i4"), read("8.starts.i64", "<i8")) == ([0, 0, 2], [0, 1, 3])
    assert bytes(read("8.words.utf8", "u1")) == b"beachsea"
    assert read("9.i64", "<i8") == [-1, missing, missing]
    assert {path.relative_to(tmp_path).as_posix() for path in (tmp_path / FOLDER).iterdir()} == set(file_names(schema))


def test_columns_are_mapped_and_answer_as_those_in_memory(folder: Path) -> None:
    memory = Columns(SCHEMA, encode_columns(SCHEMA, items(), ROWS))
    mapped = open_columns(folder, SCHEMA, rows=ROWS, items=ITEMS)
    for name, op, values in (("mood", "starts", ("c",)), ("tag", "in", ("sea", "'")), ("year", "gt", (2019,))):
        mask = mapped.match(name, op, values)
        assert 0 < mask.sum() < ITEMS
        np.testing.assert_array_equal(mask, memory.match(name, op, values))
    assert isinstance(mapped.first, np.memmap)


def test_a_row_is_found_when_one_of_its_items_is() -> None:
    columns = Columns(SCHEMA, encode_columns(SCHEMA, items(), ROWS))  # rows 0 to 9 have two items
    mask = np.zeros(ITEMS, dtype=bool)
    mask[[1, 4, 5, 25]] = True
    assert columns.rows_of(mask).tolist() == [0, 2, 15]
    assert (columns.of_row(2), columns.of_row(15)) == (slice(4, 6), slice(25, 26))
    assert columns.rows_of(np.zeros(ITEMS, dtype=bool)).tolist() == []


def test_a_gallery_without_extra_attributes_has_what_is_recorded() -> None:
    schema = check_schema({})
    columns = Columns(schema, encode_columns(schema, [item_of(0)], 1))
    assert columns.match("width", "eq", (10,)).tolist() == [True]
    assert columns.match("taken", "exists", ()).tolist() == [False]


def _array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    dtype = {"i64": "<i8", "f64": "<f8", "i32": "<i4", "utf8": "u1"}[name.rpartition(".")[2]]

    def harm(folder: Path) -> None:
        path = folder / FOLDER / name
        np.asarray(change(np.fromfile(path, dtype=dtype)), dtype=dtype).tofile(path)

    return harm


def _put(place: int, value: int) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[place] = value
        return array

    return change


def _half(folder: Path) -> None:
    (folder / FOLDER / "0.i64").write_bytes(b"abc")


HARM: dict[str, tuple[Callable[[Path], None], str]] = {
    "a row too few": (_array("rows.i64", lambda a: a[1:]), "rows.i64 does not rise from 0 to 30, the items, over 20"),
    "rows empty": (_array("rows.i64", lambda a: a[:0]), "rows.i64 does not rise"),
    "a row without items": (_array("rows.i64", _put(1, 0)), "rows.i64 does not rise"),
    "an item too many": (_array("rows.i64", _put(-1, 31)), "rows.i64 does not rise"),
    "rows start late": (_array("rows.i64", _put(0, 1)), "rows.i64 does not rise"),
    "an integer too few": (_array("0.i64", lambda a: a[1:]), "0.i64 holds 29 values, expected 30"),
    "integers empty": (_array("0.i64", lambda a: a[:0]), "0.i64 holds 0 values, expected 30"),
    "a time too many": (_array("3.i64", lambda a: [*a, 0]), "3.i64 holds 31 values, expected 30"),
    "a real too few": (_array("6.f64", lambda a: a[1:]), "6.f64 holds 29 values, expected 30"),
    "a text too few": (_array("5.i32", lambda a: a[1:]), "5.i32 holds 29 values, expected 30"),
    "a text of no word": (_array("5.i32", _put(3, 99)), "5.i32 holds numbers from -1 to 99, expected -1 to"),
    "a text below": (_array("5.i32", _put(3, -2)), "5.i32 holds numbers from -2 to"),
    "half a number": (
        _half,
        "0.i64 has 3 bytes, expected a mul",
    ),
    "words without offsets": (_array("5.words.i64", lambda a: a[:0]), "5.words.i64 holds nothing"),
    "words that fall": (_array("5.words.i64", _put(2, 99)), "5.words.i64 holds offsets that do not rise from 0 to"),
    "words that start late": (_array("5.words.i64", _put(0, 1)), "5.words.i64 holds offsets that do not rise from 0"),
    "words cut short": (
        _array("5.words.utf8", lambda a: a[:-1]),
        "5.words.i64 holds offsets that do not rise from 0 to",
    ),
    "words of no UTF-8": (_array("5.words.utf8", _put(0, 255)), "5.words.utf8 holds bytes that are not UTF-8"),
    "a character in two": (
        _array("5.words.i64", lambda a: [*a[:-1], a[-1] - 1, a[-1]][1:]),
        "5.words.i64 holds offsets",
    ),
    "a tag of no item": (_array("8.i32", _put(0, 30)), "8.i32 holds numbers from . to 30, expected 0 to 29"),
    "a tag of item -1": (_array("8.i32", _put(0, -1)), "8.i32 holds numbers from -1 to 29, expected 0 to 29"),
    "tags that fall": (_array("8.starts.i64", _put(1, 99)), "8.starts.i64 holds offsets that do not rise from 0 to"),
    "a tag too few": (_array("8.starts.i64", lambda a: a[:-1]), "8.starts.i64 holds 6 offsets, expected 7"),
}


@pytest.mark.parametrize("name", HARM)
def test_columns_that_cannot_be_are_refused(folder: Path, name: str) -> None:
    harm, message = HARM[name]
    harm(folder)
    sign(folder / "gallery.json")
    with pytest.raises(FormatError, match=f"{FOLDER}/{message}"):
        Gallery.open(folder)


def test_an_offset_inside_a_character_is_refused(folder: Path) -> None:
    path = folder / FOLDER / "5.words.i64"
    offsets = np.fromfile(path, dtype="<i8")
    blob = (folder / FOLDER / "5.words.utf8").read_bytes()
    inside = blob.index("ж".encode()) + 1
    offsets[np.searchsorted(offsets, inside)] = inside
    offsets.tofile(path)
    sign(folder / "gallery.json")
    with pytest.raises(FormatError, match=r"5\.words\.i64 holds offsets inside a character"):
        Gallery.open(folder)


@pytest.mark.parametrize("name", [name for name in file_names(SCHEMA) if not name.endswith("rows.i64")])
def test_verify_finds_columns_that_differ_from_the_items(folder: Path, name: str) -> None:
    verify(folder)
    dtype = {"i64": "<i8", "f64": "<f8", "i32": "<i4", "utf8": "u1"}[name.rpartition(".")[2]]
    array = np.fromfile(folder / name, dtype=dtype)
    if len(array) and not name.endswith(("words.i64", "starts.i64")):
        np.roll(array, 1).tofile(folder / name) if len(set(array.tolist())) > 1 else (array + 1).tofile(folder / name)
    else:
        np.append(array[:1], array[:-1]).astype(dtype).tofile(folder / name)
    sign(folder / "gallery.json")
    with pytest.raises(FormatError, match=f"{name} "):
        verify(folder)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "attributes are none, expected width, height"),
        ({"width": "integer"}, "attributes are width, expected width, height, size_bytes, taken, folder"),
        ({"height": "integer", "width": "integer"}, "attributes are height, width, expected width, height"),
        ({**SCHEMA, "a=b": "text"}, "gallery.json: 'a=b' cannot be an attribute's name"),
        (
            {**SCHEMA, "x": "blob"},
            "attributes.x is \"blob\", expected one of 'text', 'integer', 'real', 'time', 'tags'",
        ),
        ({**SCHEMA, "width": "real"}, "gallery.json: attribute 'width' is of type real, but pocketlens records"),
        ({**SCHEMA, "x": "text"}, "gallery.json: attributes are .*year, x, expected .* tag, x, year"),
        ({name: kind for name, kind in SCHEMA.items() if name != "year"}, "gallery.json: files are .* expected"),
        ([], r"gallery.json: attributes is \[\], expected an object"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(folder: Path, attributes: Any, message: str) -> None:
    edit_json(folder / "gallery.json", attributes=attributes)
    with pytest.raises(FormatError, match=message):
        Gallery.open(folder)


@pytest.mark.parametrize("value", [-0.1, 2.1])
def test_an_error_of_the_codes_that_cannot_be_is_refused(folder: Path, value: float) -> None:
    edit_json(folder / "gallery.json", segments__0__index__code_error=value)
    with pytest.raises(FormatError, match=f"gallery.json: segment 0: code_error is {value}, expected 0 to 2"):
        Gallery.open(folder)
