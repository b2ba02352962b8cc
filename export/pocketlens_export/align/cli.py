"""The command `pocketlens fit align`. numpy, onnx and torch are imported when it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from pocketlens.cli import printable
from pocketlens_export.fit.console import Bars, cache_folder, open_model

if TYPE_CHECKING:
    from pocketlens.model import ModelManifest
    from pocketlens_export.align.parts import Kind
    from pocketlens_export.align.report import Aligned

_PATH = click.Path(path_type=Path)
_HELP = """Map what a light model makes of pictures into the space of a heavy one, so that its queries find what the
heavy one has indexed. Writes a query model: the light towers with the map in their graphs.

Both models see the same pictures, once: their vectors are kept in the cache. A tenth of the pictures chooses the map,
and a tenth measures it. ridge is a linear map, procrustes a rotation, residual-mlp a small network beside a linear
map. Without --texts the query model has an image tower alone; texts are asked through the heavy model's text tower.

\b
Example:
  pocketlens fit align --light mobile --heavy lens-base --pictures photos --map ridge --out mobile-in-lens-base
  pocketlens pack --gallery BUNDLE/gallery --image mobile-in-lens-base --text lens-base --out NEW-BUNDLE
"""


@click.command(help=_HELP, short_help="Map a light model into a heavy model's space.")
@click.option("--light", required=True, help="A model folder of any precision, or a shipped name: it gets the map.")
@click.option("--heavy", required=True, help="A model folder or a shipped name: the galleries' model.")
@click.option("--pictures", required=True, multiple=True, type=_PATH, help="A folder of pictures. Repeatable.")
@click.option("--texts", type=_PATH, help="Texts, one a line (.txt, .tsv, .gz): map the light text tower too.")
@click.option("--map", "kind", required=True, type=click.Choice(("ridge", "procrustes", "residual-mlp")),
              help="What kind of map.")  # fmt: skip
@click.option("--out", required=True, type=_PATH, help="The model folder to write.")
@click.option("--name", help="Name of the query model; by default <light>-in-<heavy>.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Of everything random.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; by default the cores, at most 4.")
@click.option("--replace", is_flag=True, help="Replace the folder --out when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def align(
    light: str,
    heavy: str,
    pictures: Sequence[Path],
    texts: Path | None,
    kind: Kind,
    out: Path,
    name: str | None,
    seed: int,
    threads: int | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Run the command."""
    from pocketlens_export.align.folder import Request, align_models

    models = open_model("--light", light), open_model("--heavy", heavy)
    request = Request(*models, tuple(pictures), texts, kind, name, seed, threads, cache_folder())

    def warn(message: str) -> None:
        click.echo(printable(f"warning: {message}"), err=True)

    with Bars() as bars:
        manifest, aligned = align_models(request, out, replace=replace, progress=bars.stage, warn=warn)
    texts_by = str(out) if manifest.text else heavy if models[1].manifest.can_read else None
    _print(manifest, aligned, out, texts_by, as_json)


def _print(manifest: ModelManifest, aligned: Aligned, out: Path, texts_by: str | None, as_json: bool) -> None:
    from pocketlens_export.align.report import PAGE, quality_table

    size = sum(record.size_bytes for name, record in manifest.files.items() if name.endswith(".onnx"))
    if as_json:
        chosen = {part.what: part.fitted.chosen for part in aligned.parts}
        counts = {part.what: dict(part.counts) for part in aligned.parts}
        shown = {"name": manifest.name, "space": manifest.space.id, "map": aligned.kind, "chosen": chosen,
                 "counts": counts, "quality": manifest.quality, "size_bytes": size}  # fmt: skip
        click.echo(json.dumps(shown, indent=2))
        return
    for part in aligned.parts:
        click.echo(f"{part.what}: " + ", ".join(f"{count} {name}" for name, count in part.counts.items()))
        for row in quality_table(part):
            click.echo("  " + "".join(f"{cell:20}" for cell in row).rstrip())
        click.echo(f"  mean cosine {part.mean_cosine:.4f}; chosen: {part.fitted.chosen}")
    for note in aligned.notes:
        click.echo(note)
    click.echo(f"{out}: {manifest.name}, {size / 1e6:.2f} MB of graphs; how it was made is in {PAGE}")
    text = f" --text {quote(texts_by)}" if texts_by else ""
    click.echo(f"next: pocketlens pack --gallery BUNDLE/gallery --image {quote(str(out))}{text} --out NEW-BUNDLE")
