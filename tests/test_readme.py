"""The README's first screen is run as it stands: its commands, then its code, and the output is the one it shows."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout to the README's commands."""
    tmp_path = tmp_path_factory.mktemp("readme")
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    for line in blocks("console")[0].splitlines():
        program, *arguments = line.removeprefix("$ ").split(" ", 1)
        if program == "pocketlens":
            command = f"{sys.executable} -m pocketlens {arguments[0]}"
            subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True)
    return tmp_path


def test_the_code_prints_what_the_readme_shows(folder: Path) -> None:
    code, shown = blocks("python")[0], blocks("text")[0]
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=folder, capture_output=True, text=True
    ).stdout
    assert [line.split()[1] for line in printed.splitlines()] == [line.split()[1] for line in shown.splitlines()]
    cosines = [[float(line.split()[0]) for line in text.splitlines()] for text in (printed, shown)]
    assert cosines[0] == pytest.approx(cosines[1], abs=0.02)  # eight-bit kernels differ a little between processors


def test_composed_queries_run_as_they_stand(folder: Path) -> None:
    for line in blocks("console")[1].splitlines():
        command = f"{sys.executable} -m {line.removeprefix('$ ')}"
        done = subprocess.run(command, shell=True, check=True, cwd=folder, capture_output=True, text=True)
        assert "vehicles/" in done.stdout.splitlines()[1]
    code = f'import pocketlens\nwith pocketlens.open("my-bundle") as lens:\n{indent(blocks("python")[1], "    ")}'
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, capture_output=True)


def test_filters_run_as_they_stand(folder: Path) -> None:
    (console,), (code,) = blocks("console", section("Filters")), blocks("python", section("Filters"))
    found = []
    for line in console.splitlines():
        command = f"{sys.executable} -m {line.removeprefix('$ ')}"
        done = subprocess.run(command, shell=True, check=True, cwd=folder, capture_output=True, text=True)
        found.append({row.split()[-1] for row in done.stdout.splitlines()[1:]})
    with (ROOT / "demo" / "attributes.csv").open() as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    assert found[1] == {id for id, row in table.items() if "road" in row["tag"] and row["wheels"] == "4"} != set()
    assert found[2] == {id for id, row in table.items() if row["colour"] == "red"} != set()
    assert found[3] and all(id.startswith("toys/") for id in found[3])
    code = f"import pocketlens\n{code}"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, capture_output=True, text=True)
    printed = {line.split()[0] for line in done.stdout.splitlines()[1:]}
    few_wheels = {id for id, row in table.items() if row["wheels"] != "4" and re.search("water|road", row["tag"])}
    assert printed and printed <= few_wheels


def test_every_command_is_in_the_readme_and_has_help() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pocketlens", "--help"], check=True, capture_output=True, text=True
    ).stdout
    commands = re.findall(r"^  (\w+)  +\S", listed.partition("Commands:")[2], flags=re.MULTILINE)
    assert len(commands) >= 7
    assert [name for name in commands if f"`pocketlens {name} " not in README] == []


def test_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
