"""The command `pocketlens eval asymmetric`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from pocketlens.cli import printable
from pocketlens.files import write_file
from pocketlens_bench.progress import show_progress

_PATH = click.Path(path_type=Path)
_SPLITS = ("test", "validation", "train", "all")
_HELP = """Measure light queries over a heavy model's gallery: all models on the same queries, in one run.

Prints recall and mAP of the heavy model by itself, of every other model by itself, of light models' vectors over the
heavy gallery as they are (the control: near zero), and of query models, which fit writes, over the heavy gallery; what
share of the heavy model's recall that is; and the time of one picture on one thread. Ranking is exhaustive and exact.

\b
--emojicir DIR   as `make emojicir` builds it: the same emoji by another vendor,
                 emoji by their names, and composed queries.
--data DIR       any folder of pictures: views of them and, where all lie in
                 sub-folders of one thing each, the same thing and its name.

Asked with are concepts of --emojicir that lens-base's training held out, and pictures of --data that fit held out,
by the hash of their content. All pictures are ranked. Vectors are kept in the cache that fit uses.

\b
Example:
  pocketlens eval asymmetric --heavy lens-base --light tiny-alone --query tiny-ridge \\
    --query tiny-distilled --emojicir emojicir --plot recall.svg
"""


@click.command(name="asymmetric", help=_HELP, short_help="Light queries over a heavy model's gallery.")
@click.option("--heavy", required=True, help="Encodes the gallery: a model folder or a shipped model's name.")
@click.option("--light", "lights", multiple=True, help="A light model in a space of its own. Repeatable.")
@click.option("--query", "queries", multiple=True, help="A query model of the heavy model's space. Repeatable.")
@click.option("--data", type=_PATH, metavar="DIR", help="A folder of pictures.")
@click.option("--emojicir", type=_PATH, metavar="DIR", help="EmojiCIR's data folder.")
@click.option("--split", type=click.Choice(_SPLITS), default=_SPLITS[0], show_default=True, help="What is asked with.")
@click.option("--held-style", "held_styles", multiple=True, metavar="VENDOR",
              help="A vendor of EmojiCIR that was not trained on, for figures of its own. Repeatable.")  # fmt: skip
@click.option("--methods", default="sum,product,auto", show_default=True, help="Of composed queries; empty: none.")
@click.option("--limit", type=click.IntRange(1), help="So many queries of each kind only, spread evenly.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads of the encoders; by default the cores, at most 4.")
@click.option("--out", type=_PATH, help="Write the results to this JSON file.")
@click.option("--plot", type=_PATH, help="Draw recall against latency to this SVG file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: no absolute paths.")
def asymmetric(
    heavy: str,
    lights: Sequence[str],
    queries: Sequence[str],
    data: Path | None,
    emojicir: Path | None,
    split: str,
    held_styles: Sequence[str],
    methods: str,
    limit: int | None,
    threads: int | None,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Run the command."""
    from pocketlens_bench.asymmetric import Request, compare
    from pocketlens_bench.asymmetric_composed import check_methods
    from pocketlens_bench.asymmetric_models import open_entrants
    from pocketlens_bench.asymmetric_plot import draw
    from pocketlens_bench.asymmetric_report import to_json, to_text
    from pocketlens_export.fit.console import cache_folder

    chosen = check_methods([name for name in map(str.strip, methods.split(",")) if name])
    request = Request(
        entrants=open_entrants(heavy, lights, queries),
        data=data,
        emojicir=emojicir,
        split=split,
        held_styles=tuple(held_styles),
        methods=chosen,
        limit=limit,
        threads=threads,
        cache=cache_folder(),
    )
    with show_progress() as progress:
        found = compare(request, progress=progress)
    report = to_json(found)
    content = json.dumps(report, indent=2, allow_nan=False) + "\n"
    if out is not None:
        write_file(out, content.encode())
    if plot is not None:
        write_file(plot, draw(report))
    if as_json:
        click.echo(content, nl=False)
        return
    for line in to_text(found).split("\n"):
        click.echo(printable(line))
