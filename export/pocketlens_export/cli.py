"""The command `pocketlens export`. torch and its kin are imported when it runs, not when help is asked for."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketlens.errors import PocketlensError

if TYPE_CHECKING:
    from pocketlens.model import ModelManifest
    from pocketlens_export.architecture import Architecture
    from pocketlens_export.clip import Weights

_RANDOM = re.compile(r"random:(\d{1,9})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_UNKNOWN_LICENCE = "unknown; see the source of the weights"
_APPLE_LICENCE = "Apple ML Research Model Terms of Use (research only)"
_RANDOM_LICENCE = "none (random weights)"
_FILE = click.Path(path_type=Path)


@click.command()
@click.option("--model", metavar="NAME", help="An open_clip architecture, for example MobileCLIP2-S0.")
@click.option(
    "--config", type=_FILE, metavar="FILE", help="Instead: an open_clip config with model_cfg and preprocess_cfg."
)
@click.option("--pretrained", required=True, metavar="TAG|PATH|random:SEED", help="The weights.")
@click.option("--out", required=True, type=_FILE, help="The model folder to make.")
@click.option("--tokenizer", type=_FILE, metavar="FILE", help="A tokenizer.json to use instead of the model's own.")
@click.option("--name", help="Name of the model and of its embedding space; by default the architecture's.")
@click.option("--licence", metavar="TEXT", help="Licence of the weights, for model.json.")
@click.option("--pictures", type=_FILE, metavar="DIR", help="Measure parity on these pictures too.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def export(
    model: str | None,
    config: Path | None,
    pretrained: str,
    out: Path,
    tokenizer: Path | None,
    name: str | None,
    licence: str | None,
    pictures: Path | None,
    as_json: bool,
) -> None:
    """Turn an open_clip model into a folder of ONNX towers, proven against torch, or write nothing.

    random:SEED builds the real architecture with seeded weights, for tests and latency.
    """
    if (model is None) == (config is None):
        raise click.UsageError("give either --model NAME or --config FILE")
    if name is not None and not _NAME.fullmatch(name):
        raise click.BadParameter(f"{name!r} is not made of letters, digits, '.', '_' and '-'", param_hint="--name")
    if pretrained.startswith("random:") and not _RANDOM.fullmatch(pretrained):
        raise click.BadParameter(f"{pretrained!r}, expected random:SEED with a number", param_hint="--pretrained")
    from pocketlens_export.folder import Request, export_model

    architecture, weights = _resolve(model, config, pretrained)
    request = Request(
        architecture=architecture,
        weights=weights,
        name=name or architecture.name,
        licence=licence or _licence(architecture, weights),
        tokenizer=tokenizer,
        pictures=pictures,
    )
    manifest = export_model(request, out, lambda line: click.echo(line, err=True))
    _print(manifest, out, as_json)


def _resolve(model: str | None, config: Path | None, pretrained: str) -> tuple[Architecture, Weights]:
    """Return what is to be built and where its weights come from."""
    from pocketlens_export.architecture import local_architecture, registered_architecture, registered_tag
    from pocketlens_export.clip import Weights

    seed = _RANDOM.fullmatch(pretrained)
    tag = registered_tag(model, pretrained) if model is not None and seed is None else None
    if config is not None:
        architecture = local_architecture(config)
    else:
        assert model is not None
        architecture = registered_architecture(model, tag)
    if seed is not None:
        return architecture, Weights(seed=int(seed[1]))
    if tag is not None:
        return architecture, Weights(tag=tag)
    if not Path(pretrained).is_file():
        known = ", ".join(architecture.tags)
        kinds = f"a tag of {architecture.name} ({known}), a file" if known else "a file"
        raise PocketlensError(f"--pretrained {pretrained}: expected {kinds} or random:SEED")
    return architecture, Weights(path=Path(pretrained))


def _licence(architecture: Architecture, weights: Weights) -> str:
    if weights.seed is not None:
        return _RANDOM_LICENCE
    if weights.tag is not None and architecture.name.startswith("MobileCLIP"):
        return _APPLE_LICENCE
    return _UNKNOWN_LICENCE


def _print(manifest: ModelManifest, out: Path, as_json: bool) -> None:
    if as_json:
        shown = {key: getattr(manifest, key) for key in ("name", "licence", "quality", "made_with")}
        files = {key: record.size_bytes for key, record in manifest.files.items()}
        shown |= {"space": dataclasses.asdict(manifest.space), "size_bytes": files}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    click.echo(f"{out}: {manifest.name}, {manifest.space.dim} dimensions, licence: {manifest.licence}")
    for key, record in manifest.files.items():
        click.echo(f"  {key:16} {record.size_bytes / 1e6:8.1f} MB")
    for key, value in manifest.quality.items():
        click.echo(f"  {key:28} {value:.7g}")
