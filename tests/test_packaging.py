"""The wheel, as hatchling builds it: what is in it, what is not, and how large it is."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {
    "pocketlens": ROOT / "runtime" / "pocketlens",
    "pocketlens_export": ROOT / "export" / "pocketlens_export",
    "pocketlens_quantize": ROOT / "quantize" / "pocketlens_quantize",
    "pocketlens_bench": ROOT / "benchmarks" / "pocketlens_bench",
}
DIST_INFO = f"pocketlens-{PROJECT['project']['version']}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tracked(folder: Path) -> set[str]:
    """Return the files of a folder that a checkout has, without what Python leaves there."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_the_wheel_is_for_every_platform(wheel: Path) -> None:
    assert wheel.name == f"pocketlens-{PROJECT['project']['version']}-py3-none-any.whl"


def test_the_wheel_holds_the_four_packages_whole_and_nothing_else(names: set[str]) -> None:
    expected = {f"{package}/{name}" for package, folder in PACKAGES.items() for name in tracked(folder)}
    assert {name for name in names if not name.startswith(("pocketlens/models/", DIST_INFO))} == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_wheel_holds_the_models_that_ship(names: set[str]) -> None:
    shipped = {name.removeprefix("pocketlens/models/") for name in names if name.startswith("pocketlens/models/")}
    models = ("lens-base", "lens-tiny")
    files = {f"{model}/{name}" for model in models for name in tracked(ROOT / "models" / model / "model")}
    assert shipped == {*(f"{model}/README.md" for model in models), *files}  # the cards travel with them
    assert {f"lens-base/{name}" for name in ("model.json", "text.onnx", "image.onnx", "tokenizer.json")} <= shipped
    assert {name for name in files if name.startswith("lens-tiny/") and name.endswith(".onnx")} == {
        "lens-tiny/image.onnx"
    }


def test_the_wheel_is_at_most_60_mb(wheel: Path) -> None:
    assert wheel.stat().st_size <= 60_000_000


def test_the_models_that_ship_are_at_most_32_and_4_mb(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist() if info.filename.endswith(".onnx")}
    assert sizes.pop("pocketlens/models/lens-tiny/image.onnx") <= 4_000_000
    networks = {name: size for name, size in sizes.items() if "/inversion/" in name}
    towers = {name: size for name, size in sizes.items() if name not in networks}
    assert len(towers) == 2
    assert sum(towers.values()) <= 32_000_000
    assert {Path(name).stem for name in networks} == {"lincir", "pic2word", "searle"}
    assert max(networks.values()) <= 4_000_000


def test_the_commands_are_registered_and_lead_somewhere(wheel: Path, names: set[str]) -> None:
    entry_points = ConfigParser(delimiters=("=",))
    entry_points.optionxform = str  # type: ignore[assignment,method-assign]
    with zipfile.ZipFile(wheel) as archive:
        entry_points.read_string(archive.read(f"{DIST_INFO}/entry_points.txt").decode())
    assert dict(entry_points["console_scripts"]) == {"pocketlens": "pocketlens.cli:main"}
    commands = dict(entry_points["pocketlens.commands"])
    assert {"export", "index", "pack"} <= set(commands)
    for target in commands.values():
        module = target.partition(":")[0].replace(".", "/")
        assert f"{module}.py" in names or f"{module}/__init__.py" in names


def test_the_metadata_needs_no_torch_unless_asked_and_carries_the_licence(wheel: Path, names: set[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{DIST_INFO}/METADATA").decode()
    required = re.findall(r"^Requires-Dist: ([A-Za-z0-9_-]+)(?!.*extra ==).*$", metadata, flags=re.MULTILINE)
    assert sorted(required) == ["click", "ftfy", "numkong", "numpy", "onnxruntime", "pillow", "tokenizers", "usearch"]
    assert re.search(r"^Requires-Dist: torch>=.*extra == 'export'$", metadata, flags=re.MULTILINE)
    assert "License-Expression: Apache-2.0" in metadata
    assert f"{DIST_INFO}/licenses/LICENSE" in names


def test_no_file_of_the_wheel_names_a_folder_of_somebodys_machine(wheel: Path) -> None:
    personal = [str(ROOT).encode(), str(Path.home()).encode() + b"/"]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert [place for place in personal if place in content] == [], name


def test_changelog_and_project_agree_on_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)\]?", changelog, flags=re.MULTILINE)
    assert released[0] == PROJECT["project"]["version"]


def test_the_versions_held_satisfy_the_ranges_asked_for() -> None:
    held = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    held = {_normal(name): version for name, version in held.items()}
    project = PROJECT["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    for requirement in (requirement for group in groups for requirement in group):
        name, ranges = re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        version = held[_normal(name)]
        for sign, bound in re.findall(r"(>=|<)([\d.]+)", ranges):
            assert (_numbers(version) >= _numbers(bound)) == (sign == ">="), f"{name} {version} against {requirement}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
