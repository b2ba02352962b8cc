"""Attributes and filters on the command line, from a table beside the pictures to the hits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pocketlens import cli

TABLE = """id,year:integer,mood,tag
red.png,2020,happy,warm;loud
more/red copy.png,2021,calm,warm
blue.png,2019,calm,cold
gone.png,1999,,
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command in this process, as the installed script does."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["pocketlens", *map(str, arguments)])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def bundle(run: Run, pictures: Path, colours: Path, table: Path, tmp_path: Path) -> Path:
    result = run("index", pictures, "--out", tmp_path / "b", "--model", colours, "--attributes", table)
    assert result.code == 0, result.err
    assert f"{table}: 1 ids are no files and were left out, such as gone.png\n" in result.err
    return tmp_path / "b"


def found(run: Run, bundle: Path, *arguments: object) -> set[str]:
    result = run("search", bundle, *arguments, "--json")
    assert result.code == 0, result.err
    return {hit["id"] for hit in json.loads(result.out)["hits"]}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["year>=2020"], {"red.png", "more/red copy.png"}),
        (["year>=2020", "mood=calm"], {"more/red copy.png"}),
        (["tag=warm", "!nothing"], None),
        (["tag=loud"], {"red.png"}),
        (["tag!=warm"], {"blue.png"}),
        (["!year"], {"green.png", "white.png"}),
        (["mood"], {"red.png", "more/red copy.png", "blue.png"}),
        (["mood~=al"], {"more/red copy.png", "blue.png"}),
        (["folder=more"], {"more/red copy.png"}),
        (["width=40", "height<=30", "year<2020"], {"blue.png"}),
        (['{"or": [{"year": 2019}, {"tag": {"in": ["loud", "x"]}}]}'], {"blue.png", "red.png"}),
        (["year>3000"], set()),
    ],
)
def test_where_narrows_a_search(run: Run, bundle: Path, conditions: list[str], expected: set[str] | None) -> None:
    options = [option for condition in conditions for option in ("--where", condition)]
    if expected is None:
        result = run("search", bundle, "red", *options)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith(
            "pocketlens: where.and[1] asks for 'nothing', which this gallery does not have; it has"
        )
        return
    assert found(run, bundle, "red", *options) == expected
    assert found(run, bundle, "red - blue", *options) == expected  # composed
    assert found(run, bundle, "--like", "white.png", *options) == expected - {"white.png"}


def test_hits_tell_their_attributes(run: Run, bundle: Path) -> None:
    hits = json.loads(run("search", bundle, "red", "--where", "year=2020", "--json").out)["hits"]
    assert hits[0]["attributes"]["year"] == 2020
    assert hits[0]["attributes"]["tag"] == ["loud", "warm"]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("year", None),
        ("yeer=2020", "where.and[0] asks for 'yeer', which this gallery does not have; it has width (integer), "),
        ("year=x", "--where 'year=x' has the value 'x', expected an integer"),
        ("tag>a", "where.and[0].tag has the operator 'gt', but tags takes eq, ne, in, contains, exists"),
        ("taken>=soon", "where.and[0].taken.gte is 'soon', expected a time such as 2024"),
        ("=", "--where is '=', expected NAME=VALUE"),
        ('{"year": {"$gt": 1}}', "where.and[0].year has the operator '$gt', but integer takes"),
        ("x'; DROP TABLE items; --", 'where.and[0] asks for "x\'; DROP TABLE items; --", which this gallery does not'),
    ],
)
def test_a_wrong_condition_is_one_line(run: Run, bundle: Path, condition: str, message: str | None) -> None:
    result = run("search", bundle, "red", "--where", condition)
    if message is None:
        assert result.code == 0
        return
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"pocketlens: {message}") and result.err.count("\n") == 1


def test_info_shows_what_can_be_asked_for(run: Run, bundle: Path) -> None:
    shown = run("info", bundle).out
    attributes = shown.partition("  attributes\n")[2].splitlines()[:8]
    assert [line.split() for line in attributes] == [
        ["width", "integer"], ["height", "integer"], ["size_bytes", "integer"], ["taken", "time"], ["folder", "text"],
        ["mood", "text"], ["tag", "tags"], ["year", "integer"],
    ]  # fmt: skip
    assert json.loads(run("info", bundle, "--json").out)["gallery"]["attributes"]["tag"] == "tags"
    assert run("verify", bundle).code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,year\nnowhere.png,1\n",
            "no id is one of the 7 files, found 'nowhere.png'; expected paths below the folder",
        ),
        ("name\nred.png\n", "columns are 'name', expected one called id"),
        ("id,year:integer\nred.png,x\n", "line 2: attribute 'year' of 'red.png' is 'x', expected an integer"),
    ],
)
def test_a_wrong_table_stops_before_anything_is_encoded(
    run: Run, pictures: Path, colours: Path, table: Path, tmp_path: Path, text: str, message: str
) -> None:
    table.write_text(text)
    result = run("index", pictures, "--out", tmp_path / "b", "--model", colours, "--attributes", table)
    assert (result.code, result.out) == (1, "")
    assert message in result.err and str(table) in result.err and result.err.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_help_tells_of_filters(run: Run) -> None:
    assert "--where CONDITION" in run("search", "--help").out
    shown = run("index", "--help").out
    assert "--attributes FILE" in shown and "id,year:integer,mood,tag:tags" in shown
