"""Items with attributes of every type, filters over them, and a plain-Python oracle of which items a filter allows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from pocketlens.items import Item
from tests.galleries import item_of

TYPES = {"mood": "text", "year": "integer", "score": "real", "tag": "tags", "seen": "time"}
MOODS = ["", "calm", "calmer", "Straße", "it's", 'a"; DROP TABLE items --', "NULL", "ж]", "a\0", "%", "𝄞", "long " * 30]
TAGS = ["beach", "sea", "a b", "'", "ж", "OR 1=1"]
FOLDERS = ["", "a", "a/b", "ab"]
_DAYS = [
    "2019-12-31T23:59:59",
    "2020-01-01T00:00:00",
    "2020-02-29T12:00:00",
    "2020-12-31T23:59:00",
    "2021-06-01T08:30:00",
]
_SPANS = ["2019", "2020", "2020-01", "2020-02", "2020-02-29", "2020-12-31T23:59", "2021-06-01T08:30:00", "2022"]
_YEARS = [-(2**63) + 1, 0, 2018, 2019, 2020, 2021, 2**63 - 1]
_SCORES = [-1e300, -0.5, 0.0, 0.25, 0.5, 7.0]


def random_item(number: int, row: int, generator: random.Random) -> Item:
    """Return an item of a row whose attributes, each of which it may lack, are drawn."""
    drawn = {
        "mood": generator.choice(MOODS),
        "year": generator.choice(_YEARS),
        "score": generator.choice(_SCORES),
        "tag": sorted(generator.sample(TAGS, generator.randint(1, 3))),
        "seen": generator.choice(_DAYS),
    }
    folder = generator.choice(FOLDERS)
    item = item_of(row, id=f"{folder}{'/' if folder else ''}{number}.png", width=generator.choice([10, 20, 30]))
    attributes = {name: value for name, value in drawn.items() if generator.random() < 0.8}
    return replace(item, attributes={**attributes, "size_bytes": generator.choice([1, 1_000])})


def _conditions(name: str, values: list[Any], *operators: str) -> st.SearchStrategy[dict[str, Any]]:
    one = st.sampled_from(values)
    single = st.tuples(st.sampled_from(["eq", "ne", *operators]), one).map(lambda pair: {pair[0]: pair[1]})
    several = st.lists(one, max_size=4).map(lambda found: {"in": found})
    exists = st.booleans().map(lambda wanted: {"exists": wanted})
    both = st.tuples(single, several).map(lambda pair: {**pair[0], **pair[1]})
    return st.one_of(one, single, several, exists, both).map(lambda condition: {name: condition})


_ORDER = ("lt", "lte", "gt", "gte")
_LEAVES = st.one_of(
    _conditions("mood", [*MOODS, "z", "c"], *_ORDER, "contains", "starts"),
    _conditions("folder", [*FOLDERS, "b"], *_ORDER, "contains", "starts"),
    _conditions("year", [*_YEARS, 5], *_ORDER),
    _conditions("score", [*_SCORES, 3, -7.5], *_ORDER),
    _conditions("width", [10, 20, 30, 25], *_ORDER),
    _conditions("size_bytes", [1, 2, 1_000], *_ORDER),
    _conditions("tag", [*TAGS, "none"], "contains"),
    _conditions("seen", [*_SPANS, *_DAYS], *_ORDER),
    _conditions("taken", _SPANS),  # which no item has
)
FILTERS = st.recursive(
    st.one_of(_LEAVES, st.tuples(_LEAVES, _LEAVES).map(lambda pair: {**pair[0], **pair[1]}), st.just({})),
    lambda inner: st.one_of(
        inner.map(lambda part: {"not": part}),
        st.lists(inner, max_size=3).map(lambda parts: {"or": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"and": parts}),
        st.tuples(_LEAVES, inner).map(lambda pair: {**pair[0], "not": pair[1]}),
    ),
    max_leaves=6,
)


def allows(filter: Mapping[str, Any], item: Item) -> bool:
    """Return whether a filter lets an item through: the definition, word for word."""
    return all(_entry_holds(key, value, item) for key, value in filter.items())


def _entry_holds(key: str, value: Any, item: Item) -> bool:
    if key == "not":
        return not allows(value, item)
    if key == "and":
        return all(allows(part, item) for part in value)
    if key == "or":
        return any(allows(part, item) for part in value)
    folder = item.id.rsplit("/", 1)[0] if "/" in item.id else ""
    there = {**item.attributes, "width": item.width, "height": item.height, "folder": folder}
    conditions = value if isinstance(value, dict) else {"eq": value}
    return all(_holds(key, op, wanted, there) for op, wanted in conditions.items())


def _holds(name: str, op: str, wanted: Any, there: Mapping[str, Any]) -> bool:
    if op == "exists":
        return (name in there) is wanted
    if name not in there:
        return False
    if op == "in":
        return any(_compares(name, "eq", each, there[name]) for each in wanted)
    return _compares(name, op, wanted, there[name])


def _compares(name: str, op: str, wanted: Any, value: Any) -> bool:
    if TYPES.get(name) == "tags":
        return (wanted in value) is (op != "ne")
    if name in ("seen", "taken"):
        value = value[: len(wanted)]  # a span is a prefix; texts of one length compare like times
    compared: dict[str, Callable[[], bool]] = {
        "eq": lambda: value == wanted,
        "ne": lambda: value != wanted,
        "lt": lambda: value < wanted,
        "lte": lambda: value <= wanted,
        "gt": lambda: value > wanted,
        "gte": lambda: value >= wanted,
        "contains": lambda: wanted in value,
        "starts": lambda: value.startswith(wanted),
    }
    return compared[op]()
