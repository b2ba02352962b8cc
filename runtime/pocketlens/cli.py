"""The command `pocketlens`. The offline packages' sub-commands come from entry points and load only when called."""

from __future__ import annotations

import io
import json
import signal
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pocketlens import __version__
from pocketlens.additions_cli import add, apply, compact, remove
from pocketlens.duplicates_cli import duplicates
from pocketlens.errors import MissingPart, PocketlensError
from pocketlens.search_cli import THREADS, search
from pocketlens.show import printable as printable

if TYPE_CHECKING:
    from pocketlens.compose import Method

_GROUP = "pocketlens.commands"
_PATH = click.Path(path_type=Path)


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
@click.option("--threads", type=click.IntRange(1, 64), help=THREADS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(bundle: Path, runs: int, threads: int | None, as_json: bool) -> None:
    """Measure latency, cold start, memory and recall of BUNDLE on this device."""
    from pocketlens.bench import measure, table

    measured = measure(bundle, runs=runs, threads=threads)
    if as_json:
        _print_json(measured)
    else:
        click.echo(table(measured))


for command in (search, add, apply, remove, compact, duplicates):
    cli.add_command(command)


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
        elif isinstance(item, tuple) and item and isinstance(item[0], dict):
            for number, each in enumerate(item, start=1):
                click.echo(f"{indent}{printable(key)} {number}")
                _print_tree(each, indent + "  ")
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
