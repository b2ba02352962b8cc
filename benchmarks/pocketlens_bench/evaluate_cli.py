"""The command `pocketlens eval`: a sub-command for every benchmark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketlens.cli import printable
from pocketlens.errors import BadQuery
from pocketlens.files import write_file
from pocketlens.settings import number_or_text, read_settings
from pocketlens_bench.asymmetric_cli import asymmetric
from pocketlens_bench.progress import show_progress
from pocketlens_bench.protocols import PROTOCOLS, read_task
from pocketlens_bench.protocols.submission import SERVERS, write_submission
from pocketlens_bench.protocols.task import Protocol, Task

if TYPE_CHECKING:
    from pocketlens.compose.method import Value
    from pocketlens_bench.evaluate_results import Results

_PATH = click.Path(path_type=Path)
_SETTING = "METHOD.PARAM=VALUE"
_ABOUT = """Answer the queries of a benchmark with composition methods, and print what was found.

The bundle's gallery is what is searched: make it of the benchmark's pictures with `pocketlens index PICTURES --out B`.
Pictures that it lacks are counted and named. Ranking is exhaustive and exact; the statistics that methods use are those
of the whole gallery, also where a benchmark ranks a part of it. Intervals are 95 % percentile intervals
of 1,000 bootstrap resamples of groups of queries that share a picture or a concept.
"""


def _files(protocol: Protocol) -> str:
    """Return which files a protocol expects, for click to keep the lines as they are."""
    lines = [f"{protocol.name}, splits {', '.join(protocol.splits)}"]
    return "\n".join(["\b", *lines, *(f"  {file}" for file in protocol.files.split("; "))])


_HELP = "\n\n".join(
    [
        _ABOUT,
        "Example: pocketlens eval emojicir --bundle B --data emojicir --methods sum,product --set slerp.text_share=0.7",
        "`pocketlens eval asymmetric` measures light queries over a heavy model's gallery instead; see its --help.",
        "Each benchmark reads its official files from DIR:",
        *map(_files, PROTOCOLS.values()),
    ]
)


class _Benchmarks(click.Group):
    """A group that names what it has when it is asked for something else."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message} Expected one of {', '.join(self.commands)}.", ctx) from error


@click.group(
    name="eval", cls=_Benchmarks, help=_HELP, short_help="Measure queries on benchmarks and on your own pictures."
)
def evaluate() -> None:
    """Measure queries."""


@click.command()
@click.option("--bundle", required=True, type=_PATH, help="A bundle of the protocol's pictures, with both towers.")
@click.option("--data", required=True, type=_PATH, metavar="DIR", help="The protocol's annotation files.")
@click.option(
    "--pictures", type=_PATH, help="The folder that was indexed; by default where the benchmark has them in DIR."
)
@click.option("--methods", default="all", show_default=True, help="Names with commas between, or all that can be used.")
@click.option("--split", help="By default the first of those that the benchmark has.")
@click.option("--set", "settings", multiple=True, metavar=_SETTING, help="A method's parameter; repeatable.")
@click.option("--limit", type=click.IntRange(1), help="So many queries only, spread evenly.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads of the encoders; by default the cores, at most 4.")
@click.option("--out", type=_PATH, help="Write the results to this JSON file.")
@click.option("--plot", type=_PATH, help="Draw the results to this SVG file: methods by families.")
@click.option("--submission", type=_PATH, metavar="DIR", help="Write files for the test server of CIRR or CIRCO.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: no times, no absolute paths.")
def _measure(
    protocol: Protocol,
    bundle: Path,
    data: Path,
    pictures: Path | None,
    methods: str,
    split: str | None,
    settings: Sequence[str],
    limit: int | None,
    threads: int | None,
    out: Path | None,
    plot: Path | None,
    submission: Path | None,
    as_json: bool,
) -> None:
    """Answer a protocol's queries."""
    from pocketlens.bundle import read_bundle
    from pocketlens.lens import open_lens
    from pocketlens_bench import evaluate as evaluation
    from pocketlens_bench.evaluate_kit import open_kit
    from pocketlens_bench.evaluate_report import to_json, warning

    names = parse_methods(methods)
    values = parse_settings(settings, names)
    task = read_task(protocol, data, split)
    _check_use(task, limit, submission, plot)
    with open_lens(bundle, threads=threads) as lens, show_progress() as on_progress:
        kit, folders = open_kit(bundle, lens, threads=threads), _folders(protocol, data, pictures)
        results = evaluation.evaluate(
            task, lens, kit, names, pictures=folders, parameters=values, limit=limit, on_progress=on_progress
        )
        report = to_json(results, lens, read_bundle(bundle), threads)
        warned = warning(results, next(iter(lens.gallery.items.read_all())).id)
    if warned:
        click.echo(printable(warned) + ("" if as_json else "\n"), err=as_json)
    _write(results, report, out=out, plot=plot, submission=submission)
    _print(results, report, as_json=as_json)


def _command(protocol: Protocol) -> click.Command:
    """Return the command of one protocol: the options are the same for all."""
    assert _measure.callback is not None
    return click.Command(
        protocol.name,
        params=_measure.params,
        callback=partial(_measure.callback, protocol),
        help=f"{_ABOUT}\n\n{_files(protocol)}",
        short_help=f"Composed queries of {protocol.name}.",
    )


for each in PROTOCOLS.values():
    evaluate.add_command(_command(each))
evaluate.add_command(asymmetric)


def _write(
    results: Results, report: dict[str, Any], *, out: Path | None, plot: Path | None, submission: Path | None
) -> None:
    if out is not None:
        write_file(out, _dump(report).encode())
    if plot is not None:
        from pocketlens_bench.evaluate_plots import draw

        write_file(plot, draw(report))
    if submission is not None:
        submission.mkdir(parents=True, exist_ok=True)
        for summary in results.summaries:
            run = summary.run
            by_id = {example.id: ranking for example, ranking in zip(run.examples, run.rankings, strict=True)}
            queries = [example.id for example in results.task.examples]
            for path in write_submission(submission, results.task.protocol, run.method, by_id, queries=queries):
                click.echo(f"wrote {printable(str(path))}", err=True)


def _print(results: Results, report: dict[str, Any], *, as_json: bool) -> None:
    from pocketlens_bench.evaluate_report import to_text

    if as_json:
        click.echo(_dump(report), nl=False)
        return
    for line in to_text(results).split("\n"):
        click.echo(printable(line))


def _dump(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def _check_use(task: Task, limit: int | None, submission: Path | None, plot: Path | None) -> None:
    if submission is not None and task.protocol not in SERVERS:
        raise BadQuery(f"--submission is for {' and '.join(SERVERS)}; {task.protocol} has no test server")
    if submission is not None and limit is not None:
        raise BadQuery("--submission needs an answer to every query of the split; give no --limit")
    if task.has_answers:
        return
    if task.protocol not in SERVERS:
        raise BadQuery(f"{task.protocol} {task.split} has no answers, so nothing can be measured; choose another split")
    if submission is None or plot is not None:
        raise BadQuery(
            f"{task.protocol} {task.split} has no answers, so there are no figures: give --submission DIR and no --plot"
        )


def _folders(protocol: Protocol, data: Path, pictures: Path | None) -> list[Path]:
    return [pictures] if pictures is not None else [data / folder for folder in protocol.pictures]


def parse_methods(names: str) -> list[str] | None:
    """Return the names with commas between them, each once; None: all that can be used.

    Raises:
        BadQuery: there is no name, or "all" stands beside others.
    """
    found = list(dict.fromkeys(filter(None, map(str.strip, names.split(",")))))
    if found == ["all"]:
        return None
    if not found or "all" in found:
        raise BadQuery(f"--methods is {names!r}, expected names with commas between them, or all alone")
    return found


def parse_settings(settings: Sequence[str], names: Sequence[str] | None) -> dict[str, dict[str, Value]]:
    """Return values by method and parameter of settings like `slerp.text_share=0.7`.

    Raises:
        BadQuery: a setting has another form or stands twice, or its method or parameter is unknown or not evaluated.
    """
    from pocketlens.compose import check_values, find_method

    values: dict[str, dict[str, Value]] = {}
    for key, text in read_settings(settings, form=_SETTING).items():
        name, _, parameter = key.partition(".")
        if not (name and parameter):
            raise BadQuery(f"--set is '{key}={text}', expected {_SETTING}")
        method = find_method(name)
        if names is not None and name not in names:
            raise BadQuery(f"--set {key}: the method {name} is not evaluated; --methods are {', '.join(names)}")
        values.setdefault(name, {})[parameter] = number_or_text(text)
        check_values(method, values[name])
    return values
