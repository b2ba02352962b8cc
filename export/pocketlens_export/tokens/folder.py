"""From a light and a heavy model and pictures to a query model with a token learner, all of it in order."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from pocketlens._types import Float32s
from pocketlens.compose.method import Value
from pocketlens.errors import EncoderMismatch, FormatError, MissingPart, Refused
from pocketlens.files import new_folder
from pocketlens.inspect import verify
from pocketlens.model import Features, Inversion, Model, ModelManifest
from pocketlens.text import Tokenizer
from pocketlens_export.embeddings import Embeddings, encode_pictures
from pocketlens_export.fit.data import Progress
from pocketlens_export.fit.folder import INVERSION, check_into, place_of
from pocketlens_export.fit.network_graph import PRECISION, run_network
from pocketlens_export.fit.prompts import Prompts
from pocketlens_export.fit.quality import compose_plain, least_stored_cosine
from pocketlens_export.fit.report import Trained, write_report
from pocketlens_export.fit.seal import copy_files, seal_inversion
from pocketlens_export.fit.tower import TextTower
from pocketlens_export.fit.training import Curve, Report, checkpoint_path, schedule_of, train
from pocketlens_export.split import Split, split_rows
from pocketlens_export.tokens.join import join_towers
from pocketlens_export.tokens.learner import TokenLearner, write_learner
from pocketlens_export.tokens.learning import ISA, Learning, describe_words
from pocketlens_export.tokens.maps import Maps, Pictures, encode_maps

MAX_BYTES = 4_000_000  # of the stored network
MIN_PICTURES = 64
MAX_TEST = 1_000
_NEAREST = (1, 10)


@dataclass(frozen=True, slots=True)
class Request:
    """What to fit.

    Attributes:
        light: an opened model folder whose image tower gives features, in the heavy model's space.
        heavy: an opened model folder with an image tower and a float text tower.
        into: a folder of that space that a copy of gets the network; None: light image tower and heavy text tower.
        pictures: folders.
        tokens: pseudo-tokens of a picture.
        values: a value for every parameter of `ISA`.
        steps, batch, seed: of the training.
        threads: of torch and onnxruntime; None: their own choice.
        cache: folder of checkpoints, embeddings and feature maps.
        fresh: whether to leave an earlier checkpoint aside.
    """

    light: Model
    heavy: Model
    into: Model | None
    pictures: tuple[Path, ...]
    tokens: int
    values: Mapping[str, Value]
    steps: int
    batch: int
    seed: int
    threads: int | None
    cache: Path
    fresh: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """The pictures as the light tower embeds them, the maps of both towers, and the hash of each folder."""

    pictures: Embeddings
    maps: Maps
    split: Split
    sha256: dict[str, str]


def fit_tokens(request: Request, out: Path, *, replace: bool, progress: Progress, report: Report) -> ModelManifest:
    """Write a query model with the network inversion/isa.onnx, its report and its figures, and return its manifest.

    Raises:
        FormatError: a path is no folder of pictures, there are fewer than 64, `out` exists, or the text tower is not a
            float one.
        MissingPart: the light model has no features, or the heavy one no image tower, text tower or tokenizer.
        EncoderMismatch: the models, or `into`, are of different spaces.
        Refused: the network would be larger than 4 MB, the disk has no room for the maps, or the text tower in torch
            or the stored network is not what it should be.
    """
    import matplotlib  # noqa: F401  # drawn with at the very end: it should be missed before the training

    features = _check(request)
    with new_folder(out, replace=replace) as folder:
        if request.threads is not None:
            torch.set_num_threads(request.threads)
        prompts, table = _open_text(request)
        data = _read(request, progress)
        task = Learning(
            prompts, data.maps, data.split, describe_words(table),
            tokens=request.tokens, values=request.values, seed=request.seed,
        )  # fmt: skip
        _check_size(task.network.learner)
        checkpoint = _checkpoint(request, data, prompts.device)
        schedule = schedule_of(ISA, request.values, steps=request.steps, batch=request.batch, seed=request.seed)
        curve = train(task, schedule, checkpoint, report=report)
        manifest = _write(request, folder, prompts, data, task.network.learner.eval(), curve, features)
        verify(folder)
    checkpoint.unlink(missing_ok=True)
    return manifest


def measure_learner(sentences: Float32s, heavy: Float32s, light: Float32s) -> dict[str, float]:
    """Return figures by name, of unit vectors float32 (n, dim) whose rows belong together.

    `picture_recall_at_k` is the share of pictures whose own heavy vector is among the k nearest to their sentence,
    `embedding_recall_at_k` the same for the light tower's embedding instead of the sentence; `mean_cosine` that of
    sentence and heavy vector.
    """
    figures = {"mean_cosine": float((sentences * heavy).sum(axis=1).mean())}
    for name, queries in (("picture", sentences), ("embedding", light)):
        scores = queries @ heavy.T
        before = (scores > np.diag(scores)[:, np.newaxis]).sum(axis=1)  # answers that come before the own one
        figures |= {f"{name}_recall_at_{k}": float((before < k).mean()) for k in _NEAREST}
    return figures | {"held_out_pictures": float(len(heavy))}


def _check(request: Request) -> Features:
    """Return the light tower's features after a look at what the three folders have."""
    light, heavy = request.light.manifest, request.heavy.manifest
    features = None if light.image is None else light.image.features
    if features is None:
        raise MissingPart(
            f"{request.light.path}: an image tower with features is needed, model {light.name} has none; pocketlens "
            "export writes them where the architecture has a feature map"
        )
    if heavy.image is None:
        raise MissingPart(f"{request.heavy.path}: an image tower is needed, model {heavy.name} has none")
    if not heavy.can_read:
        raise MissingPart(f"{request.heavy.path}: a text tower with a tokenizer is needed, model {heavy.name} has none")
    if light.space != heavy.space:
        raise EncoderMismatch(
            f"{request.light.path} is of space {light.space.id}, expected that of {request.heavy.path}, "
            f"{heavy.space.id}; bring it there with pocketlens fit align or pocketlens fit distill first"
        )
    if request.into is not None:
        check_into(request.into, request.heavy)
    return features


def _open_text(request: Request) -> tuple[Prompts, Float32s]:
    """Return the heavy text tower, proven, and its token embeddings."""
    spec = request.heavy.manifest.text
    assert spec is not None and spec.tokenizer is not None
    tower = TextTower(request.heavy, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    tower.prove()
    tokenizer = Tokenizer(request.heavy.file(spec.tokenizer), spec)
    return Prompts(tower, tokenizer, tokens=request.tokens), tower.token_table()


def _read(request: Request, progress: Progress) -> _Data:
    # The light tower's own embeddings are the cheap way to find out which files can be read; figures need them too.
    found = encode_pictures(
        request.light, request.pictures, cache=request.cache, progress=progress, threads=request.threads
    )
    if len(found.paths) < MIN_PICTURES:
        named = ", ".join(map(str, request.pictures))
        raise FormatError(f"{named}: {len(found.paths)} different pictures, expected {MIN_PICTURES} or more")
    maps = encode_maps(
        request.light,
        request.heavy,
        Pictures(found.paths, found.sha256),
        views=int(request.values["views"]),
        cache=request.cache,
        progress=progress,
        threads=request.threads,
    )
    return _Data(found, maps, split_rows(found.sha256), _folder_hashes(request.pictures, found))


def _folder_hashes(folders: tuple[Path, ...], found: Embeddings) -> dict[str, str]:
    """Return a hash over every folder's own pictures, by the folder's name; a second one of a name gets a number."""
    hashes: dict[str, str] = {}
    for folder in folders:
        names = [folder.name or str(folder), *(f"{folder.name} ({number})" for number in range(2, len(folders) + 1))]
        digest = hashlib.sha256()
        for path, sha256 in zip(found.paths, found.sha256, strict=True):
            if path.is_relative_to(folder):
                digest.update(bytes.fromhex(sha256))
        hashes[next(name for name in names if name not in hashes)] = digest.hexdigest()
    return hashes


def _check_size(learner: TokenLearner) -> None:
    weights = (learner.attention.weight, learner.first.weight, learner.second.weight)  # a byte each
    rest = sum(value.numel() for value in learner.state_dict().values()) - sum(weight.numel() for weight in weights)
    size = sum(weight.numel() for weight in weights) + 4 * rest
    if size > MAX_BYTES:
        raise Refused(
            f"the network would take {size / 1e6:.1f} MB, expected at most {MAX_BYTES / 1e6:.0f}; a narrower one helps "
            "(--set hidden=…)"
        )


def _checkpoint(request: Request, data: _Data, device: torch.device) -> Path:
    light = request.light.manifest
    assert light.image is not None
    asked = {
        **place_of(request.heavy, device),
        "recipe": ISA.name,
        "towers": [model.manifest.files[model.manifest.image.file].sha256
                   for model in (request.light, request.heavy) if model.manifest.image],
        "values": dict(request.values),
        "pictures": data.pictures.sha256,
        "tokens": request.tokens,
        "steps": request.steps,
        "batch": request.batch,
        "seed": request.seed,
    }  # fmt: skip
    return checkpoint_path(asked, request.cache, fresh=request.fresh)


def _write(
    request: Request,
    folder: Path,
    prompts: Prompts,
    data: _Data,
    learner: TokenLearner,
    curve: Curve,
    features: Features,
) -> ModelManifest:
    if request.into is None:
        source = join_towers(request.heavy, request.light, folder)
    else:
        source = request.into.manifest
        copy_files(request.into, folder)
    (folder / INVERSION).mkdir(exist_ok=True)
    name = f"{INVERSION}/{ISA.name}.onnx"
    write_learner(learner, folder / name, height=features.height, width=features.width)
    quality = {"held_out_loss": curve.held_out[-1][1], **_measure(prompts, data, learner, folder / name)}
    made = Inversion(
        file=name, precision=PRECISION, input="features", features_id=features.id, tokens=request.tokens,
        seed=request.seed, steps=request.steps, data_sha256=data.sha256,
    )  # fmt: skip
    counts = {
        "pictures": len(data.split.train), "validation pictures": len(data.split.validation),
        "test pictures": len(data.split.test), "duplicates left out": data.pictures.duplicates,
        "files skipped": sum(data.pictures.skipped.values()),
    }  # fmt: skip
    names = f"{request.heavy.manifest.name}, through the image tower of {request.light.manifest.name}"
    trained = Trained(names, ISA, request.values, request.batch, made, counts, curve, quality)
    write_report(folder / INVERSION, trained)
    source = dataclasses.replace(source, made_with=source.made_with | {"onnxruntime": version("onnxruntime")})
    return seal_inversion(folder, source, ISA.name, made, quality)


def _measure(prompts: Prompts, data: _Data, learner: TokenLearner, path: Path) -> dict[str, float]:
    """Return the figures of the stored network over the test pictures, at most 1,000.

    Raises:
        Refused: it is not what was trained.
    """
    rows = data.split.test[:MAX_TEST]
    features = np.asarray(data.maps.features[rows, 0], dtype=np.float32)
    sentences = compose_plain(prompts, run_network(path, features))
    with torch.no_grad():
        tokens: Float32s = learner(torch.from_numpy(features).to(prompts.device)).cpu().numpy()
    least = least_stored_cosine(compose_plain(prompts, tokens), sentences)
    figures = measure_learner(sentences, data.maps.vectors[rows, 0], data.pictures.vectors[rows])
    return {**figures, "stored_min_cosine": least}
