"""A map for pictures and one for texts: what both models make of them, split, fitted, chosen, and measured once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketlens._types import Float32s, Int64s
from pocketlens.errors import FormatError
from pocketlens.model import Model
from pocketlens_export.align.linear import choose_procrustes, choose_ridge
from pocketlens_export.align.maps import Fitted, Pairs, Progress, mean_cosine
from pocketlens_export.align.quality import Seen, measure_pictures, measure_texts
from pocketlens_export.embeddings import Embeddings, encode_pictures, encode_texts, text_sha256
from pocketlens_export.fit.data import read_texts
from pocketlens_export.split import Split, split_rows
from pocketlens_export.views import encode_views

Kind = Literal["ridge", "procrustes", "residual-mlp"]
LEAST_ROWS = 64
_MOST_TESTED = 2_000  # rows of the test: every query is compared with every row


@dataclass(frozen=True, slots=True)
class Setup:
    """What a map is fitted with; see `folder.Request`. `warn` is told what the user should know."""

    light: Model
    heavy: Model
    kind: Kind
    seed: int
    threads: int | None
    cache: Path
    progress: Progress
    warn: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of things that a map was fitted on.

    Attributes:
        what: "pictures" or "texts".
        fitted: the map and how it was chosen.
        counts: what became of the things, by name: training, validation, test and so on.
        sha256: over all contents' hashes, in order.
        mean_cosine: of mapped test rows to the heavy model's own.
        ranks: places at which the test's queries found their answers, by who sees queries and gallery.
    """

    what: str
    fitted: Fitted
    counts: Mapping[str, int]
    sha256: str
    mean_cosine: float
    ranks: Mapping[str, Int64s]


def fit_pictures(setup: Setup, folders: Sequence[Path]) -> Part:
    """Return a map fitted on the pictures below some folders.

    Raises:
        FormatError: there are fewer than 64 different pictures, or a tower gives NaN or infinity for one.
    """
    light, heavy = (
        encode_pictures(model, folders, cache=setup.cache, progress=setup.progress, threads=setup.threads)
        for model in (setup.light, setup.heavy)
    )
    named = ", ".join(map(str, folders))
    if light.sha256 != heavy.sha256:
        raise FormatError(f"{named}: pictures were changed while they were encoded; start again")
    _check_count(len(light.sha256), f"{named}: {len(light.sha256)} different pictures can be read")
    fitted, split = _fit(setup, "pictures", light.sha256, light.vectors, heavy.vectors)
    seen = {"light": _see(setup, setup.light, light, split.test), "heavy": _see(setup, setup.heavy, heavy, split.test)}
    counts = _counts(split) | {"duplicates": light.duplicates} | light.skipped
    test = Pairs.of(light.vectors, heavy.vectors, split.test)
    ranks = measure_pictures(seen["light"], seen["heavy"], fitted.map)
    return Part("pictures", fitted, counts, _joined(light.sha256), mean_cosine(fitted.map, test), ranks)


def fit_texts(setup: Setup, path: Path) -> Part:
    """Return a map fitted on the different texts of a file.

    Raises:
        FormatError: it is no file of texts, holds fewer than 64 different ones, or a tower gives NaN or infinity.
    """
    texts = list(dict.fromkeys(read_texts(path)))
    _check_count(len(texts), f"{path} holds {len(texts)} different texts")
    light, heavy = (
        encode_texts(model, texts, cache=setup.cache, progress=setup.progress, threads=setup.threads)
        for model in (setup.light, setup.heavy)
    )
    sha256 = [text_sha256(text) for text in texts]
    fitted, split = _fit(setup, "texts", sha256, light, heavy)
    test = Pairs.of(light, heavy, split.test)
    ranks = measure_texts(test, fitted.map)
    return Part("texts", fitted, _counts(split), _joined(sha256), mean_cosine(fitted.map, test), ranks)


def _check_count(count: int, found: str) -> None:
    if count < LEAST_ROWS:
        raise FormatError(f"{found}, expected at least {LEAST_ROWS} to fit a map on")


def _fit(setup: Setup, what: str, sha256: Sequence[str], light: Float32s, heavy: Float32s) -> tuple[Fitted, Split]:
    split = split_rows(sha256)
    split = Split(split.train, split.validation, split.test[:_MOST_TESTED])
    if len(split.train) < light.shape[1]:
        setup.warn(
            f"{len(split.train)} training {what} are fewer than the {light.shape[1]} dimensions of "
            f"{setup.light.manifest.name}: they do not say all of the map, which a penalty holds down; more do better"
        )
    train, validation = (Pairs.of(light, heavy, rows) for rows in (split.train, split.validation))
    if setup.kind == "ridge":
        return choose_ridge(train, validation), split
    if setup.kind == "procrustes":
        return choose_procrustes(train, validation), split
    from pocketlens_export.align.residual import fit_residual  # imports torch

    fitted = fit_residual(train, validation, seed=setup.seed, threads=setup.threads, progress=setup.progress)
    return fitted, split


def _see(setup: Setup, model: Model, found: Embeddings, test: Int64s) -> Seen:
    paths, sha256 = [found.paths[row] for row in test], [found.sha256[row] for row in test]
    views = encode_views(
        model, paths, sha256, seed=setup.seed, cache=setup.cache, progress=setup.progress, threads=setup.threads
    )
    return Seen(views, found.vectors[test])


def _counts(split: Split) -> dict[str, int]:
    return {"training": len(split.train), "validation": len(split.validation), "test": len(split.test)}


def _joined(sha256: Sequence[str]) -> str:
    return hashlib.sha256(bytes.fromhex("".join(sha256))).hexdigest()
