from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import pytest

from pocketlens.attributes import (
    MAX_ATTRIBUTES,
    RECORDED,
    Schema,
    check_name,
    check_schema,
    check_values,
    infer_schema,
    record,
    values_of,
)
from pocketlens.errors import BadQuery
from tests.galleries import item_of

SCHEMA: Schema = {**RECORDED, "mood": "text", "score": "real", "tag": "tags", "year": "integer"}


@pytest.mark.parametrize("name", ["year", "Größe", "taken at", "a.b-c_d/e", "'; DROP TABLE items --", "x" * 64, "$ne"])
def test_a_name_may_be_any_short_printable_text(name: str) -> None:
    assert check_name(name) == name
    assert check_schema({name: "text"})[name] == "text"


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", "a=b", "a<b", "!a", "a:b", "a~", "^a", "a\nb", "a\0", "x" * 65, "and", "or", "not", "id", "{a",
     "[a", 3, None],
)  # fmt: skip
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(BadQuery, match="attribute's name"):
        check_name(name)


def test_a_schema_has_what_is_recorded_first_and_the_rest_by_name() -> None:
    schema = check_schema({"year": "integer", "mood": "text", "taken": "time"})
    assert list(schema) == ["width", "height", "size_bytes", "taken", "folder", "mood", "year"]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"year": "int"}, "'year' is of type 'int', expected one of text, integer, real, time, tags"),
        ({"width": "real"}, "'width' is of type real, but pocketlens records it as integer"),
        ({f"a{n}": "text" for n in range(MAX_ATTRIBUTES)}, "261 attributes, expected at most 256"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(schema: dict[str, str], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        check_schema(schema)


def test_types_follow_from_values() -> None:
    values: list[dict[str, Any]] = [
        {"a": 1, "b": "x", "c": ["t"], "d": date(2024, 1, 1), "e": 1, "f": None, "g": []},
        {"a": np.int32(2), "e": 1.5, "d": datetime(2024, 1, 1, 2), "c": ("u", "v")},
    ]
    assert infer_schema(values) == {"a": "integer", "b": "text", "c": "tags", "d": "time", "e": "real"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([{"a": 1}, {"a": "x"}], "'a' is integer in one item and text in another"),
        ([{"a": True}], "'a' is True, expected text, a number, a date or a list of tags"),
        ([{"a": {"b": 1}}], "'a' is {'b': 1}, expected"),
    ],
)
def test_values_of_no_one_type_are_refused(values: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        infer_schema(values)


def test_values_get_one_form() -> None:
    given = {
        "mood": "glücklich", "score": 2, "tag": {"b", "a"}, "year": np.int64(2020), "taken": "2024-07", "unknown": None
    }  # fmt: skip
    with pytest.raises(
        BadQuery, match=r"'x' has an attribute 'unknown', which this gallery does not have; it has width"
    ):
        check_values(SCHEMA, given, of="x")
    del given["unknown"]
    values = check_values(SCHEMA, {**given, "tag": ["b", "a", "b"]}, of="x")
    assert values == {
        "mood": "glücklich",
        "score": 2.0,
        "tag": ["a", "b"],
        "year": 2020,
        "taken": "2024-07-01T00:00:00",
    }
    assert [type(value) for value in values.values()] == [str, float, list, int, str]
    assert check_values(SCHEMA, {"mood": None, "tag": []}, of="x") == {}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 3, "'width' of 'x' is recorded from the picture; give yours another name"),
        ("size_bytes", 3, "'size_bytes' of 'x' is recorded"),
        ("year", "2020", "'year' of 'x' is '2020', expected an integer"),
        ("year", 2020.0, "'year' of 'x' is 2020.0, expected an integer"),
        ("year", True, "'year' of 'x' is True, expected an integer"),
        ("year", 2**63, "'year' of 'x' is 9223372036854775808, expected an integer of 64 bits"),
        ("year", -(2**63), "expected an integer of 64 bits"),
        pytest.param("year", 10**9999, "'year' of 'x' is a very large int, expected an integer of 64 bits", id="huge"),
        ("score", float("nan"), "'score' of 'x' is nan, expected a finite number"),
        ("score", float("inf"), "expected a finite number"),
        ("score", 10**400, "'score' of 'x' is 1000.*…, expected a finite number"),
        ("score", "1", "'score' of 'x' is '1', expected a finite number"),
        ("mood", 3, "'mood' of 'x' is 3, expected text"),
        ("mood", "\ud800", "'mood' of 'x' is '.ud800', which UTF-8 cannot hold"),
        ("mood", "x" * 4_097, "'mood' of 'x' is 4097 characters long, expected at most 4096"),
        ("tag", "beach", "'tag' of 'x' is 'beach', expected a list of tags"),
        ("tag", [1], "'tag' of 'x' has a tag that is 1, expected text"),
        ("tag", [str(n) for n in range(1_001)], "'tag' of 'x' has 1001 tags, expected at most 1000"),
        ("taken", "yesterday", "'taken' of 'x' is 'yesterday', expected a time such as"),
        ("taken", 2024, "'taken' of 'x' is 2024, expected a time such as"),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        check_values(SCHEMA, {name: value}, of="x")


def test_attributes_are_names_with_values() -> None:
    with pytest.raises(BadQuery, match="attributes of 'x' are of type list, expected names with values"):
        check_values(SCHEMA, ["year"], of="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ("2024:07:31 18:30:00", {"taken": "2024-07-31T18:30:00"}),
        ("0000:00:00 00:00:00", {}),
        ("2024:13:31 18:30:00", {}),
        (None, {}),
    ],
)
def test_what_a_file_says_is_recorded(taken: str | None, expected: dict[str, str]) -> None:
    assert record({"a": 1}, size_bytes=7, taken=taken) == {**expected, "a": 1, "size_bytes": 7}
    given = {"taken": "2020-01-01T00:00:00"}
    assert record(given, size_bytes=7, taken=taken) == {**given, "size_bytes": 7}  # cameras get it wrong


@pytest.mark.parametrize(("id", "folder"), [("a.png", ""), ("x/y/a.png", "x/y"), ("x/", "x")])
def test_a_filter_sees_the_picture_too(id: str, folder: str) -> None:
    assert values_of(item_of(0, id=id, width=30)) == {"width": 30, "height": 10, "folder": folder}
