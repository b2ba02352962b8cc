from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from pocketlens.errors import FormatError, MissingPart
from pocketlens_export.gallery.sidecar import read_sidecar


def csv(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def column(tmp_path: Path, *cells: str, header: str = "x") -> tuple[str, list[Any]]:
    """Return type and values that a column of these cells is read as; None where there is no value."""
    rows = "".join(f"{n}.png,{cell}\n" for n, cell in enumerate(cells))
    sidecar = read_sidecar(csv(tmp_path, f"id,{header}\n{rows}"))
    ((name, kind),) = sidecar.types.items()
    return kind, [sidecar.attributes[f"{n}.png"].get(name) for n in range(len(cells))]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-2", "+3", ""], "integer", [1, -2, 3, None]),
        (["1", "2.5", "1e3"], "real", [1.0, 2.5, 1000.0]),
        (["2020-01-02", "2020-01-02T03:04:05Z"], "time", ["2020-01-02T00:00:00", "2020-01-02T03:04:05"]),
        (["2020", "2021"], "integer", [2020, 2021]),
        (["007", "8"], "text", ["007", "8"]),
        (["99999999999999999999"], "real", [1e20]),
        (["1e999"], "text", ["1e999"]),
        (["nan", "1"], "text", ["nan", "1"]),
        (["1", "x"], "text", ["1", "x"]),
        (["2020-02-30"], "text", ["2020-02-30"]),
        (["a;b", "c"], "text", ["a;b", "c"]),
        (["", ""], "text", [None, None]),
    ],
)
def test_types_follow_from_the_cells(tmp_path: Path, cells: list[str], kind: str, values: list[Any]) -> None:
    assert column(tmp_path, *cells) == (kind, values)


@pytest.mark.parametrize(
    ("header", "cells", "kind", "values"),
    [
        ("x:text", ["1", "2"], "text", ["1", "2"]),
        ("x:real", ["1", "2"], "real", [1.0, 2.0]),
        ("x : integer", ["1"], "integer", [1]),
        ("x:time", ["2020", "2020-05"], "time", ["2020-01-01T00:00:00", "2020-05-01T00:00:00"]),
        ("x:tags", ["b; a;;b", "", "c"], "tags", [["a", "b"], None, ["c"]]),
        ("tags", ["sea;beach", ""], "tags", [["beach", "sea"], None]),
        ("tag", ["1"], "tags", [["1"]]),
        ("tag:text", ["sea;beach"], "text", ["sea;beach"]),
        ("taken", ["2020"], "time", ["2020-01-01T00:00:00"]),  # it is recorded as one
    ],
)
def test_types_are_declared_in_the_header(
    tmp_path: Path, header: str, cells: list[str], kind: str, values: list[Any]
) -> None:
    assert column(tmp_path, *cells, header=header) == (kind, values)


def test_the_column_id_may_stand_anywhere_and_cells_may_be_quoted(tmp_path: Path) -> None:
    sidecar = read_sidecar(csv(tmp_path, '\ufeffmood,id,year\r\n"a, ""b""\nc",x/ü.png,1\r\n\r\n,y.png,\r\n'))
    assert sidecar.types == {"mood": "text", "year": "integer"}
    assert sidecar.attributes == {"x/ü.png": {"mood": 'a, "b"\nc', "year": 1}, "y.png": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns are none, expected one called id"),
        ("name,year\na,1\n", "columns are 'name', 'year', expected one called id"),
        ("id,year,year\n", "the column 'year' stands twice"),
        ("id,width\n", "the column 'width' is recorded from the pictures; leave it out or rename it"),
        ("id,a=b\n", "'a=b' cannot be an attribute's name"),
        ("id,\na,1\n", "'' cannot be an attribute's name"),
        ("id,year:int\n", "column 'year:int' is of type 'int', expected text, integer, real, time, tags"),
        ("id,taken:text\n", "attribute 'taken' is of type text, but pocketlens records it as time"),
        ("id,year\na.png\n", "line 2: 1 values, expected 2, as in the first line"),
        ("id,year\na.png,1\na.png,2\n", "line 3: the id 'a.png' stands twice"),
        ("id,year\n,2\n", "line 2: the id '' is no text"),
        ("id,year:integer\na.png,1\nb.png,x\n", "line 3: attribute 'year' of 'b.png' is 'x', expected an integer"),
        ("id,score:real\na.png,1e999\n", "line 2: attribute 'score' of 'a.png' is inf, expected a finite number"),
        ("id,seen:time\na.png,soon\n", "line 2: attribute 'seen' of 'a.png' is 'soon', expected a time"),
        ('id,year\n"a.png,1\n', "table.csv is not CSV in UTF-8: "),
        ("id," + ",".join(f"a{n}" for n in range(252)) + "\n", "257 attributes, expected at most 256"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_sidecar(csv(tmp_path, text))


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nothing\.csv is not a file; expected a table with a column id"):
        read_sidecar(tmp_path / "nothing.csv")
    (tmp_path / "x.csv").write_bytes(b"id,a\n\xff,1\n")
    with pytest.raises(FormatError, match=r"x\.csv is not CSV in UTF-8: "):
        read_sidecar(tmp_path / "x.csv")


def test_parquet_brings_its_types(tmp_path: Path) -> None:
    day = datetime.datetime(2020, 5, 1, 12)
    table = pyarrow.table(
        {
            "id": ["a.png", "b.png"],
            "year": pyarrow.array([2020, None], pyarrow.int32()),
            "score": [0.5, float("nan")],
            "mood": ["calm", None],
            "seen": pyarrow.array([day, None], pyarrow.timestamp("ms")),
            "labels": [["sea", "beach"], []],
            "day:time": ["2020-05", None],
            "tag": ["x; y", None],
            "sharp": [True, None],
            "code": ["007", "008"],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    sidecar = read_sidecar(tmp_path / "t.parquet")
    assert sidecar.types == {
        "year": "integer", "score": "real", "mood": "text", "seen": "time", "labels": "tags", "day": "time",
        "tag": "tags", "sharp": "text", "code": "text",
    }  # fmt: skip
    assert sidecar.attributes == {
        "a.png": {
            "year": 2020, "score": 0.5, "mood": "calm", "seen": "2020-05-01T12:00:00", "labels": ["beach", "sea"],
            "day": "2020-05-01T00:00:00", "tag": ["x", "y"], "sharp": "true", "code": "007",
        },
        "b.png": {"code": "008"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1, 2]}, "row 1: the id 1 is no text"),
        (
            {"id": ["a"], "x": [{"y": 1}]},
            "attribute 'x' is {'y': 1}, expected text, a number, a date or a list of tags",
        ),
        ({"id": ["a"], "x": [[1, 2]]}, "row 1: attribute 'x' of 'a' has a tag that is 1, expected text"),
        ({"id": ["a"], "x": pyarrow.array([2**63], pyarrow.uint64())}, "row 1: attribute 'x' of 'a' is 92.* 64 bits"),
    ],
)
def test_parquet_that_does_not_fit_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    with pytest.raises(FormatError, match=f"t.parquet.*{message}"):
        read_sidecar(tmp_path / "t.parquet")


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"id,a\nx,1\n")
    with pytest.raises(FormatError, match=r"t\.parquet is not Parquet that can be read: "):
        read_sidecar(tmp_path / "t.parquet")


def test_without_pyarrow_csv_is_read_and_parquet_says_what_to_install(tmp_path: Path) -> None:
    csv(tmp_path, "id,a\nx.png,1\n")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    code = """
import sys
sys.modules["pyarrow"] = None
from pathlib import Path
from pocketlens_export.gallery.sidecar import read_sidecar
print(read_sidecar(Path(sys.argv[1], "table.csv")).attributes)
try:
    read_sidecar(Path(sys.argv[1], "t.parquet"))
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "{'x.png': {'a': 1}}"
    assert lines[1].startswith(MissingPart.__name__)
    assert lines[1].endswith(
        'needs pyarrow, which is not installed: pip install "pocketlens[parquet]"; CSV needs nothing'
    )
