"""The command `pocketlens fit token-learner`. torch is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pocketlens.settings import read_settings
from pocketlens_export.fit.console import Bars, cache_folder, open_model, print_inversion

_PATH = click.Path(path_type=Path)
_HELP = """Train a token learner: from LIGHT's feature map of a picture to pseudo-tokens of HEAVY's text tower.

It serves the method isa, with which a picture and words are composed by a light image tower for a gallery that a heavy
one encoded. LIGHT must be in HEAVY's space already (pocketlens fit align, pocketlens fit distill), and its image tower
must give features. Both towers stay as they are. A tenth of the pictures is held out to measure on, and a tenth to
watch the loss by. A stopped training goes on where it was when the same command is given again.

Gradients need HEAVY's float32 text tower; --into puts the network beside a quantized one.

\b
Example:
  pocketlens fit token-learner --light tiny-in-base --heavy base-float --pictures photos --tokens 4 --out query-model
  pocketlens fit token-learner ... --set temperature=0.1 --set views=2
"""


@click.command("token-learner", help=_HELP, short_help="Train a network that turns a feature map into words.")
@click.option("--light", required=True, help="A model folder in HEAVY's space whose image tower gives features.")
@click.option("--heavy", required=True, help="A model folder with an image tower and a float text tower.")
@click.option("--pictures", required=True, multiple=True, type=_PATH, help="A folder of pictures. Repeatable.")
@click.option("--tokens", default=4, show_default=True, type=click.IntRange(1, 16), help="Pseudo-tokens of a picture.")
@click.option("--out", required=True, type=_PATH,
              help="The model folder to write: LIGHT's image tower, HEAVY's text tower and the network.")  # fmt: skip
@click.option("--into", help="A model of the same space to copy instead, such as the quantized one.")
@click.option("--steps", type=click.IntRange(1, 10_000_000), help="Training steps; by default 2,000.")
@click.option("--batch", type=click.IntRange(2, 65_536), help="Pictures of a step; by default 128.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Of everything random.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; by default torch's own choice.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
              help="A parameter of the training. Repeatable.")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Start again instead of going on from an earlier checkpoint.")
@click.option("--replace", is_flag=True, help="Replace the folder --out when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def token_learner(
    light: str,
    heavy: str,
    pictures: Sequence[Path],
    tokens: int,
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
    from pocketlens_export.fit.recipe import check_values
    from pocketlens_export.tokens.folder import Request, fit_tokens
    from pocketlens_export.tokens.learning import ISA

    request = Request(
        light=open_model("--light", light),
        heavy=open_model("--heavy", heavy),
        into=open_model("--into", into) if into else None,
        pictures=tuple(pictures),
        tokens=tokens,
        values=check_values(ISA, read_settings(settings)),
        steps=steps or ISA.steps,
        batch=batch or ISA.batch,
        seed=seed,
        threads=threads,
        cache=cache_folder(),
        fresh=fresh,
    )
    with Bars() as progress:
        manifest = fit_tokens(request, out, replace=replace, progress=progress.stage, report=progress.training)
    print_inversion(manifest, ISA.name, out, as_json=as_json)
