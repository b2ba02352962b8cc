"""The commands `pocketlens add`, `remove`, `compact` and `apply`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketlens.errors import FormatError
from pocketlens.progress import show_progress
from pocketlens.show import printable

if TYPE_CHECKING:  # printing --help loads no arrays
    from pocketlens.additions import Added
    from pocketlens.listing import Skipped

_SHOWN = 5
_PATH = click.Path(path_type=Path)


@click.command(short_help="Add pictures to a bundle, on this device.")
@click.argument("bundle", type=_PATH)
@click.argument("pictures", type=_PATH, nargs=-1, required=True)
@click.option("--root", type=_PATH, help="The folder that ids start from.")
@click.option("--model", help="Encode with this model of the gallery's space: a folder or a shipped name.")
@click.option("--formats", metavar="LIST", help="Read these too, by commas: gif, bmp, tiff, avif, heic.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; by default the cores, at most 4.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def add(
    bundle: Path,
    pictures: tuple[Path, ...],
    root: Path | None,
    model: str | None,
    formats: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Add PICTURES, files and folders, to BUNDLE; searches see them at once, those of other processes too.

    \b
      pocketlens add my-bundle ~/Pictures
      pocketlens add my-bundle ~/Pictures/2024/lake.jpg --root ~/Pictures

    An id is the path below the folder that is given, as with pocketlens index, and for a single file its name; --root
    tells where ids start instead. A file that is there already, with the same id and bytes, is left alone; one whose
    bytes changed is replaced. What was added is kept in BUNDLE/local.sqlite, 16 pictures at a time: whatever happens
    then, they are safe. The shipped gallery itself stays as it is until pocketlens compact.
    """  # noqa: D301  # click takes the escape itself
    from pocketlens.decoders import DEVICE, with_formats
    from pocketlens.lens import open_lens
    from pocketlens.listing import find_pictures
    from pocketlens.model import Model, find_model

    more = [name.strip() for name in formats.split(",")] if formats else []
    named, skipped = find_pictures(pictures, root=root, limits=with_formats(DEVICE, more))
    with open_lens(bundle, threads=threads, formats=more) as lens, show_progress("adding", counted=True) as on_progress:
        image_model = None if model is None else Model.open(find_model(model))
        result = lens.add(named, image_model=image_model, on_progress=on_progress)
    skipped += _skipped(result)
    _warn(skipped)
    if skipped and len(result.skipped) == len(named):
        raise FormatError(f"no picture could be read, of {len(skipped)} files; nothing was added")
    if as_json:
        click.echo(json.dumps(_values(result, skipped), indent=2))
        return
    outcomes = f"{len(result.added)} added, {len(result.replaced)} replaced, {len(result.unchanged)} unchanged"
    reasons = "".join(f", {count} {reason}" for reason, count in _by_reason(skipped).items())
    click.echo(f"{bundle}: {outcomes}{reasons}")


@click.command(short_help="Remove pictures from a bundle, on this device.")
@click.argument("bundle", type=_PATH)
@click.argument("ids", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def remove(bundle: Path, ids: tuple[str, ...], as_json: bool) -> None:
    """Remove the pictures with these IDS, as search prints them, from BUNDLE: all of them, or none.

    Searches see it at once. The files of the pictures are not touched, and the room that the shipped gallery takes is
    free after pocketlens compact.
    """
    from pocketlens.additions import remove_items
    from pocketlens.collection import Collection

    collection = Collection(bundle)
    try:
        remove_items(collection, ids)
        items = collection.now().count
    finally:
        collection.close()
    removed = list(dict.fromkeys(ids))
    if as_json:
        click.echo(json.dumps({"removed": removed, "items": items}, indent=2))
    else:
        click.echo(f"{bundle}: {len(removed)} removed, {items} pictures left")


@click.command(short_help="Make one gallery of what was shipped, added and removed.")
@click.argument("bundle", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compact(bundle: Path, as_json: bool) -> None:
    """Make a new gallery of all that BUNDLE contains now, with new statistics, in the place of the old one.

    Ranks stay the same; z takes the added pictures into account, and many additions open and search faster. It needs
    room for a second bundle. Updates of the old gallery do not fit the new one. A crash leaves the old bundle or the
    new one, and who has it open meanwhile finds the new one at the next search.
    """
    from pocketlens.collection import Collection
    from pocketlens.compact import compact as compact_collection

    collection = Collection(bundle)
    try:
        with show_progress("compacting") as on_progress:
            done = compact_collection(collection, on_progress=on_progress)
    finally:
        collection.close()
    values = {"items": done.items, "added": done.added, "gone": done.gone, "generation": done.generation}
    values |= {"before": done.before}
    if as_json:
        click.echo(json.dumps(values, indent=2))
    elif done.added or done.gone:
        click.echo(
            f"{bundle}: {done.items} pictures in generation {done.generation}; {done.added} were added, {done.gone} "
            "removed or replaced"
        )
    elif done.before != done.generation:
        click.echo(
            f"{bundle}: {done.items} pictures in generation {done.generation}, which joins the updates before it; "
            "devices with an earlier one need the whole bundle"
        )
    else:
        click.echo(f"{bundle}: nothing was added or removed since generation {done.generation}; it stays as it is")


@click.command(short_help="Bring the shipped gallery to a later generation.")
@click.argument("bundle", type=_PATH)
@click.argument("update", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def apply(bundle: Path, update: Path, as_json: bool) -> None:
    """Bring BUNDLE's gallery to the generation that the file UPDATE leads to, as pocketlens pack --since wrote it.

    What this device added and removed stays. A crash leaves the old bundle or the new one, and who has it open
    meanwhile finds the new one at the next search. Applied again, a file changes nothing; one that leads on from
    another generation than BUNDLE holds is refused.
    """
    from pocketlens.apply import apply as apply_update
    from pocketlens.collection import Collection

    collection = Collection(bundle)
    try:
        with show_progress("applying") as on_progress:
            done = apply_update(collection, update, on_progress=on_progress)
    finally:
        collection.close()
    if as_json:
        values = {"before": done.before, "generation": done.generation, "items": done.items}
        click.echo(json.dumps(values, indent=2))
    elif done.before == done.generation:
        click.echo(f"{bundle}: holds generation {done.generation} already; it stays as it is")
    else:
        click.echo(f"{bundle}: generation {done.before} became {done.generation}, with {done.items} pictures")


def _skipped(result: Added) -> list[Skipped]:
    from pocketlens.listing import Skipped

    reasons = {"format": "unsupported format"}
    return [Skipped(id, reasons.get(error.reason, error.reason), error.detail) for id, error in result.skipped.items()]


def _by_reason(skipped: Sequence[Skipped]) -> dict[str, int]:
    return dict(sorted(Counter(entry.reason for entry in skipped).items()))


def _values(result: Added, skipped: Sequence[Skipped]) -> dict[str, Any]:
    told = [entry for entry in skipped if entry.reason != "not a picture"]
    return {
        "counts": {
            "added": len(result.added),
            "replaced": len(result.replaced),
            "unchanged": len(result.unchanged),
            "skipped": _by_reason(skipped),
        },
        "added": result.added,
        "replaced": result.replaced,
        "skipped": [{"id": entry.id, "reason": entry.reason, "detail": entry.detail} for entry in told],
    }


def _warn(skipped: Sequence[Skipped]) -> None:
    """Name the first skipped files of each kind on stderr; files that are no pictures are only counted."""
    for reason in sorted({entry.reason for entry in skipped} - {"not a picture"}):
        told = [entry for entry in skipped if entry.reason == reason]
        for entry in told[:_SHOWN]:
            click.echo(printable(f"skipped {entry.id}: {entry.reason}: {entry.detail}"), err=True)
        if len(told) > _SHOWN:
            click.echo(f"… and {len(told) - _SHOWN} more: {reason}", err=True)
