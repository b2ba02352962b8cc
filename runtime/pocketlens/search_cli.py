"""The command `pocketlens search`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketlens.errors import BadQuery

if TYPE_CHECKING:  # printing --help loads no arrays
    from pocketlens.hits import Hits

THREADS = "Threads; by default the cores, at most 4, to encode, and 1 to search."

_PATH = click.Path(path_type=Path)
_OPERATOR = re.compile(r"-\s")  # at the start of an argument
_NO_SPACE = re.compile(r"-[^\s\-k].|-k[^\d=-]", re.DOTALL)  # "-people": no option has such a name; -k has a number


class _Search(click.Command):
    """A command whose EXPRESSION may start with an operator: "- people" would be taken for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {name for option in self.params if not getattr(option, "is_flag", False) for name in option.opts}
        before, end = ["", *args], args.index("--") if "--" in args else len(args)
        read = list(args)
        for number, arg in enumerate(args):
            if before[number] in takes_value:
                continue
            if number < end and _NO_SPACE.match(arg):
                raise click.UsageError(
                    f"No such option {arg!r}; what is not wanted has a space after the minus, {f'- {arg[1:]}'!r}, and "
                    "--text takes a text as it stands",
                    ctx,
                )
            if _OPERATOR.match(arg):
                read[number] = f" {arg}"
        return super().parse_args(ctx, read)


@click.command(cls=_Search, short_help="Find pictures by text, by picture, or by a picture as a text says.")
@click.argument("bundle", type=_PATH)
@click.argument("expression", required=False)
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="A text as it stands; may be repeated.")
@click.option("--image", "images", multiple=True, type=_PATH, help="A picture to look for; may be repeated.")
@click.option("--negative", multiple=True, metavar="TEXT", help="What is not wanted; may be repeated.")
@click.option("--method", default="auto", show_default=True, help="How to compose; see pocketlens methods.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="A parameter of the method; repeatable.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1, 1_000), help="How many hits.")
@click.option("--like", metavar="ID", help="More like this picture of the gallery, instead of all of the above.")
@click.option("--where", "conditions", multiple=True, metavar="CONDITION",
              help="Only pictures such as year>=2020 or tag=beach; if repeated, all must hold.")  # fmt: skip
@click.option("--min-z", type=float, metavar="Z", help="Leave hits out whose z is lower, such as 3; see below.")
@click.option("--min-margin", type=float, metavar="M", help="Leave hits out whose margin is lower, such as 0.09.")
@click.option("--diverse", is_flag=True, help="Hide near-duplicates (cosine 0.97 or above) of better hits.")
@click.option("--formats", metavar="LIST", help="Read these too, by commas: gif, bmp, tiff, avif, heic.")
@click.option("--threads", type=click.IntRange(1, 64), help=THREADS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: no times, no absolute paths.")
def search(
    bundle: Path,
    expression: str | None,
    texts: tuple[str, ...],
    images: tuple[Path, ...],
    negative: tuple[str, ...],
    method: str,
    values: tuple[str, ...],
    k: int,
    like: str | None,
    conditions: tuple[str, ...],
    min_z: float | None,
    min_margin: float | None,
    diverse: bool,
    formats: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Print the pictures of BUNDLE nearest to what is asked for.

    \b
    EXPRESSION is a text, the path of a picture, or several of them joined:
      pocketlens search B "a red bicycle"
      pocketlens search B "./me.jpg + 2:at night - people"
      pocketlens search B --image me.jpg --text "at night" --negative people
      pocketlens search B "./me.jpg + as a toy" --method slerp --set text_share=0.7
      pocketlens search B --like animals/tiger.webp
      pocketlens search B "a boat" --where "taken>=2020" --where tag=beach
    + and - stand between spaces, a number and a colon are a weight, and a part
    that starts with ./, ../, / or ~/ is a picture.

    Pictures that are found go by their path below the folder that was indexed; a picture of the query is sought from
    the current folder. The cosine is the similarity, -1 to 1; z tells by how many standard deviations a picture
    stands out from the gallery for this query. A method that fuses the scores of picture and text ranks by what it
    made of them, the score, which compares within one answer only; cosine and z are then the mean over the wanted
    vectors. Without a column score, the cosine is what hits are ranked by.

    The margin is the cosine less the mean of the pictures ranked second to fiftieth: how far a picture stands out
    from the next best. The best of n pictures that have nothing to do with the query is expected at a z of about 2.5
    among 100, 3.2 among 1,000 and 4.4 among 100,000 (docs/scores.md).

    A CONDITION is NAME=VALUE, or with !=, >, >=, <, <=, ~= (contains) or ^= (starts with); NAME alone asks for pictures
    that have it, !NAME for those that do not, and a JSON object says more (docs/filters.md). pocketlens info B lists
    the names.
    """  # noqa: D301  # click takes the escape itself
    asked = expression is not None or texts or images
    if like is not None and (asked or negative or values or method != "auto"):
        raise click.UsageError("--like ID stands alone: it takes no other part, --negative, --method or --set")
    if like is None and not asked:
        raise click.UsageError("give an EXPRESSION, a --text TEXT, an --image PATH or a --like ID")
    parameters = _read_parameters(values)
    from pocketlens.lens import open_lens
    from pocketlens.parts import read_options
    from pocketlens.show import hits_values
    from pocketlens.where import read_where

    parts = [] if like is not None else read_options(expression, images, texts, negative)
    more = [] if formats is None else [name.strip() for name in formats.split(",")]
    with open_lens(bundle, threads=threads, formats=more) as lens:
        where = read_where(conditions, lens.attributes)
        if like is not None:
            hits = lens.similar(like, where=where, k=k, min_z=min_z, min_margin=min_margin, diverse=diverse)
        else:
            hits = lens.search(
                parts=parts, method=method, parameters=parameters, where=where, k=k,
                min_z=min_z, min_margin=min_margin, diverse=diverse,
            )  # fmt: skip
    if as_json:
        click.echo(json.dumps(hits_values(hits), indent=2))
    else:
        _print_hits(hits, headed=len(parts) > 1 or method != "auto")


def _print_hits(hits: Hits, *, headed: bool) -> None:
    from pocketlens.show import hits_heading, hits_table

    for line in hits_heading(hits) if headed else []:
        click.echo(line, err=True)
    for line in hits_table(hits):
        click.echo(line)


def _read_parameters(settings: Sequence[str]) -> dict[str, float | str]:
    from pocketlens.settings import number_or_text, read_settings

    try:
        return {name: number_or_text(value) for name, value in read_settings(settings).items()}
    except BadQuery as error:
        raise click.UsageError(str(error)) from error
