"""From a model folder and data to a model folder with an inversion network, all of it in order."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pocketlens import __version__
from pocketlens.compose.method import Value
from pocketlens.errors import EncoderMismatch, FormatError, MissingPart
from pocketlens.files import new_folder
from pocketlens.inspect import verify
from pocketlens.model import Inversion, Model, ModelManifest
from pocketlens.text import Tokenizer
from pocketlens_export.fit.data import Progress, read_data
from pocketlens_export.fit.keywords import resolve_tagger
from pocketlens_export.fit.memory import remember_in
from pocketlens_export.fit.network_graph import PRECISION, write_network
from pocketlens_export.fit.networks import Network
from pocketlens_export.fit.prompts import Prompts
from pocketlens_export.fit.quality import check_stored, measure_network
from pocketlens_export.fit.recipe import Recipe, Setup
from pocketlens_export.fit.recipes import TASKS
from pocketlens_export.fit.report import Trained, write_report
from pocketlens_export.fit.seal import copy_files, seal_inversion
from pocketlens_export.fit.tower import TextTower
from pocketlens_export.fit.training import Curve, Report, checkpoint_path, schedule_of, train

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
        cache: folder of checkpoints and of arrays that take long to make.
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


def fit_inversion(request: Request, out: Path, *, replace: bool, progress: Progress, report: Report) -> ModelManifest:
    """Write a copy of `request.into` with the network, its report and its figures, and return its manifest.

    Raises:
        FormatError: a file is not what it should be, `out` exists, or the text tower is not a float one.
        MissingPart: the model has no text tower or no tokenizer, or the data lack what the recipe needs.
        EncoderMismatch: `into` or a gallery is of another space.
        Refused: the tower in torch, or the stored network, is not what it should be.
    """
    import matplotlib  # noqa: F401  # drawn with at the very end: it should be missed before the training

    _check(request)
    request = _resolved(request)
    with new_folder(out, replace=replace) as folder:
        if request.threads is not None:
            torch.set_num_threads(request.threads)
        setup = _prepare(request, progress)
        task = TASKS[request.recipe.name](setup)
        checkpoint = _checkpoint(request, setup)
        schedule = schedule_of(
            request.recipe, request.values, steps=request.steps, batch=request.batch, seed=request.seed
        )
        curve = train(task, schedule, checkpoint, report=report)
        manifest = _write(request, folder, setup, task.network, curve)
        verify(folder)
    checkpoint.unlink(missing_ok=True)
    return manifest


def _check(request: Request) -> None:
    model = request.model.manifest
    if not model.can_read:
        raise MissingPart(f"{request.model.path}: a text tower with a tokenizer is needed, model {model.name} has none")
    check_into(request.into, request.model)


def check_into(into: Model, model: Model) -> None:
    """Raise unless a folder can take a network that was trained through the text tower of `model`.

    Raises:
        EncoderMismatch: it is of another space.
        FormatError: it has no text tower, or one of another width.
    """
    taker, text = into.manifest, model.manifest.text
    assert text is not None
    if taker.space != model.manifest.space:
        raise EncoderMismatch(
            f"{into.path} is of space {taker.space.id}, expected that of {model.path}, {model.manifest.space.id}"
        )
    if taker.text is None or taker.text.token_dim != text.token_dim:
        found = "no text tower" if taker.text is None else f"tokens of {taker.text.token_dim}"
        raise FormatError(f"{into.path} has {found}, expected a text tower of {text.token_dim}")


def _prepare(request: Request, progress: Progress) -> Setup:
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
    memory = remember_in(request.cache / "arrays", salt=json.dumps(place_of(model, tower.device), sort_keys=True))
    dim = model.manifest.space.dim
    return Setup(prompts, data, dim, spec.token_dim, request.values, request.seed, progress, memory)


def _resolved(request: Request) -> Request:
    """Return the request with what it leaves to the installation decided, to be keyed and reported."""
    if "tagger" not in request.values:
        return request
    return dataclasses.replace(
        request, values={**request.values, "tagger": resolve_tagger(str(request.values["tagger"]))}
    )


def place_of(model: Model, device: torch.device) -> dict[str, object]:
    """Return all that embeddings of texts depend on beside the texts, down to their last bits."""
    spec, files = model.manifest.text, model.manifest.files
    assert spec is not None and spec.tokenizer is not None
    return {
        "tower": files[spec.file].sha256,
        "tokenizer": files[spec.tokenizer].sha256,
        "text": dataclasses.asdict(spec),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "versions": [__version__, torch.__version__],
    }


def _checkpoint(request: Request, setup: Setup) -> Path:
    asked = {
        **place_of(request.model, setup.prompts.device),
        "space": request.model.manifest.space.id,
        "recipe": request.recipe.name,
        "values": dict(request.values),
        "data": list(setup.data.sha256.items()),  # their order is that of the rows
        "steps": request.steps,
        "batch": request.batch,
        "seed": request.seed,
    }
    return checkpoint_path(asked, request.cache, fresh=request.fresh)


def _write(request: Request, folder: Path, setup: Setup, network: Network, curve: Curve) -> ModelManifest:
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
    made = Inversion(
        file=name, precision=PRECISION, input="embedding", features_id=None, tokens=network.tokens, seed=request.seed,
        steps=request.steps, data_sha256=setup.data.sha256,
    )  # fmt: skip
    data = setup.data
    counts = {
        "texts": len(data.texts), "held-out texts": len(data.held_texts),
        "pictures": len(data.pictures), "held-out pictures": len(data.held_pictures),
    }  # fmt: skip
    trained = Trained(request.model.manifest.name, recipe, request.values, request.batch, made, counts, curve, quality)
    write_report(folder / INVERSION, trained)
    return seal_inversion(folder, source.manifest, recipe.name, made, quality)
