"""The demo runs, its queries name pictures that exist, and every picture has a licence that allows anything."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "demo" / "pictures"
SUFFIXES = {".jpg", ".png", ".webp"}


def files() -> set[str]:
    return {path.relative_to(PICTURES).as_posix() for path in PICTURES.rglob("*") if path.suffix in SUFFIXES}


def test_every_picture_is_listed_with_a_free_licence_and_the_folder_is_small() -> None:
    with (PICTURES / "LICENCES.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == files()
    assert len(rows) >= 300
    assert {row["licence"] for row in rows} <= {"Public domain", "CC0-1.0"}
    assert all(row["source_package"] and row["evidence"] for row in rows)
    assert sum(path.stat().st_size for path in PICTURES.rglob("*") if path.is_file()) <= 12_000_000


def test_queries_name_pictures_that_exist() -> None:
    queries = json.loads((ROOT / "demo" / "queries.json").read_text(encoding="utf-8"))
    named = {path for query in queries for path in [*query["expected"], *filter(None, [query.get("image")])]}
    assert named <= files()


def test_the_demo_prints_a_table_and_writes_a_sheet_whose_pictures_exist(tmp_path: Path) -> None:
    for name in ("run.py", "queries.json", "pictures"):
        (tmp_path / name).symlink_to(ROOT / "demo" / name)
    command = [sys.executable, str(tmp_path / "run.py")]
    printed = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    found = re.search(r"among the first 6 for (\d+) of (\d+) queries; through .* image tower for (\d+)", printed)
    assert found is not None
    light, of, heavy = map(int, found.groups())
    assert light >= 0.5 * of
    assert heavy >= 0.7 * of
    assert "encoded by lens-base; pictures of queries are by lens-tiny" in printed
    assert "418 pictures indexed" in printed
    sheet = (tmp_path / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r'src="([^"]+)"', sheet)
    assert len(shown) > 100
    assert [source for source in shown if not (tmp_path / source).is_file()] == []
