"""Indexing at scale: the pipeline beside its stages alone, Ray, a plain loop, and a cluster that is simulated.

Throughputs are of the same pictures by turns in one run. A stage alone has the cores that it has in the pipeline: with
one thread for the encoder and one process that decodes, each has one of two cores, and the pipeline can reach the
slower of them. With two of each they share both cores, and it can reach the harmonic sum.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Float32s
from pocketlens.codes import make_rotation
from pocketlens.decoders import SERVER
from pocketlens.encoder import ImageEncoder, picture_spec
from pocketlens.gallery import Gallery
from pocketlens.graph import PROCESSOR
from pocketlens.model import Model, find_model
from pocketlens_bench.measure import (
    RESULTS,
    Bar,
    Options,
    Progress,
    Report,
    Row,
    alternate,
    at_least,
    cosines,
    median,
    ratio,
    read_report,
    significant,
)
from pocketlens_bench.models import temporary_folder
from pocketlens_bench.scale_pictures import write_folder
from pocketlens_bench.scale_processes import Ran, index_command, loop_command
from pocketlens_bench.scale_processes import run as run_process
from pocketlens_bench.scale_simulation import Assumed, Measured, sizing
from pocketlens_export.gallery.decoders import Decoders, Decoding
from pocketlens_export.gallery.plan import Plan, write_plan
from pocketlens_export.gallery.scan import Loaded
from pocketlens_export.gallery.shard_maker import ShardMaker, Work
from pocketlens_export.gallery.sources.entry import Entry
from pocketlens_export.gallery.sources.expand import Reading, open_sources

MODEL = "lens-base"
_SIZE = (640, 480)
_BATCHES = (1, 4, 16, 64)
_BATCH = 1  # as `pocketlens index` has it on a processor
_FLEETS = (1, 10, 50, 200, 1_000)
_NOTES = [
    "Peaks are resident memory of the process and its children together, so what they share counts more than once.",
    "On a shared machine a stage alone finds a core more easily than two stages find two: the pipeline's ratio is then "
    "below what it would be by itself. 'encoder busy' does not depend on that: 1 is never starved.",
    "Ray's rate is that from when its workers were ready, which takes seconds to a minute, once in a run.",
    "The simulation assumes storage that keeps up, and machines like the one measured.",
]


def run(options: Options, progress: Progress) -> Report:
    """Return files a second and peak memory of indexing, and the ratios to what they are compared with."""
    quick = options.quick
    work = (options.work or temporary_folder()) / "scale"
    shutil.rmtree(work, ignore_errors=True)
    count, rounds, whole_count, whole_rounds = (60, 2, 60, 1) if quick else (300, 5, 3_000, 3)
    progress(f"{count} pictures of {_SIZE[0]} x {_SIZE[1]}")
    folder = write_folder(work / "photos", count, _SIZE)
    stages = [row for cores in (1, 2) for row in _stages(folder, work / f"stages-{cores}", cores, rounds, progress)]
    batches = _batches(folder, 2 if quick else 5, progress)
    whole, notes, more = _whole(write_folder(work / "many", whole_count, _SIZE), work, whole_rounds, progress)
    sizes = {**_sizes(work / "stages-2", count), "bundle": _size(work / "local" / "gallery") / whole_count}
    measured = Measured(float(stages[-1]["files/s"] or 0), _assembled(), sizes)
    bars = [
        at_least("pipeline over the slower stage, a core each", _of(stages, "pipeline, 1 thread + 1 process"), 0.85),
        at_least("Ray over the local engine, files/s while encoding", _of(whole, "pocketlens index --engine ray"), 0.8),
        *more,
    ]
    return Report(
        settings={
            "pictures": count, "size": _SIZE, "rounds": rounds, "model": MODEL,
            "pictures of whole runs": whole_count, "simulation": asdict(Assumed()),
        },
        threads=[1, 2],
        tables={
            "Pipeline": stages,
            "Pictures encoded together": batches,
            "Whole runs": whole,
            "On the disk": [{"what": name, "bytes a picture": significant(each)} for name, each in sizes.items()],
            "100 million pictures, simulated": sizing(10**8, _FLEETS, measured, Assumed()),
        },
        bars=bars,
        notes=notes,
        packages=("numpy", "onnxruntime", "pillow", "torch", "open_clip_torch", "ray"),
    )  # fmt: skip


# The pipeline and its stages


def _stages(folder: Path, work: Path, cores: int, rounds: int, progress: Progress) -> list[Row]:
    """Return files a second of each stage alone and of the pipeline, with as many threads as processes."""
    model = Model.open(find_model(MODEL))
    made = _work_of(folder, work, model, cores)
    with closing(Plan(made.plan)) as plan, Decoders(made.decoding) as decoders, ShardMaker(made) as maker:
        entries = [entry for number in range(plan.shards) for entry in plan.entries(number)]
        encoder = ImageEncoder(model, threads=cores)
        pixels = [loaded.pixels for loaded in _decode(decoders, entries)]
        batches = [np.stack(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH)]
        names = [f"{what}, {_alone(what, cores)}" for what in ("encoder", "decoding", "pipeline")]
        runs: dict[str, Callable[[], object]] = {
            names[0]: lambda: [encoder.encode_pixels(batch) for batch in batches],
            names[1]: lambda: _decode(decoders, entries),
            names[2]: lambda: list(maker.make(range(plan.shards))),
        }
        progress(f"stages with {cores} of each, {rounds} rounds")
        elapsed = alternate(runs, rounds=rounds, warm_up=1)
        busy = maker.busy
    encode, decode = (np.array(elapsed[name]) for name in names[:2])
    slower, shared = np.maximum(encode, decode), encode + decode
    bound = slower if cores == 1 else shared
    return [
        {
            "what": name,
            "files/s": significant(1e3 * len(entries) / median(elapsed[name])),
            "over the slower stage": ratio(slower, elapsed[name]),
            "over what the cores allow": ratio(bound, elapsed[name]) if name == names[2] else None,
            "encoder busy": significant(busy["encoding"], 3) if name == names[2] else None,
        }
        for name in names
    ]


def _alone(what: str, cores: int) -> str:
    threads, processes = ("1 thread", "1 process") if cores == 1 else (f"{cores} threads", f"{cores} processes")
    return {"encoder": threads, "decoding": processes, "pipeline": f"{threads} + {processes}"}[what]


def _work_of(folder: Path, work: Path, model: Model, cores: int) -> Work:
    work.mkdir(parents=True)
    sources = open_sources([folder], Reading(SERVER))
    write_plan(work / "plan", sources, given={}, types={}, shard=200)
    (work / "rotation").write_bytes(make_rotation(model.manifest.space.dim).tobytes())
    (work / "shards").mkdir()
    decoding = Decoding(picture_spec(model), cores)
    return Work(work / "plan", work / "rotation", work / "shards", model.path, decoding, cores, PROCESSOR, _BATCH)


def _decode(decoders: Decoders, entries: Sequence[Any]) -> list[Loaded]:
    following, found = iter(entries), []
    entry = next(following, None)
    while entry is not None or decoders.outstanding:
        while entry is not None and decoders.has_room:
            assert isinstance(entry, Entry)
            decoders.submit(None, entry)
            entry = next(following, None)
        for _, loaded in decoders.wait(1.0):
            assert isinstance(loaded, Loaded)
            found.append(loaded)
    return found


def _batches(folder: Path, rounds: int, progress: Progress) -> list[Row]:
    """Return files a second of the encoder by how many pictures it takes together."""
    model = Model.open(find_model(MODEL))
    encoder = ImageEncoder(model, threads=2)
    pixels = np.stack([encoder.load(path) for path in sorted(folder.iterdir())[:64]])
    progress(f"batches, {rounds} rounds")

    def run(size: int) -> Callable[[], object]:
        return lambda: [encoder.encode_pixels(pixels[start : start + size]) for start in range(0, len(pixels), size)]

    elapsed = alternate({str(size): run(size) for size in _BATCHES}, rounds=rounds, warm_up=1)
    return [
        {
            "together": int(name),
            "files/s": significant(1e3 * len(pixels) / median(times)),
            "time over that of 1": ratio(times, elapsed["1"]),
        }
        for name, times in elapsed.items()
    ]


# Whole runs, in processes of their own


def _assembled() -> float | None:
    """Return pictures a second that assembling takes over, by the script `scale_memory`; None where it has not run."""
    if not (RESULTS / "scale_memory.json").is_file():
        return None
    return float(read_report("scale_memory")["tables"]["Memory"][-1]["assembled/s"])


def _sizes(work: Path, count: int) -> dict[str, float]:
    """Return bytes a picture of a run that is not finished."""
    return {"plan": (work / "plan").stat().st_size / count, "shards": _size(work / "shards") / count}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _whole(folder: Path, work: Path, rounds: int, progress: Progress) -> tuple[list[Row], list[str], list[Bar]]:
    """Return times and peaks of whole runs on the same pictures, notes, and bars on what they gave."""
    model = Model.open(find_model(MODEL))
    spec, count = picture_spec(model), len(list(folder.iterdir()))
    shared = (folder, model.path / spec.file, spec.side, spec.interpolation, spec.mode, 2, 2, work / "loop.npy")
    options = ("--threads", 2, "--decoders", 2, "--shard", 256)
    commands = {
        "pocketlens index": index_command(folder, work / "local", *options),
        "pocketlens index --engine ray": index_command(folder, work / "ray", *options, "--engine", "ray"),
        "open_clip's transform, torch's DataLoader, onnxruntime": loop_command(*shared),
    }
    ran: dict[str, list[Ran]] = {name: [] for name in commands}
    for number in range(rounds):
        progress(f"whole runs, round {number + 1} of {rounds}")
        for name in list(commands) if number % 2 else list(commands)[::-1]:
            ran[name].append(run_process(commands[name]))
    same = _hashes(work / "local") == _hashes(work / "ray")
    least = float(cosines(_vectors(work / "local"), np.load(work / "loop.npy")).mean())
    note = f"The loop's vectors and the bundle's have a mean cosine of {least:.5f}; the loop keeps nothing but vectors."
    bars = [Bar("Ray's bundle is the local engine's, to the byte", "= 1", float(same), same)]
    return _whole_rows(ran, count), [note, *_NOTES], bars


def _whole_rows(ran: dict[str, list[Ran]], count: int) -> list[Row]:
    """Return a row for each way; its rate is that while encoding where it tells, else over all."""
    local, ray, loop = ran.values()
    encoding = [[each.stage_s("encoding") for each in runs] for runs in (local, ray)]
    walls = [[each.seconds for each in runs] for runs in (local, ray, loop)]
    rows: list[Row] = []
    for name, runs, wall in zip(ran, (local, ray, loop), walls, strict=True):
        rows.append(
            {
                "what": name,
                "seconds": median(wall),
                "files/s": significant(count / median(wall)),
                "rate over pocketlens's": ratio(walls[0], wall),
                "rate over pocketlens's while encoding": ratio(*encoding) if runs is ray else None,
                "peak MB": median([each.peak_mb for each in runs]),
            }
        )
    return rows


def _of(rows: Sequence[Row], what: str) -> float:
    (row,) = [row for row in rows if row["what"] == what]
    return float(row.get("over the slower stage") or row.get("rate over pocketlens's while encoding") or 0)


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _vectors(bundle: Path) -> Float32s:
    gallery = Gallery.open(bundle / "gallery")
    vectors = gallery.index.vectors()
    gallery.close()
    return vectors
