"""The commands `pocketlens fit inversion` and `pocketlens fit concepts`. torch is imported when the first one runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketlens.settings import read_settings
from pocketlens_export.align.cli import align
from pocketlens_export.distill.cli import distill
from pocketlens_export.fit.console import Bars, cache_folder, open_model, print_inversion, print_next
from pocketlens_export.tokens.cli import token_learner

if TYPE_CHECKING:
    from pocketlens.model import Model

_PATH = click.Path(path_type=Path)
_RECIPES = ("lincir", "pic2word", "searle")
_INVERSION = """Train an inversion network through the frozen text tower of MODEL, and write it with what it is worth.

lincir learns from texts, pic2word from pictures, searle from both. A twentieth of the data is held out to measure on.
A stopped training goes on where it was when the same command is given again.

Gradients need a float32 tower. `pocketlens export` makes one from a checkpoint; lens-base's own does not ship, `make
lens-base` in a checkout leaves it in build/lens-base/float. --into puts the network beside the quantized towers.

\b
Example:
  pocketlens fit inversion --model lens-float --recipe lincir --data captions.txt --out lens-lincir --into lens-base
  pocketlens fit inversion ... --set noise=0.5 --set rate=1e-4
"""


@click.group(short_help="Fit what composed queries need to a frozen model.")
def fit() -> None:
    """Fit inversion networks and vocabularies to a frozen model, for queries of a picture and words."""


fit.add_command(align)
fit.add_command(distill)
fit.add_command(token_learner)


@fit.command(help=_INVERSION, short_help="Train a network that turns a picture into a word.")
@click.option("--model", required=True, help="A model folder with a float text tower; those that ship have none.")
@click.option("--recipe", required=True, type=click.Choice(_RECIPES), help="How to train.")
@click.option("--data", required=True, multiple=True, type=_PATH,
              help="Texts (.txt, .tsv, .gz), a folder of pictures, a gallery or bundle. Repeatable.")  # fmt: skip
@click.option("--out", required=True, type=_PATH, help="The model folder to write: a copy with the network.")
@click.option("--into", help="Another model of the same space to copy instead, such as the quantized one.")
@click.option("--steps", type=click.IntRange(1, 10_000_000), help="Training steps; by default the recipe's.")
@click.option("--batch", type=click.IntRange(2, 65_536), help="Rows of a step; by default the recipe's.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Of everything random.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; by default torch's own choice.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the recipe. Repeatable.")
@click.option("--fresh", is_flag=True, help="Start again instead of going on from an earlier checkpoint.")
@click.option("--replace", is_flag=True, help="Replace the folder --out when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def inversion(
    model: str,
    recipe: str,
    data: Sequence[Path],
    out: Path,
    into: str | None,
    steps: int | None,
    batch: int | None,
    seed: int,
    threads: int | None,
    settings: Sequence[str],
    fresh: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Run the command."""
    from pocketlens_export.fit.folder import Request, fit_inversion
    from pocketlens_export.fit.recipe import check_values
    from pocketlens_export.fit.recipes import RECIPES

    chosen = RECIPES[recipe]
    values = check_values(chosen, read_settings(settings))
    source, target = _open_models(model, into)
    steps, batch = steps or chosen.steps, batch or chosen.batch
    request = Request(
        source, target, chosen, values, tuple(data), steps, batch, seed, threads, cache_folder(), fresh
    )  # fmt: skip
    with Bars() as progress:
        manifest = fit_inversion(request, out, replace=replace, progress=progress.stage, report=progress.training)
    print_inversion(manifest, recipe, out, as_json=as_json)


@fit.command(short_help="Give a model a vocabulary of names.")
@click.option("--model", required=True, help="A model folder with a text tower, or a shipped model's name.")
@click.option("--names", required=True, type=_PATH, help="Names of things, one a line (.txt, .tsv, .gz).")
@click.option("--contrast", type=_PATH, help="Ways to show things, one a line; by default a built-in list.")
@click.option("--source", help="Where the names come from, for the manifest; by default the file's name.")
@click.option("--out", required=True, type=_PATH, help="The model folder to write: a copy with the vocabulary.")
@click.option("--into", help="Another model of the same space to copy instead, such as the quantized one.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; by default the cores, at most 4.")
@click.option("--replace", is_flag=True, help="Replace the folder --out when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def concepts(
    model: str,
    names: Path,
    contrast: Path | None,
    source: str | None,
    out: Path,
    into: str | None,
    threads: int | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Encode names with MODEL's text tower, for methods that take a picture for one of them.

    Writes concepts.npz: the names, their vectors in 8 bits, and the directions in which names differ more than the ways
    to show them do.
    """
    from pocketlens_export.fit.concepts import CONCEPTS, CONTRAST, Request, fit_concepts

    source_model, target = _open_models(model, into)
    request = Request(source_model, target, names, contrast or CONTRAST, source or names.name, threads)
    with Bars() as progress:
        manifest = fit_concepts(request, out, replace=replace, progress=progress.stage)
    made, size = manifest.concepts, manifest.files[CONCEPTS].size_bytes
    assert made is not None
    if as_json:
        quality = {key: value for key, value in manifest.quality.items() if key.startswith("concepts_")}
        click.echo(json.dumps({"count": made.count, "source": made.source, "quality": quality, "size_bytes": size}))
        return
    click.echo(f"{out}: {made.file}, {made.count} names, {size / 1e6:.2f} MB")
    print_next(manifest, out)


def _open_models(model: str, into: str | None) -> tuple[Model, Model]:
    """Return the models to fit to and to copy, which are one without `into`."""
    source = open_model("--model", model)
    return source, open_model("--into", into) if into else source
