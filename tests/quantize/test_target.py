from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pocketlens.errors import PocketlensError
from pocketlens_quantize import target
from pocketlens_quantize.target import NAMES, find_target, processor_name


@pytest.mark.parametrize(
    ("name", "activation", "reduce_range", "preset"),
    [
        ("x86-64", "uint8", True, "avx2"),
        ("x86-64-vnni", "uint8", False, "avx512_vnni"),
        ("arm64", "int8", False, "arm64"),
    ],
)
def test_each_target_wants_what_its_products_multiply(
    name: str, activation: str, reduce_range: bool, preset: str
) -> None:
    found = find_target(name)
    assert (found.name, found.activation, found.reduce_range, found.preset) == (name, activation, reduce_range, preset)


def processor(monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, folder: Path) -> None:
    """Let this machine call itself something else."""
    file = folder / "cpuinfo"
    file.write_text(f"model name\t: Some Processor 9000\nflags\t\t: fpu {flags}\n", encoding="utf-8")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(target, "Path", lambda name: file if name == "/proc/cpuinfo" else Path(name))


@pytest.mark.parametrize(
    ("machine", "flags", "this", "timed"),
    [
        ("x86_64", "avx2 avx512_vnni", "x86-64-vnni", {"x86-64", "x86-64-vnni"}),
        ("AMD64", "avx2 avx_vnni", "x86-64-vnni", {"x86-64", "x86-64-vnni"}),
        ("x86_64", "avx2", "x86-64", {"x86-64"}),
        ("aarch64", "", "arm64", {"arm64"}),
        ("arm64", "", "arm64", {"arm64"}),
    ],
)
def test_a_machine_times_only_what_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, flags: str, this: str, timed: set[str]
) -> None:
    processor(monkeypatch, machine, flags, tmp_path)
    assert find_target("this") == find_target(this)
    assert {name for name in NAMES if find_target(name).timed_here} == timed
    assert processor_name() == "Some Processor 9000"


def test_another_machine_is_not_this_but_can_make_for_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processor(monkeypatch, "riscv64", "", tmp_path)
    with pytest.raises(PocketlensError, match="this machine is a riscv64, expected x86-64, x86-64-vnni, arm64"):
        find_target("this")
    assert not any(find_target(name).timed_here for name in NAMES)


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(PocketlensError, match="--target sparc: expected this, x86-64, x86-64-vnni, arm64"):
        find_target("sparc")
