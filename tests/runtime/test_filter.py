from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlens.attributes import RECORDED, check_schema
from pocketlens.columns import Columns, encode_columns
from pocketlens.errors import BadQuery
from pocketlens.filter import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    All,
    Condition,
    Either,
    Not,
    parse_filter,
    select_items,
)
from pocketlens.moments import read_moment
from tests.filters import FILTERS, TYPES, allows, random_item
from tests.galleries import item_of

SCHEMA = check_schema(TYPES)
ITEMS = [random_item(number, number // 2, random.Random(number)) for number in range(200)]
ITEMS.sort(key=lambda item: (item.row, item.id))
COLUMNS = Columns(SCHEMA, encode_columns(SCHEMA, ITEMS, 100))


def selected(filter: Any) -> list[str]:
    mask = select_items(parse_filter(filter, SCHEMA), COLUMNS)
    assert mask.dtype == bool and mask.shape == (200,)
    return [item.id for item, there in zip(ITEMS, mask, strict=True) if there]


@settings(max_examples=1_000, deadline=None)
@given(FILTERS)
def test_a_filter_selects_what_its_definition_says(filter: dict[str, Any]) -> None:
    assert selected(filter) == [item.id for item in ITEMS if allows(filter, item)]


def test_values_of_a_wide_filter_are_all_looked_for() -> None:
    years = list(range(-50_000, 50_000))
    assert selected({"year": {"in": years}}) == [item.id for item in ITEMS if item.attributes.get("year") in years]
    words = [f"word {number}" for number in range(99_999)]
    assert selected({"mood": {"in": [*words, "calm"]}}) == selected({"mood": "calm"}) != []


def test_a_filter_becomes_frozen_conditions() -> None:
    data = {"year": {"gte": 2020, "lt": 2022}, "or": [{"tag": "sea"}, {"not": {"mood": {"in": ["a", "b"]}}}]}
    assert parse_filter(data, SCHEMA) == All(
        (
            Condition("year", "gte", (2020,)),
            Condition("year", "lt", (2022,)),
            Either((Condition("tag", "eq", ("sea",)), Not(Condition("mood", "in", ("a", "b"))))),
        )
    )
    assert parse_filter({"seen": "2020"}, SCHEMA) == Condition("seen", "eq", (read_moment("2020"),))
    assert parse_filter({}, SCHEMA) == All(())


HAS = "which this gallery does not have; it has width .integer., height .integer., .* year .integer."
BAD: list[tuple[Any, str]] = [
    (None, "where is None, expected an object"),
    ("year>=2020", "where is 'year>=2020', expected an object"),
    ([{"year": 1}], "where is .*, expected an object"),
    ({3: 1}, "where has a key 3, expected an attribute's name, 'and', 'or' or 'not'"),
    ({"yeer": 1}, f"where asks for 'yeer', {HAS}"),
    ({"year; DROP TABLE items": 1}, f"where asks for 'year; DROP TABLE items', {HAS}"),
    ({"not": {"x": 1}}, f"where.not asks for 'x', {HAS}"),
    ({"or": [{"year": 1}, {"x": 1}]}, rf"where.or\[1\] asks for 'x', {HAS}"),
    ({"or": {"year": 1}}, "where.or is {'year': 1}, expected a list of filters"),
    ({"and": "year"}, "where.and is 'year', expected a list of filters"),
    ({"not": [{"year": 1}]}, r"where.not is \[{'year': 1}\], expected an object"),
    ({"year": {}}, "where.year has no condition, expected one of eq, ne, lt"),
    (
        {"year": {"$gte": 1}},
        "where.year has the operator '.gte', but integer takes eq, ne, lt, lte, gt, gte, in, exists",
    ),
    ({"year": {"contains": 1}}, "where.year has the operator 'contains', but integer takes"),
    ({"tag": {"gt": "a"}}, "where.tag has the operator 'gt', but tags takes eq, ne, in, contains, exists"),
    ({"year": {("eq",): 1}}, "where.year has the operator"),
    ({"year": "2020"}, "where.year.eq is '2020', expected an integer"),
    ({"year": 2020.0}, "where.year.eq is 2020.0, expected an integer"),
    ({"year": True}, "where.year.eq is True, expected an integer"),
    ({"year": None}, "where.year.eq is None, expected an integer"),
    ({"year": 2**63}, "where.year.eq is 9223372036854775808, expected an integer of 64 bits"),
    ({"year": [2020]}, r"where.year.eq is \[2020\], expected an integer"),
    ({"score": float("nan")}, "where.score.eq is nan, expected a finite number"),
    ({"mood": 3}, "where.mood.eq is 3, expected text"),
    ({"mood": "\ud800"}, "where.mood.eq is '.ud800', which UTF-8 cannot hold"),
    ({"tag": {"in": "sea"}}, "where.tag.in is 'sea', expected a list of values"),
    ({"tag": {"in": [1]}}, "where.tag.in is 1, expected text"),
    ({"tag": ["sea"]}, r"where.tag.eq is \['sea'\], expected text"),
    ({"seen": {"gte": "soon"}}, "where.seen.gte is 'soon', expected a time such as"),
    ({"seen": {"gte": "2023-02-30"}}, "where.seen.gte is '2023-02-30', which does not exist"),
    ({"mood": {"exists": 1}}, "where.mood.exists is 1, expected True or False"),
    ({"or": [{}] * (MAX_CONDITIONS + 1)}, "where has 1001 conditions with 0 values, expected at most 1000 with 100000"),
    ({"year": {"in": range(3)}}, r"where.year.in is range\(0, 3\), expected a list of values"),
    ({"year": {"in": [0] * (MAX_VALUES + 1)}}, "where has 1 conditions with 100001 values"),
]


@pytest.mark.parametrize(("data", "message"), BAD, ids=range(len(BAD)))
def test_what_is_no_filter_is_refused(data: Any, message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        parse_filter(data, SCHEMA)


def test_a_filter_may_be_deep_to_a_limit() -> None:
    data: dict[str, Any] = {"year": 2020}
    for _ in range(MAX_DEPTH - 1):
        data = {"not": data}
    assert selected(data) == [item.id for item in ITEMS if allows(data, item)]
    with pytest.raises(BadQuery, match=f"where is nested more than {MAX_DEPTH} deep"):
        parse_filter({"not": data}, SCHEMA)
    endless: dict[str, Any] = {}
    endless["not"] = endless
    with pytest.raises(BadQuery, match="nested more than"):
        parse_filter(endless, SCHEMA)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from([*SCHEMA, "and", "or", "not", "eq", "in", "exists", "gte"]), st.text(max_size=3)),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=10,
)


@settings(max_examples=500, deadline=None)
@given(_JSON)
def test_any_data_is_a_filter_or_a_bad_query(data: Any) -> None:
    try:
        filter = parse_filter(data, SCHEMA)
    except BadQuery:
        return
    assert select_items(filter, COLUMNS).shape == (200,)


def test_a_tag_is_not_a_part_of_one_and_case_counts() -> None:
    items = [item_of(0), item_of(1)]
    for item, tags in zip(items, (["sea"], ["Sea", "seaside"]), strict=True):
        item.attributes["tag"] = tags
    columns = Columns({**RECORDED, "tag": "tags"}, encode_columns({**RECORDED, "tag": "tags"}, items, 2))
    mask = select_items(parse_filter({"tag": {"contains": "sea"}}, columns.schema), columns)
    np.testing.assert_array_equal(mask, [True, False])
