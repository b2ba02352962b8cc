"""The command `pocketlens index`."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketlens.errors import FormatError
from pocketlens.show import printable

if TYPE_CHECKING:
    from pocketlens.gallery import Counts
    from pocketlens.listing import Skipped
    from pocketlens_export.gallery.indexing import Done
    from pocketlens_export.gallery.plan import Plan
    from pocketlens_export.gallery.progress import Watch
    from pocketlens_export.gallery.request import Device, Engine, Request

_SHOWN = 5
_LONG_S = 10.0  # from which on a run is summed up
_PATH = click.Path(path_type=Path)


@click.command(short_help="Make a bundle of pictures: a folder, tar shards, Parquet, a list.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--out", type=_PATH, metavar="BUNDLE", help="The bundle folder to write.")
@click.option("--update", type=_PATH, metavar="BUNDLE", help="A bundle to bring up to date instead; see below.")
@click.option(
    "--model", help="Gallery encoder: a folder or a shipped name; by default lens-base, or the updated one's."
)
@click.option("--query-model", help="Encoder for the device; by default the gallery's own.")
@click.option("--attributes", "table", type=_PATH, metavar="FILE", help="CSV or Parquet: what to filter by; see above.")
@click.option("--keep", metavar="LIST", help="Columns of tars and Parquet that become attributes; see above.")
@click.option("--image-column", metavar="NAME", help="Column of Parquet files with the pictures, or their paths.")
@click.option("--formats", metavar="LIST", help="Read these too, by commas: gif, bmp, tiff, avif, heic.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="What encodes; auto is CUDA where onnxruntime has it.",
)
@click.option("--threads", type=click.IntRange(1, 64), help="Threads of the encoder; by default the cores, at most 4.")
@click.option(
    "--decoders", type=click.IntRange(1, 256), help="Processes that decode beside it; by default the cores, at most 4."
)
@click.option(
    "--shard",
    type=click.IntRange(1, 65_536),
    default=1024,
    show_default=True,
    metavar="FILES",
    help="Files that are written together; a killed run does its last few such groups again.",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(0.1, 3600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="A picture that takes longer to decode, twice, is skipped.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who encodes: this process, or Ray's workers: the same bundle.",
)
@click.option("--address", help="Of a running Ray cluster; without it one is started on this machine.")
@click.option("--workers", type=click.IntRange(1, 100_000), help="Of Ray; by default as many as there is room for.")
@click.option(
    "--rescore/--no-rescore", default=True, help="Keep float16 vectors beside the codes: nearly exact, but larger."
)
@click.option("--replace", is_flag=True, help="Replace BUNDLE when it exists.")
@click.option("--restart", is_flag=True, help="Forget an unfinished run of BUNDLE, and begin anew.")
@click.option(
    "--max-skipped",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Exit with 1 when more pictures were skipped; by default 1, and never for 20 or fewer.",
)
@click.option("--skipped", type=_PATH, metavar="FILE", help="Write what was skipped, and why: a line of JSON each.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON; progress as lines of JSON on stderr.")
def index(
    sources: tuple[str, ...],
    out: Path | None,
    update: Path | None,
    model: str | None,
    query_model: str | None,
    table: Path | None,
    keep: str | None,
    image_column: str | None,
    formats: str | None,
    device: Device,
    threads: int | None,
    decoders: int | None,
    shard: int,
    deadline_s: float,
    engine: Engine,
    address: str | None,
    workers: int | None,
    rescore: bool,
    replace: bool,
    restart: bool,
    max_skipped: float | None,
    skipped: Path | None,
    as_json: bool,
) -> None:
    """Encode every picture of one or more sources and write a bundle that can be searched.

    \b
    A SOURCE is
      a folder            every picture below it
      a .tar file         a WebDataset shard, or any other; never unpacked
      a .parquet file     with the pictures' bytes, or their paths, in a column
      a .txt file         with a path on each line
    Quote globs and ranges in braces: "data/shard-{0000..0099}.tar".

    Pictures are JPEG, PNG, WebP and what --formats asks for, to 100 megapixels and 200 MB each; in folders and
    archives suffixes tell. Hidden files are passed over, links to folders are not followed, and whatever cannot be read
    is counted and named. A picture that hangs or kills its decoder is tried again, alone, then skipped.

    A run that stops, however it stops, goes on with the same command: it does what is missing, and the bundle is the
    same to the byte. Until it is finished it is kept in .BUNDLE.unfinished beside BUNDLE, where heartbeat.json tells
    how far it is. More, with sizes and a cluster: docs/scale.md.

    --update BUNDLE writes the next generation of a bundle that is there: it encodes what is new or whose bytes or
    attributes changed, takes away what no SOURCE lists any more, and keeps the rest as it is. Give all the sources
    again. pocketlens pack --since then writes a small file for the devices: docs/updates.md.

    Searches can be filtered by each picture's width, height, size_bytes, folder and the time it was taken, where it
    says so, and by the columns of a table: one called id has the picture's id (its path below the folder), the others
    are attributes. Types follow from the values, or are declared in the header; tags are separated by semicolons:

    \b
      id,year:integer,mood,tag:tags
      2024/IMG_1.jpg,2024,happy,beach;sea

    --keep caption,year:integer does the same with columns of a Parquet file, or with what lies beside a picture in a
    tar: keys of its .json, or the ending of another file, such as txt.
    """  # noqa: D301  # click takes the escape itself
    from pocketlens.model import Model, find_model
    from pocketlens_export.gallery.request import Request
    from pocketlens_export.gallery.sources.columns_kept import read_kept
    from pocketlens_export.gallery.updating import model_of

    if engine != "ray" and (address or workers):
        raise click.UsageError("--address and --workers are for --engine ray")
    if (out is None) == (update is None):
        raise click.UsageError("give --out BUNDLE for a new bundle, or --update BUNDLE for one that is there")
    if update is not None and (query_model or replace or not rescore):
        raise click.UsageError("--query-model, --replace and --no-rescore are for a new bundle")
    bundle = out or update
    assert bundle is not None
    types, attributes = _read_table(table) if table else ({}, {})
    gallery_model = Model.open(find_model(model or ("lens-base" if update is None else model_of(update))))
    request = Request(
        sources,
        bundle,
        gallery_model,
        Model.open(find_model(query_model)) if query_model else gallery_model,
        rescore=rescore,
        replace=replace,
        restart=restart,
        formats=[name.strip() for name in formats.split(",")] if formats else [],
        attributes=attributes,
        types=types,
        kept=read_kept(keep),
        image_column=image_column,
        threads=threads,
        processes=decoders,
        shard=shard,
        deadline_s=deadline_s,
        engine=engine,
        address=address,
        workers=workers,
        device=device,
        skipped=skipped,
    )
    if update is None:
        _run(request, table, max_skipped, as_json=as_json)
    else:
        _update(request, table, max_skipped, as_json=as_json)


def _run(request: Request, table: Path | None, max_skipped: float | None, *, as_json: bool) -> None:
    from pocketlens_export.gallery.indexing import index_pictures

    began = time.monotonic()
    with _watching(request, as_json=as_json) as watch:
        done = index_pictures(request, watch, on_strange=lambda plan: _tell_strange(plan, table))
    _tell(request, done, watch, time.monotonic() - began, as_json=as_json)
    _check_lost(request, done.counts, max_skipped)


def _update(request: Request, table: Path | None, max_skipped: float | None, *, as_json: bool) -> None:
    from pocketlens_export.gallery.updating import update_pictures

    with _watching(request, as_json=as_json) as watch:
        done = update_pictures(request, watch, on_strange=lambda id, count: _tell_left_out(table, id, count))
    counts = done.counts
    _warn(done.examples, counts)
    new = counts.indexed + counts.duplicates - done.changed
    values = {"generation": done.generation, "new": new, "changed": done.changed, "gone": done.gone,
              "unchanged": done.unchanged, "skipped": counts.skipped}  # fmt: skip
    reasons = "".join(f", {count} {reason}" for reason, count in counts.skipped.items())
    if as_json:
        click.echo(json.dumps(values))
    elif done.is_new:
        outcomes = f"{new} new, {done.changed} changed, {done.gone} gone, {done.unchanged} unchanged{reasons}"
        click.echo(f"{request.out}: generation {done.generation}: {outcomes}")
    else:
        click.echo(f"{request.out}: nothing changed since generation {done.generation}{reasons}; it stays as it is")
    _check_lost(request, counts, max_skipped)


@contextmanager
def _watching(request: Request, *, as_json: bool) -> Iterator[Watch]:
    """Yield what shows a run's progress; if the run stops, say how it goes on."""
    from pocketlens_export.gallery.progress import Bar, Lines, Watch

    bar = Bar() if sys.stderr.isatty() and not as_json else None
    watch = Watch(shows=[bar or Lines(as_json=as_json)])
    try:
        yield watch
    except BaseException:
        if watch.has_begun and request.unfinished.exists():
            click.echo(f"stopped; the same command goes on from here ({request.unfinished})", err=True)
        raise
    finally:
        if bar is not None:
            bar.clear()


def _check_lost(request: Request, counts: Counts, max_skipped: float | None) -> None:
    from pocketlens_export.gallery.accounting import too_many_lost

    share = None if max_skipped is None else max_skipped / 100
    if too_many_lost(counts, share):
        _fail(request, counts, max_skipped)


def _tell(request: Request, done: Done, watch: Watch, took_s: float, *, as_json: bool) -> None:
    counts = done.counts
    _warn(done.examples, counts)
    if not any(source.manifest.can_read for source in (request.query_model, request.model)):
        click.echo(f"{request.out} will refuse texts: its model has no text tower, or no tokenizer for it", err=True)
    if as_json:
        seconds = {name: round(value, 1) for name, value in watch.seconds.items()}
        busy = {name: round(value, 3) for name, value in done.busy.items()}
        click.echo(
            json.dumps({"event": "summary", "resumed": done.resumed, "seconds": seconds, "busy": busy}), err=True
        )
        click.echo(json.dumps(dataclasses.asdict(counts)))
        return
    if took_s > _LONG_S:
        _summarize(done, watch, took_s)
    reasons = "".join(f", {count} {reason}" for reason, count in counts.skipped.items())
    click.echo(
        f"{request.out}: {counts.indexed} pictures indexed, {counts.duplicates} duplicates{reasons}; "
        f"{counts.seen} files seen"
    )


def _summarize(done: Done, watch: Watch, took_s: float) -> None:
    """Say how long a run took, and which stage it waited for."""
    from pocketlens_export.gallery.progress import duration, shares_of

    stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in watch.seconds.items())
    fresh = done.counts.seen - done.resumed
    rate = fresh / watch.seconds["encoding"] if watch.seconds.get("encoding") else 0.0
    click.echo(f"took {duration(took_s)} ({stages}), {rate:,.0f} files/s; the busiest stage is the slowest:", err=True)
    for line in shares_of(done.busy):
        click.echo(line, err=True)
    if done.resumed:
        click.echo(f"  {done.resumed:,} files had been done by an earlier run", err=True)


def _fail(request: Request, counts: Counts, max_skipped: float | None) -> None:
    from pocketlens_export.gallery.accounting import lost_of

    lost, of = lost_of(counts)
    most = 1.0 if max_skipped is None else max_skipped
    click.echo(
        f"pocketlens: {lost:,} of {of:,} pictures ({lost / max(of, 1):.1%}) were skipped, expected at most {most:g} % "
        f"(--max-skipped); {request.out} was written without them",
        err=True,
    )
    sys.exit(1)


def _read_table(table: Path) -> tuple[Mapping[str, str], Mapping[str, Mapping[str, Any]]]:
    from pocketlens_export.gallery.sidecar import read_sidecar

    sidecar = read_sidecar(table)
    return sidecar.types, sidecar.attributes


def _tell_strange(plan: Plan, table: Path | None) -> None:
    """Tell of a table's ids that no picture has; raises `FormatError` where none of them is one."""
    strange, count = plan.strange
    if not plan.matched:
        first = plan.first_id()
        example = "" if first is None else f", such as {first!r}"
        raise FormatError(
            f"{table}: no id is one of the {plan.total} files, found {strange!r}; expected paths below the folder"
            f"{example}"
        )
    _tell_left_out(table, strange, count)


def _tell_left_out(table: Path | None, strange: str, count: int) -> None:
    click.echo(f"{table}: {count} ids are no files and were left out, such as {printable(strange)}", err=True)


def _warn(examples: Mapping[str, Sequence[Skipped]], counts: Counts) -> None:
    """Name the first skipped files of each kind on stderr; files that are no pictures are only counted."""
    for reason in sorted(examples.keys() - {"not a picture"}):
        for entry in examples[reason][:_SHOWN]:
            click.echo(printable(f"skipped {entry.id}: {entry.reason}: {entry.detail}"), err=True)
        if counts.skipped[reason] > _SHOWN:
            click.echo(f"… and {counts.skipped[reason] - _SHOWN} more: {reason}", err=True)
