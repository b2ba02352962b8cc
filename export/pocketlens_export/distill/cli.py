"""The command `pocketlens fit distill`. torch is imported when it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from pocketlens.cli import printable
from pocketlens.settings import read_settings
from pocketlens_export.fit.console import Bars, cache_folder, open_model

if TYPE_CHECKING:
    from pocketlens.model import ModelManifest
    from pocketlens_export.architecture import Architecture

_PATH = click.Path(path_type=Path)
_LOSSES = ("fitnet", "raml", "csd", "rop", "d3")
_HELP = """Train a light image tower to answer in the space of a heavy model, so that its queries find what the
heavy one has indexed. Writes a query model, an image tower alone: texts are asked through the heavy text tower.

LIGHT is an open_clip config (JSON with model_cfg and preprocess_cfg) or the name of a registered architecture. Its
image tower must be timm's, and embed_dim the heavy space's; a text part is left aside. The heavy tower encodes each
view of each picture once, and the cache keeps views and vectors for the next training. A tenth of the pictures gives
the held-out loss, a tenth the figures. A stopped training goes on where it was when the same command is given again.

\b
Example:
  pocketlens fit distill --light tiny.json --heavy lens-base --pictures photos --loss raml --out tiny-in-lens-base
  pocketlens fit distill ... --epochs 40 --views 6 --set anchor=2 --set rate=5e-4
"""


@click.command(help=_HELP, short_help="Train a light image tower in a heavy model's space.")
@click.option("--light", required=True, help="An open_clip config file, or the name of an architecture.")
@click.option("--start", type=_PATH, metavar="FILE", help="A checkpoint to begin with; by default seeded weights.")
@click.option("--heavy", required=True, help="A model folder or a shipped name: the galleries' model.")
@click.option("--pictures", required=True, multiple=True, type=_PATH, help="A folder of pictures. Repeatable.")
@click.option("--loss", required=True, type=click.Choice(_LOSSES), help="What the light tower is held to.")
@click.option("--out", required=True, type=_PATH, help="The model folder to write.")
@click.option("--same", type=_PATH, metavar="FILE",
              help="A CSV table, file and thing: pictures of the same thing learn to find each other.")  # fmt: skip
@click.option("--views", default=4, show_default=True, type=click.IntRange(1, 64),
              help="Views of a picture that are stored, itself included.")  # fmt: skip
@click.option("--flip", is_flag=True, help="Mirror half of the views; not for pictures with writing or direction.")
@click.option("--steps", type=click.IntRange(1, 10_000_000), help="Training steps; by default the recipe's, 5,000.")
@click.option("--epochs", type=click.IntRange(1, 100_000), help="Instead: how often every picture is seen.")
@click.option("--batch", type=click.IntRange(2, 65_536), help="Pictures of a step; by default the recipe's, 128.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Of everything random.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the loss. Repeatable.")
@click.option("--name", help="Name of the query model; by default <light>-in-<heavy>.")
@click.option("--licence", metavar="TEXT", help="Licence of the query model, for model.json.")
@click.option("--checkpoint", type=_PATH, metavar="FILE", help="Keep the trained weights (safetensors) for --start.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; by default torch's own choice.")
@click.option("--fresh", is_flag=True, help="Start again instead of going on from an earlier checkpoint.")
@click.option("--replace", is_flag=True, help="Replace the folder --out when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def distill(
    light: str,
    start: Path | None,
    heavy: str,
    pictures: Sequence[Path],
    loss: str,
    out: Path,
    same: Path | None,
    views: int,
    flip: bool,
    steps: int | None,
    epochs: int | None,
    batch: int | None,
    seed: int,
    settings: Sequence[str],
    name: str | None,
    licence: str | None,
    checkpoint: Path | None,
    threads: int | None,
    fresh: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Run the command."""
    if steps is not None and epochs is not None:
        raise click.UsageError("give --steps or --epochs, not both")
    from pocketlens_export.distill.folder import Request, distill_model
    from pocketlens_export.distill.recipes import DISTILLATIONS
    from pocketlens_export.fit.recipe import check_values

    chosen = DISTILLATIONS[loss]
    request = Request(
        light=_architecture(light), start=start, heavy=open_model("--heavy", heavy), pictures=tuple(pictures),
        same=same, chosen=chosen, values=check_values(chosen.recipe, read_settings(settings)), views=views, flip=flip,
        steps=steps, epochs=epochs, batch=batch or chosen.recipe.batch, seed=seed, name=name, licence=licence,
        checkpoint=checkpoint, threads=threads, cache=cache_folder(), fresh=fresh,
    )  # fmt: skip

    def say(line: str) -> None:
        click.echo(printable(line), err=True)

    with Bars() as bars:
        manifest = distill_model(request, out, replace=replace, progress=bars.stage, report=bars.training, say=say)
    _print(manifest, heavy, out, as_json)


def _architecture(light: str) -> Architecture:
    from pocketlens_export.architecture import local_architecture, registered_architecture

    if light.endswith(".json") or Path(light).is_file():
        return local_architecture(Path(light), needs_text=False)
    return registered_architecture(light, None)


def _print(manifest: ModelManifest, heavy: str, out: Path, as_json: bool) -> None:
    from pocketlens_export.distill.report import PAGE, quality_table

    assert manifest.image is not None
    size = manifest.files[manifest.image.file].size_bytes
    if as_json:
        shown = {"name": manifest.name, "space": manifest.space.id, "quality": manifest.quality, "size_bytes": size}
        click.echo(json.dumps(shown, indent=2))
        return
    header, rows = quality_table(manifest.quality)
    for row in (header, *rows):
        click.echo("  " + "".join(f"{cell:12}" for cell in row).rstrip())
    click.echo(f"  mean cosine {manifest.quality['asymmetric_mean_cosine']:.4f}")
    click.echo(f"{out}: {manifest.name}, {size / 1e6:.2f} MB; how it was trained is in {PAGE}")
    text = f" --text {quote(heavy)}"
    click.echo(f"next: pocketlens pack --gallery BUNDLE/gallery --image {quote(str(out))}{text} --out NEW-BUNDLE")
