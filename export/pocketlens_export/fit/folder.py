"""From a model folder and data to a model folder with an inversion network, all of it in order."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from pocketlens import __version__
from pocketlens._types import Float32s
from pocketlens.compose.method import Value
from pocketlens.errors import EncoderMismatch, FormatError, MissingPart
from pocketlens.files import new_folder, sha256_of, write_file
from pocketlens.inspect import verify
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, MANIFEST, VERSION, FileRecord, Inversion, Model, ModelManifest
from pocketlens.text import Tokenizer
from pocketlens_export.fit.data import Data, Progress, read_data
from pocketlens_export.fit.network_graph import PRECISION, write_network
from pocketlens_export.fit.prompts import Prompts
from pocketlens_export.fit.quality import check_stored, measure_network
from pocketlens_export.fit.recipe import Memory, Recipe, Setup
from pocketlens_export.fit.report import Trained, write_report
from pocketlens_export.fit.tower import TextTower
from pocketlens_export.fit.training import Curve, Schedule, train

INVERSION = "inversion"


@dataclass(frozen=True, slots=True)
class Request:
    """What to fit.

    Attributes:
        model: an opened model folder with a float text tower and a tokenizer.
        into: the folder that a copy of gets the network: `model`, or another one of its space.
        recipe, values: how to train, with a value for every parameter.
        data: files and folders.
        steps, batch, seed: of the training.
        threads: of torch and onnxruntime; None: their own choice.
        cache: folder of checkpoints.
        fresh: whether to leave an earlier checkpoint aside.
    """

    model: Model
    into: Model
    recipe: Recipe
    values: Mapping[str, Value]
    data: tuple[Path, ...]
    steps: int
    batch: int
    seed: int
    threads: int | None
    cache: Path
    fresh: bool


def fit_inversion(
    request: Request, out: Path, *, replace: bool, progress: Progress, report: Callable[[int, int, float], None]
) -> ModelManifest:
    """Write a copy of `request.into` with the network, its report and its figures, and return its manifest.

    Raises:
        FormatError: a file is not what it should be, `out` exists, or the text tower is not a float one.
        MissingPart: the model has no text tower or no tokenizer, or the data lack what the recipe needs.
        EncoderMismatch: `into` or a gallery is of another space.
        Refused: the tower in torch, or the stored network, is not what it should be.
    """
    import matplotlib  # noqa: F401  # drawn with at the very end: it should be missed before the training

    _check(request)
    with new_folder(out, replace=replace) as folder:
        if request.threads is not None:
            torch.set_num_threads(request.threads)
        setup, data = _prepare(request, progress)
        task = request.recipe.prepare(setup)
        curve = train(task, _schedule(request), _checkpoint(request, data), report=report)
        manifest = _write(request, folder, setup, task.network, curve)
        verify(folder)
    return manifest


def _check(request: Request) -> None:
    model, into = request.model.manifest, request.into.manifest
    if not model.can_read:
        raise MissingPart(f"{request.model.path}: a text tower with a tokenizer is needed, model {model.name} has none")
    if into.space != model.space:
        raise EncoderMismatch(
            f"{request.into.path} is of space {into.space.id}, expected that of {request.model.path}, {model.space.id}"
        )
    assert model.text is not None
    if into.text is None or into.text.token_dim != model.text.token_dim:
        found = "no text tower" if into.text is None else f"tokens of {into.text.token_dim}"
        raise FormatError(f"{request.into.path} has {found}, expected a text tower of {model.text.token_dim}")


def _prepare(request: Request, progress: Progress) -> tuple[Setup, Data]:
    model, recipe = request.model, request.recipe
    spec = model.manifest.text
    assert spec is not None and spec.tokenizer is not None
    tower = TextTower(model, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    tower.prove()
    data = read_data(request.data, model, progress=progress, threads=request.threads)
    for kind, rows in (("texts", data.texts), ("pictures", data.pictures)):
        if kind in recipe.needs and len(rows) == 0:
            raise MissingPart(f"{recipe.name} learns from {kind}, and no --data has any")
    tokens = request.values["tokens"]
    assert isinstance(tokens, int)
    prompts = Prompts(tower, Tokenizer(model.file(spec.tokenizer), spec), tokens=tokens)
    memory = _memory(_cache_folder(request, data))
    dim = model.manifest.space.dim
    return Setup(prompts, data, dim, spec.token_dim, request.values, request.seed, progress, memory), data


def _schedule(request: Request) -> Schedule:
    rate, decay = request.values["rate"], request.values["decay"]
    chosen: Literal["constant", "cosine"] = "cosine" if decay == "cosine" else "constant"
    return Schedule(
        steps=request.steps,
        batch=request.batch,
        seed=request.seed,
        rate=float(rate),
        warm_up=request.recipe.warm_up,
        decay=chosen,
        optimiser=request.recipe.optimiser,
        bfloat16=request.values["precision"] == "bfloat16",
    )


def _cache_folder(request: Request, data: Data) -> Path:
    """Return the folder of this very training: all that its result depends on is in the name."""
    spec = request.model.manifest.text
    assert spec is not None
    asked = {
        "tower": request.model.manifest.files[spec.file].sha256,
        "space": request.model.manifest.space.id,
        "recipe": request.recipe.name,
        "values": dict(request.values),
        "data": data.sha256,
        "steps": request.steps,
        "batch": request.batch,
        "seed": request.seed,
        "versions": [__version__, torch.__version__],
    }
    folder = request.cache / hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _checkpoint(request: Request, data: Data) -> Path:
    path = _cache_folder(request, data) / "checkpoint.pt"
    if request.fresh:
        path.unlink(missing_ok=True)
    return path


def _memory(folder: Path) -> Memory:
    def remember(name: str, make: Callable[[], Float32s]) -> Float32s:
        path = folder / f"{name}.npy"
        if path.is_file():
            try:
                found: Float32s = np.load(path, allow_pickle=False)
            except (ValueError, OSError, EOFError):  # not a whole file: it is made again
                path.unlink()
            else:
                return found
        made = make()
        buffer = io.BytesIO()
        np.save(buffer, made)
        write_file(path, buffer.getvalue())
        return made

    return remember


def _write(request: Request, folder: Path, setup: Setup, network: torch.nn.Module, curve: Curve) -> ModelManifest:
    from pocketlens_export.fit.networks import Network

    assert isinstance(network, Network)
    recipe, source = request.recipe, request.into
    copy_files(source, folder)
    name = f"{INVERSION}/{recipe.name}.onnx"
    (folder / INVERSION).mkdir(exist_ok=True)
    write_network(network, folder / name)
    quality = {
        "held_out_loss": curve.held_out[-1][1],
        **measure_network(setup, network),
        "stored_min_cosine": check_stored(setup, network, folder / name),
    }
    made = Inversion(name, PRECISION, network.tokens, request.seed, request.steps, setup.data.sha256)
    data = setup.data
    counts = {
        "texts": len(data.texts), "held-out texts": len(data.held_texts),
        "pictures": len(data.pictures), "held-out pictures": len(data.held_pictures),
    }  # fmt: skip
    trained = Trained(request.model.manifest.name, recipe, request.values, request.batch, made, counts, curve, quality)
    write_report(folder / INVERSION, trained)
    prefix = f"inversion_{recipe.name}_"
    kept = {key: value for key, value in source.manifest.quality.items() if not key.startswith(prefix)}
    return seal(folder, dataclasses.replace(
        source.manifest,
        inversion={**source.manifest.inversion, recipe.name: made},
        quality=kept | {f"{prefix}{key}": value for key, value in quality.items()},
        made_with=source.manifest.made_with | {"torch": version("torch"), "onnx": version("onnx")},
    ))  # fmt: skip


def copy_files(source: Model, folder: Path) -> None:
    """Copy every file of a model folder but its manifest, each after a check of its hash."""
    for name in source.manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.file(name).read_bytes())


def seal(folder: Path, manifest: ModelManifest) -> ModelManifest:
    """Write a manifest that records every file of the folder, and return it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in names}
    manifest = dataclasses.replace(manifest, files=files)
    write_manifest(folder / MANIFEST, manifest, format=FORMAT, version=VERSION)
    return manifest
