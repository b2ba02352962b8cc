"""The command `pocketlens quantize`. onnx and matplotlib are imported when it runs, not when help is asked for."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketlens.cli import printable

if TYPE_CHECKING:
    from pocketlens.model import Model, ModelManifest
    from pocketlens_quantize.target import Target

_PATH = click.Path(path_type=Path)
_TARGETS = ("this", "x86-64", "x86-64-vnni", "arm64")


@click.command(short_help="Make a model folder smaller and faster, with proof.")
@click.argument("model")
@click.option("--out", type=_PATH, help="The smaller model folder to make.")
@click.option("--target", type=click.Choice(_TARGETS), default="this", show_default=True,
              help="What will run it; x86-64 is safe on all of them, x86-64-vnni is more accurate.")  # fmt: skip
@click.option("--calibration", type=_PATH, metavar="PICTURES", help="Pictures like those it will see, 128 or more.")
@click.option("--measuring", type=_PATH, metavar="PICTURES",
              help="Other pictures for the proof; by default half of --calibration is kept aside.")  # fmt: skip
@click.option("--texts", type=_PATH, metavar="FILE",
              help="Queries, one a line; after a tab, the picture it describes. By default made-up ones.")  # fmt: skip
@click.option("--gate", metavar="NAME=VALUE,…",
              help="What must be reached: cosine, agreement (0 to 1), recall (points that may be lost).")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0.01, 24 * 60), default=10.0, show_default=True,
              help="Longest search; a later run goes on where it ended.")  # fmt: skip
@click.option("--ort", is_flag=True, help="Write .ort files, and the operators that a minimal onnxruntime needs.")
@click.option("--explain", is_flag=True, help="Make nothing: list the towers' nodes by share of time and by error.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def quantize(
    model: str,
    out: Path | None,
    target: str,
    calibration: Path | None,
    measuring: Path | None,
    texts: Path | None,
    gate: str | None,
    minutes: float,
    ort: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Search each tower's fastest precision that stays near float32, and write it with what was measured.

    MODEL is a float32 model folder. Nothing is written when the gate is missed. Defaults of the gate: mean cosine 0.995
    (text) and 0.99 (image), agreement 0.95, recall 1.
    """
    if explain and (gate is not None or ort):
        raise click.UsageError("--gate and --ort are of no use with --explain")
    if math.isnan(minutes):
        raise click.BadParameter("nan, expected a number of minutes", param_hint="--minutes")
    if (out is None) != explain:
        raise click.UsageError("give either --out FOLDER or --explain")
    from pocketlens.model import Model, find_model
    from pocketlens_quantize.target import find_target

    opened, chosen = Model.open(find_model(model)), find_target(target)
    if out is None:
        _explain(opened, chosen, calibration=calibration, measuring=measuring, texts=texts, as_json=as_json)
        return
    from pocketlens_quantize.folder import Request, quantize_model
    from pocketlens_quantize.gate import parse_gates

    gates = parse_gates(gate)
    request = Request(opened, chosen, calibration, measuring, texts, gates, minutes, ort, memory=_memory())
    manifest = quantize_model(request, out, lambda line: click.echo(printable(line), err=True))
    _print(manifest, out, as_json)


def _memory() -> Path:
    """Return the folder of trials: POCKETLENS_CACHE or the user's cache, where it takes a few kilobytes a model."""
    cache = os.environ.get("POCKETLENS_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "pocketlens") / "quantize"


def _print(manifest: ModelManifest, out: Path, as_json: bool) -> None:
    import dataclasses

    from pocketlens_quantize.report import PAGE, proof_rows

    made = manifest.quantization
    assert made is not None
    if as_json:
        files = {key: record.size_bytes for key, record in manifest.files.items()}
        shown = {"name": manifest.name, "quantization": dataclasses.asdict(made), "quality": manifest.quality}
        click.echo(json.dumps(shown | {"size_bytes": files}, indent=2))
        return
    towers = [name for name in ("text", "image") if f"{name}_bytes" in manifest.quality]
    rows = [("", *towers), *proof_rows(manifest.quality, towers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if made.timed_on is None:
        click.echo(f"latency is unmeasured: this machine cannot time {made.target}")
    click.echo(f"{out}: for {made.target}; every plan that was tried is in {out / PAGE}")


def _explain(
    model: Model, target: Target, *, calibration: Path | None, measuring: Path | None, texts: Path | None, as_json: bool
) -> None:
    from pocketlens_quantize.explain import explain_model, table

    rows = explain_model(
        model, target, calibration=calibration, measuring=measuring, texts=texts, memory=_memory(),
        progress=lambda line: click.echo(printable(line), err=True),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(table(rows))
