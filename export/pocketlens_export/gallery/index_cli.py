"""The command `pocketlens index`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketlens.errors import FormatError

if TYPE_CHECKING:
    from pocketlens_export.gallery.progress import Watch
    from pocketlens_export.gallery.request import Device, Engine, Request

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
    help="Exit with 1 when more pictures were skipped; by default 1, of 20 or fewer 50.",
)
@click.option("--skipped", type=_PATH, metavar="FILE", help="Write what was skipped, and why: a line of JSON each.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the counts as JSON; progress, notes and what was skipped as lines of JSON on stderr.",
)
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
    from pocketlens_export.gallery.outcome import check_lost, tell, tell_strange
    from pocketlens_export.gallery.run_folder import has_placed

    if request.out.is_dir() and not request.replace and not has_placed(request.unfinished, request.out):
        raise FormatError(
            f"{request.out} exists already; give --replace, --update for its next generation, or choose another name"
        )
    began = time.monotonic()
    with _watching(request, as_json=as_json) as watch:
        done = index_pictures(request, watch, on_strange=lambda plan: tell_strange(plan, table, as_json=as_json))
    tell(request, done, watch, time.monotonic() - began, as_json=as_json)
    check_lost(request, done.counts, max_skipped)


def _update(request: Request, table: Path | None, max_skipped: float | None, *, as_json: bool) -> None:
    from pocketlens_export.gallery.outcome import check_lost, tell_left_out, tell_update
    from pocketlens_export.gallery.updating import update_pictures

    began = time.monotonic()
    with _watching(request, as_json=as_json) as watch:
        done = update_pictures(request, watch, on_strange=partial(tell_left_out, table, as_json=as_json))
    tell_update(request, done, watch, time.monotonic() - began, as_json=as_json)
    check_lost(request, done.counts, max_skipped, unchanged=done.unchanged, kept=done.kept)


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


def _read_table(table: Path) -> tuple[Mapping[str, str], Mapping[str, Mapping[str, Any]]]:
    from pocketlens_export.gallery.sidecar import read_sidecar

    sidecar = read_sidecar(table)
    return sidecar.types, sidecar.attributes
