"""The next generation of a bundle's gallery: what of its sources is new or changed is encoded, what went is taken away.

A run is that of `indexing`, over fewer entries and with the gallery's own rotation, and goes on as one does.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Float32s
from pocketlens.attributes import RECORDED, Schema, lacking
from pocketlens.bundle import check_space, read_bundle
from pocketlens.decoders import SERVER, with_formats
from pocketlens.errors import BadQuery, EncoderMismatch
from pocketlens.files import check_free, read_arrays, write_file
from pocketlens.gallery import Counts, Gallery, open_manifest
from pocketlens.listing import Skipped
from pocketlens.model import Model
from pocketlens_export.gallery.accounting import Account
from pocketlens_export.gallery.assemble import assemble
from pocketlens_export.gallery.changes import Seen, only_changed
from pocketlens_export.gallery.generation import next_generation
from pocketlens_export.gallery.indexing import make_shards, work_of
from pocketlens_export.gallery.plan import Plan, write_plan
from pocketlens_export.gallery.progress import Heartbeat, Watch
from pocketlens_export.gallery.request import Request, read_attributes, settings_of
from pocketlens_export.gallery.run_folder import RunFolder, has_placed, open_run
from pocketlens_export.gallery.sources.expand import Reading, open_sources
from pocketlens_export.gallery.towers import text_probes

_SEEN = "seen.npz"


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update gave.

    Attributes:
        counts: what became of the entries that are new or changed.
        changed: how many items among them took the place of one.
        unchanged: entries that the gallery had already.
        kept: items that stay though they could not be read or listed.
        gone: items that were taken away.
        generation: that the bundle holds now.
        is_new: whether there was anything to change.
        examples: the first skipped entries of each reason.
        resumed: entries that an earlier run had done.
        busy: what share of the time each stage was busy.
    """

    counts: Counts
    changed: int
    unchanged: int
    kept: int
    gone: int
    generation: int
    is_new: bool
    examples: Mapping[str, Sequence[Skipped]]
    resumed: int = 0
    busy: Mapping[str, float] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """How many entries the sources have."""
        return self.counts.seen + self.unchanged


def model_of(bundle: Path) -> str:
    """Return the name of the model that a bundle's gallery was encoded by.

    Raises:
        FormatError: it is no bundle.
    """
    return open_manifest(bundle / "gallery", manifest_sha256=read_bundle(bundle).gallery).model


def refuse_strange(id: str, count: int) -> None:
    """Raise `BadQuery`: attributes are given for ids that no source lists."""
    raise BadQuery(f"attributes are given for {id!r}, which is not among the pictures")


def update_pictures(
    request: Request, watch: Watch, *, on_strange: Callable[[str, int], None] = refuse_strange
) -> Updated:
    """Bring the bundle `request.out` to the next generation of its gallery.

    A picture is known by its id. One with the same bytes and attributes is left alone; one that cannot be read any more
    stays as it was, and so does all that was in an archive or folder that cannot be; what no source lists goes.

    Raises:
        EncoderMismatch: the gallery was encoded by another model than `request.model`.
        BadQuery: an attribute is not of the gallery's schema; no item would be left.
        FormatError, MissingPart, Busy, NotWritten: as `indexing.index_pictures`; also FormatError: `request.out` is no
            bundle, or a device has changed it.
    """
    limits = with_formats(SERVER, request.formats)
    base = read_bundle(request.out).gallery
    check_free(request.out.resolve(), replace=True)  # what a device added shows before all the work
    sources = open_sources(request.sources, Reading(limits, request.kept, request.image_column))
    with closing(Gallery.open(request.out / "gallery", manifest_sha256=base)) as gallery:
        _check_model(request.model, gallery)
        schema = gallery.manifest.attributes
        types, given = _attributes(request, schema)
        settings = settings_of(request, limits.formats, [source.name for source in sources], types, given, base=base)
        if request.skipped is not None:
            write_file(request.skipped, b"")  # and whether it can be written
        restart = request.restart or has_placed(request.unfinished, request.out)  # nothing is left of that run to do
        with open_run(request.unfinished, settings, restart=restart) as run:
            watch.shows.append(Heartbeat(run.heartbeat))
            write_file(run.rotation, gallery.index.rotation.tobytes())
            watch.begin("listing")
            if not (run.plan.exists() and (run.path / _SEEN).exists()):
                changed, seen = only_changed(sources, request.out / "gallery", gallery, given, limits)
                write_plan(run.plan, changed, given=given, types=types, shard=request.shard, on_listed=watch.reach)
                _write_seen(run.path / _SEEN, seen)
            seen = _read_seen(run.path / _SEEN)
            with closing(Plan(run.plan)) as plan:
                _check_schema(plan.schema, schema)
                _check_strange(plan, given, gallery, seen, on_strange)
                resumed, busy = make_shards(request, work_of(request, settings, run, limits), plan, run, watch)
                updated = _write_generation(request, plan, run, gallery, seen, watch)
            watch.end()
    return replace(updated, resumed=resumed, busy=busy)


def _write_generation(
    request: Request, plan: Plan, run: RunFolder, gallery: Gallery, seen: Seen, watch: Watch
) -> Updated:
    watch.begin("assembling", total=2 * plan.shards)
    gone = np.flatnonzero(~seen.items if gallery.there is None else gallery.there & ~seen.items)
    report = nullcontext() if request.skipped is None else request.skipped.open("w", encoding="utf-8")
    account = Account()
    with (
        report as skipped_to,
        suppress(_Nothing),
        next_generation(request.out, gallery, gone, on_sealed=run.note) as writer,
    ):
        account = assemble(
            run.shards, plan.shards, writer, probes=lambda: _probes(request.out), work=run.path,
            skipped_to=skipped_to, on_shard=watch.reach, on_skipped=writer.skip,
        )  # fmt: skip
        if not account.rows and not len(gone):
            raise _Nothing
        if not account.rows:
            writer.finish([], counts=account.counts())
    is_new = bool(account.rows or len(gone))
    generation = gallery.manifest.generation + is_new
    kept = writer.stays - seen.unchanged
    return Updated(
        account.counts(), writer.changed, seen.unchanged, kept, len(gone), generation, is_new, account.examples
    )


class _Nothing(Exception):
    """There is nothing to change."""


def _probes(bundle: Path) -> Float32s | None:
    return text_probes([("text", Model.open(bundle / "text"))]) if (bundle / "text").is_dir() else None


def _attributes(request: Request, schema: Schema) -> tuple[Schema, dict[str, dict[str, Any]]]:
    """Return the types of all attributes, which are the gallery's, and the values that are given, by id."""
    own = {name: type_ for name, type_ in schema.items() if name not in RECORDED}
    _check_schema(request.types, schema)
    types, given = read_attributes(replace(request, types=own))
    _check_schema(types, schema)
    return types, given


def _check_schema(found: Mapping[str, str], schema: Schema) -> None:
    if strange := sorted(found.keys() - schema.keys()):
        raise BadQuery(f"attribute {strange[0]!r} is given, {lacking(schema)}; a new one needs a new bundle")


def _check_strange(
    plan: Plan, given: Mapping[str, Any], gallery: Gallery, seen: Seen, on_strange: Callable[[str, int], None]
) -> None:
    """Tell of ids that attributes are given for and no source lists."""
    met = {id for id, number in gallery.items.numbers_of(given).items() if seen.items[number]}
    if strange := set(given) - met:
        strange -= set(plan.ids())
    if strange:
        on_strange(min(strange), len(strange))


def _write_seen(path: Path, seen: Seen) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, items=seen.items, unchanged=seen.unchanged)
    write_file(path, buffer.getvalue())


def _read_seen(path: Path) -> Seen:
    arrays = read_arrays(path, ["items", "unchanged"])
    return Seen(arrays["items"], int(arrays["unchanged"]))


def _check_model(model: Model, gallery: Gallery) -> None:
    check_space(model, gallery.manifest.space)
    if model.manifest.name != gallery.manifest.model:
        raise EncoderMismatch(
            f"{model.path}: the model is {model.manifest.name}, but the gallery was encoded by {gallery.manifest.model}"
        )
