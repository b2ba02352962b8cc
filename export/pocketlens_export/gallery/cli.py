"""The commands `pocketlens index` and `pocketlens pack`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketlens.cli import printable
from pocketlens.errors import FormatError
from pocketlens.progress import show_progress

if TYPE_CHECKING:
    from pocketlens.listing import Skipped

_SHOWN = 5
_FOLDER = click.Path(path_type=Path)


@click.command(short_help="Make a bundle of a folder of pictures.")
@click.argument("pictures", type=_FOLDER)
@click.option("--out", required=True, type=_FOLDER, help="The bundle folder to write.")
@click.option(
    "--model", default="lens-base", show_default=True, help="Gallery encoder: a model folder or a shipped name."
)
@click.option("--query-model", help="Encoder for the device; by default the gallery's own.")
@click.option(
    "--attributes", "table", type=_FOLDER, metavar="FILE", help="CSV or Parquet: what to filter by; see above."
)
@click.option("--formats", metavar="LIST", help="Read these too, by commas: gif, bmp, tiff, avif, heic.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; by default the cores, at most 4.")
@click.option(
    "--rescore/--no-rescore", default=True, help="Keep float16 vectors beside the codes: nearly exact, but larger."
)
@click.option("--replace", is_flag=True, help="Replace BUNDLE when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def index(
    pictures: Path,
    out: Path,
    model: str,
    query_model: str | None,
    table: Path | None,
    formats: str | None,
    threads: int | None,
    rescore: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Encode every picture below the folder PICTURES and write a bundle that can be searched.

    Pictures are known by their suffix: JPEG, PNG, WebP and what --formats asks for, to 100 megapixels and 200 MB each.
    Hidden files are passed over, links to folders are not followed, and whatever cannot be read is counted and named.

    Searches can be filtered by each picture's width, height, size_bytes, folder and the time it was taken, where it
    says so, and by the columns of a table: one called id has the path below PICTURES, the others are attributes. Types
    follow from the values, or are declared in the header; tags are separated by semicolons:

    \b
      id,year:integer,mood,tag:tags
      2024/IMG_1.jpg,2024,happy,beach;sea
    """  # noqa: D301  # click takes the escape itself
    from pocketlens.model import Model, find_model
    from pocketlens_export.gallery.build import build_bundle

    more = [name.strip() for name in formats.split(",")] if formats else []
    _check_free(out, replace)
    types, attributes = _read_table(table, pictures) if table else ({}, {})
    gallery_model = Model.open(find_model(model))
    query = Model.open(find_model(query_model)) if query_model else gallery_model
    with show_progress("indexing", counted=True) as on_progress:
        counts, skipped = build_bundle(
            pictures,
            out,
            model=gallery_model,
            query_model=query,
            rescore=rescore,
            replace=replace,
            formats=more,
            attributes=attributes,
            types=types,
            threads=threads,
            on_progress=on_progress,
        )
    _warn(skipped)
    if not any(source.manifest.can_read for source in (query, gallery_model)):
        click.echo(f"{out} will refuse texts: its model has no text tower, or no tokenizer for it", err=True)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(counts), indent=2))
        return
    reasons = "".join(f", {count} {reason}" for reason, count in counts.skipped.items())
    click.echo(
        f"{out}: {counts.indexed} pictures indexed, {counts.duplicates} duplicates{reasons}; {counts.seen} files seen"
    )


@click.command(short_help="Put a bundle together from parts.")
@click.option("--gallery", required=True, type=_FOLDER, help="A gallery folder, or the gallery/ of a bundle.")
@click.option("--text", "text_model", help="Model whose text tower the bundle gets: a folder or a shipped name.")
@click.option("--image", "image_model", help="Model whose image tower the bundle gets: a folder or a shipped name.")
@click.option("--out", required=True, type=_FOLDER, help="The bundle folder to write.")
@click.option("--replace", is_flag=True, help="Replace BUNDLE when it exists.")
def pack(gallery: Path, text_model: str | None, image_model: str | None, out: Path, replace: bool) -> None:
    """Put a bundle together from a gallery and the towers of one or two models of its space."""
    from pocketlens.model import Model, find_model
    from pocketlens_export.gallery.build import pack_bundle

    if not text_model and not image_model:
        raise click.UsageError("give --text MODEL, --image MODEL, or both")
    _check_free(out, replace)
    text = Model.open(find_model(text_model)) if text_model else None
    image = Model.open(find_model(image_model)) if image_model else None
    pack_bundle(out, gallery=gallery, text=text, image=image, replace=replace)
    click.echo(f"{out}: a bundle of {gallery}")


def _read_table(table: Path, pictures: Path) -> tuple[Mapping[str, str], Mapping[str, Mapping[str, Any]]]:
    """Return types and values of a table's attributes; ids that are no files are told of and left out."""
    from pocketlens_export.gallery.scan import list_files
    from pocketlens_export.gallery.sidecar import read_sidecar

    sidecar = read_sidecar(table)
    found, strange = sidecar.of({path.relative_to(pictures).as_posix() for path in list_files(pictures)}, table)
    if strange:
        example = printable(strange[0])
        click.echo(f"{table}: {len(strange)} ids are no files and were left out, such as {example}", err=True)
    return sidecar.types, found


def _check_free(out: Path, replace: bool) -> None:
    if out.exists() and not replace:
        raise FormatError(f"{out} exists already; give --replace or choose another name")


def _warn(skipped: Sequence[Skipped]) -> None:
    """Name the first skipped files of each kind on stderr; files that are no pictures are only counted."""
    for reason in sorted({entry.reason for entry in skipped} - {"not a picture"}):
        told = [entry for entry in skipped if entry.reason == reason]
        for entry in told[:_SHOWN]:
            click.echo(printable(f"skipped {entry.id}: {entry.reason}: {entry.detail}"), err=True)
        if len(told) > _SHOWN:
            click.echo(f"… and {len(told) - _SHOWN} more: {reason}", err=True)
