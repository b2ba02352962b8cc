"""The processors that int8 weights are made for, and which of them this one is."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketlens.errors import PocketlensError


@dataclass(frozen=True, slots=True)
class Target:
    """What a processor's int8 products want.

    Attributes:
        name: as given on the command line.
        activation: type of quantized activations. x86-64 multiplies uint8 by int8, ARM int8 by int8 (onnxruntime's
            `quantize_static`, docs of 1.32).
        reduce_range: whether weights use 7 bits of 8. Without VNNI, x86-64 adds two products in 16 bits: they overflow.
        preset: optimum's name for it.
        timed_here: whether this machine can time it.
    """

    name: str
    activation: Literal["uint8", "int8"]
    reduce_range: bool
    preset: Literal["arm64", "avx2", "avx512_vnni"]
    timed_here: bool


NAMES = ("x86-64", "x86-64-vnni", "arm64")


def find_target(name: str) -> Target:
    """Return the target of that name: one of `NAMES`, or "this" for what this machine is.

    "x86-64" is safe on every such processor; "x86-64-vnni" is more accurate and needs VNNI (Intel since 2019, AMD since
    2022).

    Raises:
        PocketlensError: the name is unknown, or this machine is none of them.
    """
    here = _this_machine()
    if name == "this":
        if here is None:
            raise PocketlensError(f"--target this: this machine is a {platform.machine()}, expected {', '.join(NAMES)}")
        name = here
    runs = {"x86-64-vnni": ("x86-64", "x86-64-vnni"), "x86-64": ("x86-64",), "arm64": ("arm64",)}.get(here or "", ())
    if name == "arm64":
        return Target(name, "int8", reduce_range=False, preset="arm64", timed_here=name in runs)
    if name == "x86-64":
        return Target(name, "uint8", reduce_range=True, preset="avx2", timed_here=name in runs)
    if name == "x86-64-vnni":
        return Target(name, "uint8", reduce_range=False, preset="avx512_vnni", timed_here=name in runs)
    raise PocketlensError(f"--target {name}: expected this, {', '.join(NAMES)}")


def processor_name() -> str:
    """Return what the processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _this_machine() -> str | None:
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return "arm64"
    if machine not in ("x86_64", "amd64"):
        return None
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""  # unknown: the safe one
    return "x86-64-vnni" if "avx512_vnni" in flags or "avx_vnni" in flags else "x86-64"
