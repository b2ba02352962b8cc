"""From an architecture, a heavy model and pictures to a query model, all of it in order."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from pocketlens import __version__
from pocketlens.compose.method import Value
from pocketlens.errors import FormatError, MissingPart
from pocketlens.files import new_folder, sha256_of, write_file
from pocketlens.inspect import verify
from pocketlens.model import GOLDEN, MANIFEST, Features, Model, ModelManifest, Source
from pocketlens.picture import preprocess
from pocketlens_export import golden
from pocketlens_export.architecture import Architecture
from pocketlens_export.clip import Clip
from pocketlens_export.distill.drawing import Look
from pocketlens_export.distill.learning import Learning, Student
from pocketlens_export.distill.quality import Unseen, measure
from pocketlens_export.distill.recipes import Distillation
from pocketlens_export.distill.reinforced import Plan, ReinforcedSet, reinforce, set_size_bytes
from pocketlens_export.distill.report import Distilled, write_report
from pocketlens_export.distill.same import Others, read_same
from pocketlens_export.distill.student import build_clip, checkpoint_bytes
from pocketlens_export.embeddings import Embeddings, Progress, encode_pictures
from pocketlens_export.fit.seal import seal
from pocketlens_export.fit.training import Curve, Report, Schedule, checkpoint_path, schedule_of, train
from pocketlens_export.folder import Draft, export_image, picture_spec
from pocketlens_export.samples import sample_pictures
from pocketlens_export.space import space_id
from pocketlens_export.split import Split, split_rows

MIN_PICTURES = 64
MAX_TEST = 2_000  # test pictures that queries are made of, at most
_SAMPLES = 60  # generated pictures that parity is measured on, as in `pocketlens export`
_PACKAGES = ("pocketlens", "torch", "open_clip_torch", "timm", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Request:
    """What to distil.

    Attributes:
        light: the architecture of the query model's image tower.
        start: a checkpoint that its weights begin with; None: seeded ones.
        heavy: an opened model folder whose space is the target.
        pictures: folders of pictures.
        same: a table of pictures that show the same thing; None: every picture is a thing of its own.
        chosen, values: the loss, with a value for every parameter of its recipe.
        views, flip: of a picture, itself included; whether every other one is mirrored.
        steps, epochs: of the training, at most one of them given; None: the recipe's steps.
        batch, seed: of the training.
        name, licence: of the query model; None: "<light>-in-<heavy>", and the heavy model's.
        checkpoint: file to write the trained weights to, for another run to start from; None: they are not kept.
        threads: of torch and onnxruntime; None: their own choice.
        cache: folder of vectors, views and checkpoints.
        fresh: whether to leave an earlier checkpoint of this very training aside.
    """

    light: Architecture
    start: Path | None
    heavy: Model
    pictures: tuple[Path, ...]
    same: Path | None
    chosen: Distillation
    values: dict[str, Value]
    views: int
    flip: bool
    steps: int | None
    epochs: int | None
    batch: int
    seed: int
    name: str | None
    licence: str | None
    checkpoint: Path | None
    threads: int | None
    cache: Path
    fresh: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    pictures: Embeddings
    split: Split
    views: ReinforcedSet
    others: Others | None


def distill_model(
    request: Request, out: Path, *, replace: bool, progress: Progress, report: Report, say: Callable[[str], None]
) -> ModelManifest:
    """Write a query model, an image tower in the heavy model's space, and return its manifest.

    Args:
        request: what to distil.
        out: the folder to write; it appears complete or not at all.
        replace: allow `out` to exist.
        progress: told of what takes long before the training.
        report: told of the training's steps.
        say: told what the user should know.

    Raises:
        MissingPart: the heavy model has no image tower.
        EncoderMismatch: the light tower's head gives other dimensions.
        FormatError: there are too few pictures, a file is not what it should be, or `out` exists.
        Refused: the light tower is not timm's or cannot be run, the disk is full, the loss is no number any more, or
            the exported graph does not agree with torch.
    """
    import matplotlib  # noqa: F401  # drawn with at the very end: it should be missed before the training

    heavy = request.heavy.manifest
    if heavy.image is None:
        raise MissingPart(f"{request.heavy.path}: the heavy model {heavy.name} has no image tower, expected one")
    with new_folder(out, replace=replace) as folder:
        if request.threads is not None:
            torch.set_num_threads(request.threads)
        clip = build_clip(request.light, dim=heavy.space.dim, seed=request.seed, start=request.start)
        data = _prepare(request, progress, say)
        curve, schedule, path = _train(request, clip, data, report)
        manifest = _write(request, folder, clip, data, (curve, schedule), progress, say)
        verify(folder)
    path.unlink(missing_ok=True)
    return manifest


def _prepare(request: Request, progress: Progress, say: Callable[[str], None]) -> _Data:
    """Return the pictures, parted, with their views."""
    pictures = encode_pictures(
        request.heavy, request.pictures, cache=request.cache, progress=progress, threads=request.threads
    )
    count = len(pictures.paths)
    if count < MIN_PICTURES:
        named = ", ".join(map(str, request.pictures))
        raise FormatError(f"{named}: {count} different pictures that can be read, expected at least {MIN_PICTURES}")
    spec, values = picture_spec(request.light), request.values
    look = Look(float(values["crop"]), request.flip, float(values["jitter"]), float(values["background"]))
    plan = Plan(request.views, look, request.seed)
    size = set_size_bytes(count, plan, spec, request.heavy.manifest.space.dim)
    say(f"{count} pictures, {request.views} views of each: {size / 1e9:.2f} GB below {request.cache}")
    views = reinforce(
        pictures, request.heavy, spec, plan, cache=request.cache, progress=progress, threads=request.threads
    )
    split, others = split_rows(pictures.sha256), None
    if request.same is not None:
        others = read_same(request.same, pictures, split.train, pull=float(values["pull"]))
        say(f"{others.count} pictures have others of the same thing")
    return _Data(pictures, split, views, others)


def _train(request: Request, clip: Clip, data: _Data, report: Report) -> tuple[Curve, Schedule, Path]:
    """Train the tower in place; return the curve, what it was trained by, and the checkpoint's path."""
    recipe = request.chosen.recipe
    batch = min(request.batch, len(data.split.train))
    epoch = len(data.split.train) // batch
    steps = request.steps or (request.epochs * epoch if request.epochs else recipe.steps)
    schedule = schedule_of(recipe, request.values, steps=steps, batch=batch, seed=request.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = Student(clip.model.visual, clip.preprocessing).to(device)
    path = checkpoint_path(_asked(request, data, schedule, device), request.cache, fresh=request.fresh)
    task = Learning(student, data.views, data.split, request.chosen, request.values, batch=batch, others=data.others)
    curve = train(task, schedule, path, report=report)
    student.cpu().eval().to(memory_format=torch.contiguous_format)
    return curve, schedule, path


def _asked(request: Request, data: _Data, schedule: Schedule, device: torch.device) -> dict[str, object]:
    """Return all that the trained weights depend on."""
    return {
        "light": [request.light.model_cfg["vision_cfg"], dataclasses.asdict(request.light.preprocessing)],
        "start": sha256_of(request.start) if request.start else None,
        "views": data.views.sha256,
        "same": data.others.sha256 if data.others else None,
        "recipe": request.chosen.recipe.name,
        "values": request.values,
        "steps": schedule.steps,
        "batch": schedule.batch,
        "seed": schedule.seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "versions": [__version__, torch.__version__, version("timm")],
    }


def _write(
    request: Request,
    folder: Path,
    clip: Clip,
    data: _Data,
    trained: tuple[Curve, Schedule],
    progress: Progress,
    say: Callable[[str], None],
) -> ModelManifest:
    weights = checkpoint_bytes(clip.model.visual)
    manifest = _export(request, folder, clip, weights, say)
    seal(folder, manifest)
    test = data.split.test[:MAX_TEST]
    pictures = Unseen(
        tuple(data.pictures.paths[row] for row in test),
        tuple(data.pictures.sha256[row] for row in test),
        data.pictures.vectors[test],
    )
    quality = measure(
        Model.open(folder), request.heavy, pictures,
        seed=request.seed, cache=request.cache, progress=progress, threads=request.threads,
    )  # fmt: skip
    (folder / MANIFEST).unlink()
    write_report(folder, _told(request, data, trained, quality))
    if request.checkpoint is not None:
        write_file(request.checkpoint, weights)
    return seal(folder, dataclasses.replace(manifest, quality=manifest.quality | quality))


def _export(request: Request, folder: Path, clip: Clip, weights: bytes, say: Callable[[str], None]) -> ModelManifest:
    """Write the image tower, proven as `pocketlens export` does; return the manifest without its files."""
    heavy, spec = request.heavy.manifest, picture_spec(request.light)
    pixels = np.stack([preprocess(picture, spec) for picture in sample_pictures(_SAMPLES)])
    draft = Draft(folder, say)
    export_image(clip, spec, pixels, None, draft)
    golden.write_golden(folder / GOLDEN, draft.arrays)
    name = request.name or f"{request.light.name}-in-{heavy.name}"
    own = space_id(name, clip.model.visual, clip.preprocessing)
    features = None if draft.features is None else Features(own, *draft.features)
    return ModelManifest(
        name=name,
        licence=request.licence or f"distilled from {heavy.name}: {heavy.licence}",
        source=Source(request.light.name, f"sha256:{hashlib.sha256(weights).hexdigest()}"),
        space=heavy.space,
        text=None,
        image=dataclasses.replace(spec, features=features),
        inversion={},
        concepts=None,
        quality=draft.quality,
        quantization=None,
        made_with={name: version(name) for name in _PACKAGES},
        files={},
    )


def _told(request: Request, data: _Data, trained: tuple[Curve, Schedule], quality: dict[str, float]) -> Distilled:
    curve, schedule = trained
    digest = hashlib.sha256("".join(sorted(data.pictures.sha256)).encode()).hexdigest()
    parts = {"training": data.split.train, "validation": data.split.validation, "test": data.split.test}
    counts = {name: len(rows) for name, rows in parts.items()}
    counts |= {"duplicates left out": data.pictures.duplicates, "skipped": sum(data.pictures.skipped.values())}
    hashes = {"pictures": digest, "views and vectors": data.views.sha256}
    if data.others is not None:
        hashes["pictures of the same thing"] = data.others.sha256
        counts["with others of the same thing"] = data.others.count
    return Distilled(
        light=request.light.name,
        heavy=request.heavy.manifest.name,
        side=request.light.preprocessing.side,
        recipe=request.chosen.recipe,
        values=request.values,
        schedule=schedule,
        started=f"sha256 {sha256_of(request.start)}" if request.start else "seeded weights",
        views=request.views,
        flip=request.flip,
        data=hashes,
        counts=counts,
        curve=curve,
        quality=quality,
    )
