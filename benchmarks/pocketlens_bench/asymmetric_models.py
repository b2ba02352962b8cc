"""The models that are compared: a heavy one that encodes the gallery, light ones, and query models of its space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from pocketlens._types import Float32s
from pocketlens.encoder import ImageEncoder
from pocketlens.errors import BadQuery, EncoderMismatch, MissingPart
from pocketlens.model import MANIFEST, Model, find_model
from pocketlens_bench.measure import alternate, median, ratio
from pocketlens_bench.progress import Progress

Role: TypeAlias = Literal["heavy", "light", "query"]
Kind: TypeAlias = Literal["heavy-heavy", "light-light", "light-heavy raw", "light-heavy"]

_ROUNDS, _TURNS = 20, 10  # of timing: 200 runs of each encoder, in turns between which progress is told


@dataclass(frozen=True, slots=True)
class Entrant:
    """A model that takes part.

    Attributes:
        label: its name in tables, different for every entrant.
        role: "heavy" encodes the gallery, "light" is of its own space, "query" is of the heavy one's.
        model: its opened folder, with an image tower.
    """

    label: str
    role: Role
    model: Model

    @property
    def image_bytes(self) -> int:
        """Size of the image tower's file."""
        assert self.model.manifest.image is not None  # `open_entrants` has looked
        return self.model.manifest.files[self.model.manifest.image.file].size_bytes


@dataclass(frozen=True, slots=True)
class Pair:
    """Who encodes the queries, and who the gallery; `cut` dimensions of both are compared, None: all."""

    kind: Kind
    query: Entrant
    gallery: Entrant
    cut: int | None = None

    def fit(self, vectors: Float32s) -> Float32s:
        """Return vectors, (n, dim), as this pair compares them: cut to the smaller width, and then of length 1."""
        if self.cut is None:
            return vectors
        kept = vectors[:, : self.cut]
        norms = np.linalg.norm(kept, axis=1, keepdims=True)
        return np.asarray(kept / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one picture on one thread, and the median of its ratios to the heavy tower's, round by round."""

    milliseconds: float
    of_heavy: float


def open_entrants(heavy: str, lights: Sequence[str], queries: Sequence[str]) -> tuple[Entrant, ...]:
    """Return the opened models, the heavy one first; each is a folder or a shipped model's name.

    Raises:
        BadQuery: there is neither a light nor a query model, or a light one is of the heavy one's space.
        EncoderMismatch: a query model is of another space; both are named.
        FormatError: one is no model folder.
        MissingPart: one has no image tower.
    """
    if not lights and not queries:
        raise BadQuery("there is nothing to compare with the heavy model: give --light MODEL or --query MODEL")
    named: list[tuple[Role, Sequence[str]]] = [("heavy", [heavy]), ("light", lights), ("query", queries)]
    opened = [(role, Model.open(find_model(name))) for role, names in named for name in names]
    labels = _labels([model for _, model in opened])
    entrants = tuple(Entrant(label, *each) for label, each in zip(labels, opened, strict=True))
    for entrant in entrants:
        _check(entrant, entrants[0])
    return entrants


def pairs_of(entrants: Iterable[Entrant]) -> tuple[Pair, ...]:
    """Return who is asked with over which gallery: every model over its own, and the others over the heavy one's.

    Vectors of a light model of another width are compared in the dimensions that both have: it is the control, and says
    nothing either way.
    """
    heavy, *others = entrants
    dim = heavy.model.manifest.space.dim
    lights = [entrant for entrant in others if entrant.role == "light"]
    widths = [light.model.manifest.space.dim for light in lights]
    raw = [
        Pair("light-heavy raw", light, heavy, None if width == dim else min(width, dim))
        for light, width in zip(lights, widths, strict=True)
    ]
    crossed = [Pair("light-heavy", entrant, heavy) for entrant in others if entrant.role == "query"]
    return (
        Pair("heavy-heavy", heavy, heavy),
        *(Pair("light-light", other, other) for other in others),
        *raw,
        *crossed,
    )


def time_encoders(entrants: Sequence[Entrant], *, progress: Progress) -> dict[str, Latency]:
    """Return the latency of each image tower by label: one picture, one thread, all by turns in this process.

    Args:
        entrants: the heavy model first.
        progress: told of timing.
    """
    runs = {entrant.label: _one_picture(entrant.model) for entrant in entrants}
    elapsed_ms: dict[str, list[float]] = {label: [] for label in runs}
    for turn in range(_TURNS):
        for label, values in alternate(runs, rounds=_ROUNDS, warm_up=1).items():
            elapsed_ms[label] += values
        progress("timing the encoders", turn + 1, _TURNS)
    heavy = elapsed_ms[entrants[0].label]
    return {label: Latency(median(values), ratio(values, heavy)) for label, values in elapsed_ms.items()}


def _one_picture(model: Model) -> Callable[[], object]:
    encoder = ImageEncoder(model, threads=1)
    side = encoder.spec.side
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return lambda: encoder.encode_pixels(pixels)


def _check(entrant: Entrant, heavy: Entrant) -> None:
    manifest, space = entrant.model.manifest, heavy.model.manifest.space
    if manifest.image is None:
        raise MissingPart(f"{entrant.model.path}: model {manifest.name} has no image tower, so it cannot see pictures")
    if entrant.role == "query" and manifest.space != space:
        raise EncoderMismatch(
            f"{entrant.model.path}: the query model {manifest.name} encodes into space {manifest.space.id} "
            f"({manifest.space.dim}-d), but the heavy model {heavy.model.path} into {space.id} ({space.dim}-d); a "
            "model of a space of its own is given with --light"
        )
    if entrant.role == "light" and manifest.space.id == space.id:
        raise BadQuery(
            f"{entrant.model.path}: the light model {manifest.name} is of the heavy model's space {space.id}, so it "
            "is no control; give it with --query"
        )


def _labels(models: Sequence[Model]) -> list[str]:
    """Return a name for each model: its own, with its folder's where several have it, and then with a number."""
    names = [model.manifest.name for model in models]
    shared = {name for name, count in Counter(names).items() if count > 1}
    told = [
        f"{name} ({_folder(model.path)})" if name in shared else name for name, model in zip(names, models, strict=True)
    ]
    return [
        f"{label} #{told[: place + 1].count(label)}" if told.count(label) > 1 else label
        for place, label in enumerate(told)
    ]


def _folder(path: Path) -> str:
    """Return the name that tells a model folder from others; models/NAME/model is NAME."""
    path = path.resolve()
    return path.parent.name if path.name == MANIFEST.removesuffix(".json") else path.name
