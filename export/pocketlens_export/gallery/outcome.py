"""What `pocketlens index` says of a run when it has ended: what was skipped, how much there is, how long it took."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from pocketlens.errors import FormatError
from pocketlens.gallery import Counts
from pocketlens.listing import Skipped
from pocketlens.show import printable
from pocketlens_export.gallery.accounting import lost_of, too_many_lost
from pocketlens_export.gallery.indexing import Done
from pocketlens_export.gallery.plan import Plan
from pocketlens_export.gallery.progress import Watch, duration, shares_of
from pocketlens_export.gallery.request import Request
from pocketlens_export.gallery.updating import Updated

_SHOWN = 5
_LONG_S = 10.0  # from which on a run is summed up


def tell(request: Request, done: Done, watch: Watch, took_s: float, *, as_json: bool) -> None:
    """Say what became of every entry of a run that made a bundle."""
    counts = done.counts
    _warn(done.examples, counts, as_json=as_json)
    if not any(source.manifest.can_read for source in (request.query_model, request.model)):
        _note(f"{request.out} will refuse texts: its model has no text tower, or no tokenizer for it", as_json=as_json)
    _sum_up(done, watch, took_s, as_json=as_json)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(counts)))
        return
    reasons = "".join(f", {count} {reason}" for reason, count in counts.skipped.items())
    click.echo(
        f"{request.out}: {counts.indexed} pictures indexed, {counts.duplicates} duplicates{reasons}; "
        f"{counts.seen} files seen"
    )


def tell_update(request: Request, done: Updated, watch: Watch, took_s: float, *, as_json: bool) -> None:
    """Say what a run made of a bundle's next generation."""
    counts = done.counts
    _warn(done.examples, counts, as_json=as_json)
    new = counts.indexed + counts.duplicates - done.changed
    values = {"generation": done.generation, "new": new, "changed": done.changed, "gone": done.gone,
              "unchanged": done.unchanged, "kept": done.kept, "skipped": counts.skipped, "seen": done.seen}  # fmt: skip
    reasons = f", {done.kept} could not be read and stay as they were" if done.kept else ""
    reasons += "".join(f", {count} {reason}" for reason, count in counts.skipped.items())
    _sum_up(done, watch, took_s, as_json=as_json)
    if as_json:
        click.echo(json.dumps(values))
        return
    what = f"nothing changed since generation {done.generation}"
    if done.is_new:
        outcomes = f"{new} new, {done.changed} changed, {done.gone} gone, {done.unchanged} unchanged"
        what = f"generation {done.generation}: {outcomes}"
    end = "" if done.is_new else ", it stays as it is"
    click.echo(f"{request.out}: {what}{reasons}; {done.seen} files seen{end}")


def _sum_up(done: Done | Updated, watch: Watch, took_s: float, *, as_json: bool) -> None:
    """Say how long the stages of a run took: for machines always, for people after a long one."""
    if as_json:
        seconds = {name: round(value, 1) for name, value in watch.seconds.items()}
        busy = {name: round(value, 3) for name, value in done.busy.items()}
        click.echo(
            json.dumps({"event": "summary", "resumed": done.resumed, "seconds": seconds, "busy": busy}), err=True
        )
    elif took_s > _LONG_S:
        _summarize(done, watch, took_s)


def _summarize(done: Done | Updated, watch: Watch, took_s: float) -> None:
    """Say how long a run took, and which stage it waited for."""
    stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in watch.seconds.items())
    fresh = done.counts.seen - done.resumed
    rate = fresh / watch.seconds["encoding"] if watch.seconds.get("encoding") else 0.0
    click.echo(f"took {duration(took_s)} ({stages}), {rate:,.0f} files/s; the busiest stage is the slowest:", err=True)
    for line in shares_of(done.busy):
        click.echo(line, err=True)
    if done.resumed:
        click.echo(f"  {done.resumed:,} files had been done by an earlier run", err=True)


def check_lost(
    request: Request, counts: Counts, max_skipped: float | None, *, unchanged: int = 0, kept: int = 0
) -> None:
    """Exit with 1 if more than `max_skipped` per cent of the pictures were skipped."""
    share = None if max_skipped is None else max_skipped / 100
    if not too_many_lost(counts, share, unchanged=unchanged):
        return
    lost, of = lost_of(counts, unchanged=unchanged)
    most = 1.0 if max_skipped is None else max_skipped
    stay = f"; {kept:,} that could not be read stay as they were" if kept else ""
    click.echo(
        f"pocketlens: {lost:,} of {of:,} pictures ({lost / max(of, 1):.1%}) were skipped, expected at most {most:g} % "
        f"(--max-skipped); {request.out} was written without them{stay}",
        err=True,
    )
    sys.exit(1)


def tell_strange(plan: Plan, table: Path | None, *, as_json: bool) -> None:
    """Tell of a table's ids that no picture has; raises `FormatError` where none of them is one."""
    strange, count = plan.strange
    if not plan.matched:
        first = plan.first_id()
        example = "" if first is None else f", such as {first!r}"
        raise FormatError(
            f"{table}: no id is one of the {plan.total} files, found {strange!r}; expected paths below the folder"
            f"{example}"
        )
    tell_left_out(table, strange, count, as_json=as_json)


def tell_left_out(table: Path | None, strange: str, count: int, *, as_json: bool) -> None:
    """Tell of a table's ids that no picture has."""
    _note(f"{table}: {count} ids are no files and were left out, such as {printable(strange)}", as_json=as_json)


def _note(text: str, *, as_json: bool) -> None:
    click.echo(json.dumps({"event": "note", "text": text}) if as_json else text, err=True)


def _warn(examples: Mapping[str, Sequence[Skipped]], counts: Counts, *, as_json: bool) -> None:
    """Name the first skipped files of each kind on stderr; files that are no pictures are only counted."""
    for reason in sorted(examples.keys() - {"not a picture"}):
        for entry in examples[reason][:_SHOWN]:
            event = json.dumps({"event": "skipped", **dataclasses.asdict(entry)}) if as_json else ""
            click.echo(event or printable(f"skipped {entry.id}: {entry.reason}: {entry.detail}"), err=True)
        if counts.skipped[reason] > _SHOWN and not as_json:
            click.echo(f"… and {counts.skipped[reason] - _SHOWN} more: {reason}", err=True)
