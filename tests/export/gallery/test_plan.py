from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pocketlens.errors import BadQuery
from pocketlens.listing import Skipped
from pocketlens_export.gallery.plan import Plan, write_plan
from pocketlens_export.gallery.sources.entry import Entry, Place


class Listed:
    """A source of given entries."""

    name = "listed"

    def __init__(self, *entries: Entry | Skipped) -> None:
        self._entries = entries

    def entries(self) -> Iterator[Entry | Skipped]:
        yield from self._entries


def entry(id: str, **attributes: Any) -> Entry:
    return Entry(id, f"u/{id}", Place("span", "/a/\udcff.tar", 512, 99, "c"), attributes)


def plan_of(path: Path, *sources: Listed, shard: int = 1024, **options: Any) -> Plan:
    write_plan(path / "plan", sources, **{"given": {}, "types": {}, **options}, shard=shard)
    return Plan(path / "plan")


def test_entries_come_back_by_shard(tmp_path: Path) -> None:
    entries = [entry(str(n)) if n % 3 else Skipped(str(n), "why", "more") for n in range(10)]
    with closing(plan_of(tmp_path, Listed(*entries[:7]), Listed(*entries[7:]), shard=4)) as plan:
        assert (plan.total, plan.shards, [plan.count_of(n) for n in range(3)]) == (10, 3, [4, 4, 2])
        assert [each for n in range(3) for each in plan.entries(n)] == entries
        assert plan.first_id() == "0"
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_an_id_that_repeats_is_an_entry_that_is_skipped(tmp_path: Path) -> None:
    sources = Listed(entry("a"), Skipped("a", "why", ""), entry("b")), Listed(entry("a"), entry("c"))
    with closing(plan_of(tmp_path, *sources)) as plan:
        found = [(each.id, getattr(each, "reason", None)) for each in plan.entries(0)]
    assert found == [("a", None), ("a", "why"), ("b", None), ("a", "id repeats"), ("c", None)]


def test_an_id_that_no_command_could_name_again_is_skipped(tmp_path: Path) -> None:
    with closing(plan_of(tmp_path, Listed(entry("a" * 1_025), entry("a\0b"), entry("a" * 1_024)))) as plan:
        found = plan.entries(0)
    assert [isinstance(each, Skipped) and each.reason for each in found] == ["id cannot be one"] * 2 + [False]


def test_types_follow_from_all_values(tmp_path: Path) -> None:
    source = Listed(entry("a", n=1, day=date(2020, 5, 1), tag=["b", "a"]), entry("b", n=0.5, m="x"), entry("c", n=None))
    options: dict[str, Any] = {"given": {"b": {"year": 7}, "z": {"year": 8}}, "types": {"year": "integer", "m": "text"}}
    with closing(plan_of(tmp_path, source, **options)) as plan:
        assert {name: plan.schema[name] for name in ("n", "day", "tag", "m", "year")} == {
            "n": "real", "day": "time", "tag": "tags", "m": "text", "year": "integer",
        }  # fmt: skip
        values = [each.attributes for each in plan.entries(0) if isinstance(each, Entry)]
        assert (plan.strange, plan.matched) == (("z", 1), 1)
    assert values == [
        {"n": 1.0, "day": "2020-05-01T00:00:00", "tag": ["a", "b"]}, {"n": 0.5, "m": "x", "year": 7}, {},
    ]  # fmt: skip
    assert isinstance(values[0]["n"], float)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ([{"n": 1}, {"n": "x"}], "attribute 'n' is integer in one item and text in another"),
        ([{"n": {"x": 1}}], "attribute 'n' is {'x': 1}, expected text, a number, a date or a list of tags"),
        ([{"year": "x"}], "attribute 'year' of '0' is 'x', expected an integer"),
    ],
)
def test_attributes_that_cannot_be_stop_before_anything_is_decoded(
    tmp_path: Path, attributes: list[dict[str, Any]], message: str
) -> None:
    source = Listed(*(entry(str(n), **each) for n, each in enumerate(attributes)))
    with pytest.raises(BadQuery, match=message):
        plan_of(tmp_path, source, types={"year": "integer"})
    assert not (tmp_path / "plan").exists()
