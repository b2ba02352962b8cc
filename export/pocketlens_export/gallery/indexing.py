"""Indexing, stage by stage: list the sources, make the shards, assemble the gallery, put the bundle in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace

from pocketlens.bundle import MANIFEST, Tower, add_tower, check_space, seal_bundle
from pocketlens.decoders import SERVER, Limits, with_formats
from pocketlens.encoder import picture_spec
from pocketlens.errors import BadQuery, FormatError
from pocketlens.files import check_free, new_folder, sha256_of, write_file
from pocketlens.gallery import Counts
from pocketlens.gallery_writer import GalleryWriter
from pocketlens.graph import default_threads
from pocketlens.listing import Skipped
from pocketlens.model import Model
from pocketlens_export.gallery.accounting import Account
from pocketlens_export.gallery.assemble import assemble
from pocketlens_export.gallery.decoders import Decoding
from pocketlens_export.gallery.plan import Plan, write_plan
from pocketlens_export.gallery.progress import Heartbeat, Watch
from pocketlens_export.gallery.request import Request, read_attributes, settings_of
from pocketlens_export.gallery.run_folder import RunFolder, Settings, has_placed, open_run
from pocketlens_export.gallery.shard_maker import Work, make_here
from pocketlens_export.gallery.sources.expand import Reading, open_sources
from pocketlens_export.gallery.towers import check_towers, choose_towers, text_probes


@dataclass(frozen=True, slots=True)
class Done:
    """What indexing gave.

    Attributes:
        counts: what became of every entry.
        examples: the first skipped entries of each reason.
        resumed: entries that an earlier run had done.
        busy: what share of the time each stage was busy.
    """

    counts: Counts
    examples: Mapping[str, Sequence[Skipped]]
    resumed: int
    busy: Mapping[str, float]


def refuse_strange(plan: Plan) -> None:
    """Raise `BadQuery`: attributes are given for an id that no entry has."""
    raise BadQuery(f"attributes are given for {plan.strange[0]!r}, which is not among the pictures")


def index_pictures(request: Request, watch: Watch, *, on_strange: Callable[[Plan], None] = refuse_strange) -> Done:
    """Encode every picture of the sources and write a bundle.

    A run that was stopped goes on: it does what is missing, and the bundle is the same to the byte.

    Args:
        request: what, and how.
        watch: follows the run.
        on_strange: called if attributes were given for ids that no entry has.

    Raises:
        FormatError: a source is none or holds no readable picture, `out` exists, or there is an unfinished run with
            other settings.
        EncoderMismatch: `query_model` is of another space.
        BadQuery: a format is unknown, attributes are given for a picture that is not there, or one cannot be one;
            MissingPart: this installation lacks what a source, a format or the device needs.
        Busy: another process is making the same bundle.
        NotWritten: the disk is full or failing.
    """
    limits = with_formats(SERVER, request.formats)
    towers = choose_towers(request.query_model, request.model)
    check_space(request.query_model, request.model.manifest.space)
    if has_placed(request.unfinished, request.out):
        request = replace(request, replace=True)  # by the same bytes
    check_free(request.out, replace=request.replace)
    sources = open_sources(request.sources, Reading(limits, request.kept, request.image_column))
    types, given = read_attributes(request)
    settings = settings_of(request, limits.formats, [source.name for source in sources], types, given)
    check_towers(towers)
    if request.skipped is not None:
        write_file(request.skipped, b"")  # whether it can be written shows before all the work
    with open_run(request.unfinished, settings, restart=request.restart) as run:
        watch.shows.append(Heartbeat(run.heartbeat))
        watch.begin("listing")
        if not run.plan.exists():
            write_plan(run.plan, sources, given=given, types=types, shard=request.shard, on_listed=watch.reach)
        with closing(Plan(run.plan)) as plan:
            if plan.strange[1]:
                on_strange(plan)
            resumed, busy = make_shards(request, work_of(request, settings, run, limits), plan, run, watch)
            account = _write_bundle(request, plan, run, towers, watch)
        watch.end()
    return Done(account.counts(), account.examples, resumed, busy)


def work_of(request: Request, settings: Settings, run: RunFolder, limits: Limits) -> Work:
    """Return what making the shards of a run takes."""
    processes = request.processes or default_threads()
    decoding = Decoding(picture_spec(request.model), processes, limits, request.deadline_s)
    files = (run.plan, run.rotation, run.shards, request.model.path.absolute())
    return Work(*files, decoding, settings.threads, settings.provider, settings.batch)


def make_shards(request: Request, work: Work, plan: Plan, run: RunFolder, watch: Watch) -> tuple[int, dict[str, float]]:
    """Make the shards that are missing; return how many entries were done already, and how busy stages were.

    Raises:
        FormatError: a source is no longer what was listed.
    """
    missing = run.missing(plan)
    resumed = plan.total - sum(map(plan.count_of, missing))
    watch.begin("encoding", done=resumed, total=plan.total)
    if not missing:
        return resumed, {}
    plan.check_listed()
    if request.engine == "ray":
        from pocketlens_export.gallery.ray_engine import make_on_ray

        busy, started_s = make_on_ray(work, missing, watch.step, address=request.address, workers=request.workers)
        watch.took("starting Ray", started_s)
    else:
        busy = make_here(work, missing, watch.step)
    try:
        plan.check_listed()
    except FormatError:  # it changed while shards were made: nobody knows of what
        run.forget(missing)
        raise
    return resumed, busy


def _write_bundle(
    request: Request, plan: Plan, run: RunFolder, towers: Sequence[tuple[Tower, Model]], watch: Watch
) -> Account:
    watch.begin("assembling", total=2 * plan.shards)
    space, name = request.model.manifest.space, request.model.manifest.name
    with new_folder(request.out, replace=request.replace) as folder:
        gallery = folder / "gallery"
        gallery.mkdir()
        report = nullcontext() if request.skipped is None else request.skipped.open("w", encoding="utf-8")
        with (
            report as skipped_to,
            GalleryWriter(
                gallery, space=space, model=name, attributes=plan.schema, rescore=request.rescore,
                threads=request.threads or default_threads(),
            ) as writer,
        ):  # fmt: skip
            account = assemble(
                run.shards, plan.shards, writer, probes=lambda: text_probes(towers), work=run.path,
                skipped_to=skipped_to, on_shard=watch.reach,
            )  # fmt: skip
        if not account.rows:
            run.abandon()
            named = ", ".join(map(str, request.sources))
            raise FormatError(f"{named}: no picture could be read, of {plan.total} files; nothing was written")
        for tower, source in towers:
            add_tower(folder, tower, source)
        seal_bundle(folder)
        run.note(sha256_of(folder / MANIFEST))
    return account
