"""The command `pocketlens`. The offline packages' sub-commands come from entry points and load only when called."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pocketlens import __version__
from pocketlens.additions_cli import add, compact, remove
from pocketlens.duplicates_cli import duplicates
from pocketlens.errors import BadQuery, MissingPart, PocketlensError
from pocketlens.show import printable as printable

if TYPE_CHECKING:
    from pocketlens.compose import Method
    from pocketlens.hits import Hits

_GROUP = "pocketlens.commands"
_PATH = click.Path(path_type=Path)
_OPERATOR = re.compile(r"-\s")  # at the start of an argument
_NO_SPACE = re.compile(r"-[^\s\-k].|-k[^\d=-]", re.DOTALL)  # "-people": no option has such a name; -k has a number
_THREADS = "Threads; by default the cores, at most 4, to encode, and 1 to search."


class _Commands(click.Group):
    """A group whose offline commands are found by name and imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=_GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group=_GROUP, name=cmd_name):
            return _load(entry)
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise _explain(error, ctx.invoked_subcommand) from error


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


def _load(entry: EntryPoint) -> click.Command:
    command: click.Command = entry.load()
    return command


def _explain(error: ModuleNotFoundError, command: str | None) -> Exception:
    extras = [extra for entry in entry_points(group=_GROUP, name=command or "") for extra in entry.extras]
    if not extras:
        return error
    install = f'pip install "pocketlens[{extras[0]}]"'
    return MissingPart(f"pocketlens {command} needs {error.name}, which is not installed: {install}")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """Find pictures by text or picture, on this device, offline.

    Start with: pocketlens index PICTURES --out BUNDLE, then: pocketlens search BUNDLE "a red bicycle", or with a
    picture: pocketlens search BUNDLE "./me.jpg + at night"
    """


@cli.command(cls=_Search, short_help="Find pictures by text, by picture, or by a picture as a text says.")
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
@click.option("--min-margin", type=float, metavar="M", help="Leave hits out whose margin is lower, such as 0.08.")
@click.option("--diverse", is_flag=True, help="Hide near-duplicates (cosine 0.97 or above) of better hits.")
@click.option("--formats", metavar="LIST", help="Read these too, by commas: gif, bmp, tiff, avif, heic.")
@click.option("--threads", type=click.IntRange(1, 64), help=_THREADS)
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
        _print_json(hits_values(hits))
    else:
        _print_hits(hits, headed=len(parts) > 1 or method != "auto")


@cli.command(short_help="List the ways to compose a picture and a text.")
@click.argument("bundle", type=_PATH, required=False)
@click.option("--method", metavar="NAME", help="Print the formula, source and parameters of this one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def methods(bundle: Path | None, method: str | None, as_json: bool) -> None:
    """List every method that pocketlens search --method takes: what it does, the texts it encodes, what it needs.

    With BUNDLE (or a model's folder or name): whether it can be used there, and its mAP@10 where it was measured.

    \b
      pocketlens methods my-bundle
      pocketlens methods --method slerp
    """  # noqa: D301
    from pocketlens.compose import METHODS, find_method
    from pocketlens.inspect import missing_towers, tower_manifest
    from pocketlens.needs import lacking, measured_figures
    from pocketlens.show import method_lines, methods_table, methods_values

    chosen = METHODS if method is None else {method: find_method(method)}
    text = None if bundle is None else tower_manifest(_folder(bundle), "text")
    image = None if bundle is None else tower_manifest(_folder(bundle), "image")
    towers = {} if bundle is None else missing_towers(_folder(bundle))

    def lacks(one: Method) -> list[str]:
        return [towers[need] for need in one.needs if need in towers] + lacking(one, text, image)

    values = methods_values(chosen, None if bundle is None else lacks, measured_figures(text))
    if as_json:
        _print_json({"methods": values})
        return
    for line in methods_table(values) if method is None else method_lines(values[0]):
        click.echo(line)


@cli.command(short_help="Print what a folder says of itself.")
@click.argument("path", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(path: Path, as_json: bool) -> None:
    """Print what a model, gallery or bundle folder says of itself; PATH may also name a model that ships."""
    from pocketlens.inspect import describe

    described = describe(_folder(path))
    if as_json:
        _print_json(described)
    else:
        _print_tree(described)


@cli.command(short_help="Check every file of a folder.")
@click.argument("path", type=_PATH)
def verify(path: Path) -> None:
    """Hash every file of a folder again and replay its golden values; exit with 1 when anything is off.

    PATH may also name a model that ships.
    """
    from pocketlens.inspect import verify as verify_folder

    for line in verify_folder(_folder(path)):
        click.echo(printable(line))
    click.echo("ok")


@cli.command(short_help="Measure a bundle on this device.")
@click.argument("bundle", type=_PATH)
@click.option("--runs", default=50, show_default=True, type=click.IntRange(5, 10_000), help="Runs of every stage.")
@click.option("--threads", type=click.IntRange(1, 64), help=_THREADS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(bundle: Path, runs: int, threads: int | None, as_json: bool) -> None:
    """Measure latency, cold start, memory and recall of BUNDLE on this device."""
    from pocketlens.bench import measure, table

    measured = measure(bundle, runs=runs, threads=threads)
    if as_json:
        _print_json(measured)
    else:
        click.echo(table(measured))


for command in (add, remove, compact, duplicates):
    cli.add_command(command)


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


def _folder(path: Path) -> Path:
    from pocketlens.model import shipped_models

    return path if path.exists() else shipped_models().get(str(path), path)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))  # ASCII: the same bytes on every terminal


def _print_tree(value: dict[str, Any], indent: str = "") -> None:
    width = max(len(printable(key)) for key in value)
    for key, item in value.items():
        if isinstance(item, dict) and item.keys() == {"sha256", "size_bytes"}:
            click.echo(f"{indent}{printable(key):{width}} {item['size_bytes'] / 1e6:.2f} MB")  # its hash is in --json
        elif isinstance(item, dict) and item:
            click.echo(f"{indent}{printable(key)}")
            _print_tree(item, indent + "  ")
        else:
            shown = "-" if item in (None, {}) else printable(str(item))
            click.echo(f"{indent}{printable(key):{width}} {shown}")


def _show(error: click.ClickException) -> None:
    message = error.format_message()
    if "\n" in message:  # a group called without a command answers with its help
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f" (see {context.command_path} --help)" if context else ""
    click.echo(f"pocketlens: {message}{hint}", err=True)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the removal of what was half written
    sys.exit(128 + number)


def main() -> None:
    """Run the command; an expected failure is one line on stderr and exit code 1, a wrong call exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        cli.main(prog_name="pocketlens", standalone_mode=False)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        _show(error)
        sys.exit(error.exit_code)
    except (PocketlensError, OSError) as error:
        click.echo(f"pocketlens: {printable(str(error))}", err=True)
        sys.exit(1)
