from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlens.attributes import check_name, check_schema
from pocketlens.errors import BadQuery
from pocketlens.filter import parse_filter
from pocketlens.where import OPERATORS, read_where
from tests.filters import TYPES

SCHEMA = check_schema({**TYPES, "taken at": "text"})


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("year>=2020", {"year": {"gte": 2020}}),
        (" year <= -3 ", {"year": {"lte": -3}}),
        ("year>2020", {"year": {"gt": 2020}}),
        ("year<2020", {"year": {"lt": 2020}}),
        ("score!=0.5", {"score": {"ne": 0.5}}),
        ("score=1e3", {"score": {"eq": 1_000.0}}),
        ("tag=beach", {"tag": {"eq": "beach"}}),
        ("mood=a=b>c", {"mood": {"eq": "a=b>c"}}),
        ("mood=", {"mood": {"eq": ""}}),
        ("mood~=al", {"mood": {"contains": "al"}}),
        ("folder^=a/b", {"folder": {"starts": "a/b"}}),
        ("taken at = noon", {"taken at": {"eq": "noon"}}),
        ("taken>=2020-05", {"taken": {"gte": "2020-05"}}),
        ("taken", {"taken": {"exists": True}}),
        ("!taken", {"taken": {"exists": False}}),
        ('{"or": [{"year": {"in": [1, 2]}}]}', {"or": [{"year": {"in": [1, 2]}}]}),
        ("nope=3", {"nope": {"eq": "3"}}),
    ],
)
def test_an_expression_is_a_filter(expression: str, expected: dict[str, Any]) -> None:
    assert read_where([expression], SCHEMA) == {"and": [expected]}


def test_all_expressions_must_hold_and_none_is_no_filter() -> None:
    assert read_where(["year=1", "tag=sea"], SCHEMA) == {"and": [{"year": {"eq": 1}}, {"tag": {"eq": "sea"}}]}
    assert read_where([], SCHEMA) is None


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "--where is '', expected NAME=VALUE"),
        ("=3", "--where is '=3', expected NAME=VALUE"),
        ("!", "--where is '!', expected"),
        ("!!taken", "--where is '!!taken', expected"),
        ("year~2", "--where is 'year~2', expected"),
        ("year=2020.5", "--where 'year=2020.5' has the value '2020.5', expected an integer"),
        ("year=", "--where 'year=' has the value '', expected an integer"),
        ("year==2020", "--where 'year==2020' has the value '=2020', expected an integer"),
        ("score=x", "--where 'score=x' has the value 'x', expected a number"),
        ('{"year": ', "--where is '{\"year\":', which is not valid JSON"),
        ('{"year": 1, "year": 2}', "which is not valid JSON: a key stands twice in one object"),
        ("{" * 99_999, "which is not valid JSON"),
    ],
    ids=range(12),
)
def test_an_expression_that_is_none_is_refused(expression: str, message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        read_where([expression], SCHEMA)


def _is_name(text: str) -> bool:
    try:
        return check_name(text) == text
    except BadQuery:
        return False


@settings(max_examples=300, deadline=None)
@given(name=st.text(min_size=1, max_size=8).filter(_is_name), sign=st.sampled_from(sorted(OPERATORS)),
       value=st.text(max_size=12).map(str.strip).filter(lambda text: not text.startswith("=")))  # fmt: skip
def test_every_name_and_text_reads_back(name: str, sign: str, value: str) -> None:
    assert read_where([f"{name}{sign}{value}"], {name: "text"}) == {"and": [{name: {OPERATORS[sign]: value}}]}


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(), st.text(alphabet='yearscotg=<>!~^{}[]":,0123. ')))
def test_any_text_is_a_filter_or_a_bad_query(text: str) -> None:
    try:
        data = read_where([text], SCHEMA)
        parse_filter(data, SCHEMA)
    except BadQuery:
        return
    assert json.dumps(data)
