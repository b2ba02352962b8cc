"""Measures light queries over a heavy gallery: from Python, `compare`; from a shell, `pocketlens eval asymmetric`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s
from pocketlens.errors import BadQuery, FormatError
from pocketlens_bench.asymmetric_composed import ComposedRow, compare_composed
from pocketlens_bench.asymmetric_figures import PartFigures, Scorer, answer
from pocketlens_bench.asymmetric_models import Entrant, Latency, Pair, pairs_of, time_encoders
from pocketlens_bench.asymmetric_sets import METRICS, QuerySet, limited, read_emojicir, read_folder
from pocketlens_bench.progress import Progress
from pocketlens_bench.protocols.ranking import Pool
from pocketlens_export.embeddings import Embeddings, encode_pictures, encode_texts
from pocketlens_export.views import encode_views

_VIEW_SEED = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure.

    Attributes:
        entrants: the models, the heavy one first; see `open_entrants`.
        data: a folder of pictures, or None.
        emojicir: EmojiCIR's data folder, or None.
        split: which pictures and concepts are asked with: train, validation, test or all.
        held_styles: EmojiCIR's vendors that were not trained on.
        methods: of composed queries of EmojiCIR; none: these are left out.
        limit: so many queries of each set, spread evenly; None: all.
        threads: of the encoders; timing is always on one.
        cache: folder that vectors are kept below.
    """

    entrants: tuple[Entrant, ...]
    data: Path | None
    emojicir: Path | None
    split: str = "test"
    held_styles: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    limit: int | None = None
    threads: int | None = None
    cache: Path = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Row:
    """What a pair found, by part of the queries, the whole first."""

    pair: Pair
    parts: Mapping[str, PartFigures]


@dataclass(frozen=True, slots=True)
class SetResults:
    """What all pairs found on the same queries."""

    queries: QuerySet
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured.

    Attributes:
        request: what was asked for.
        latencies: of the image towers, by label.
        sets: one for each set of queries.
        composed: EmojiCIR's composed queries, by model and method.
        skipped: files that no picture could be read from, counted by reason.
    """

    request: Request
    latencies: Mapping[str, Latency]
    sets: tuple[SetResults, ...]
    composed: tuple[ComposedRow, ...]
    skipped: Mapping[str, int]


def compare(request: Request, *, progress: Progress) -> Comparison:
    """Return the figures of all models on the same queries.

    Raises:
        BadQuery: there is nothing to ask, or a style or method is unknown.
        FormatError: a folder is not what it should be, or no query is left.
    """
    if request.data is None and request.emojicir is None:
        raise BadQuery("there is nothing to ask: give --data DIR, --emojicir DIR or both")
    results: list[SetResults] = []
    composed: tuple[ComposedRow, ...] = ()
    skipped: dict[str, int] = {}
    if request.emojicir is not None:
        folder = request.emojicir
        galleries = _encode(request, folder / "pictures", progress)
        found = galleries[0]
        asked = read_emojicir(folder, frozenset(found.ids), split=request.split, held_styles=request.held_styles)
        results += _answer_all(request, asked, galleries, progress)
        composed = compare_composed(
            request.entrants, folder, found, request.methods, split=request.split, limit=request.limit,
            threads=request.threads, progress=progress,
        )  # fmt: skip
        skipped |= found.skipped
    if request.data is not None:
        galleries = _encode(request, request.data, progress)
        found = galleries[0]
        asked = read_folder(request.data, found.ids, found.sha256, split=request.split)
        results += _answer_all(request, asked, galleries, progress)
        skipped = {reason: skipped.get(reason, 0) + found.skipped.get(reason, 0) for reason in skipped | found.skipped}
    return Comparison(request, time_encoders(request.entrants, progress=progress), tuple(results), composed, skipped)


def _encode(request: Request, folder: Path, progress: Progress) -> list[Embeddings]:
    """Return the pictures of a folder as each entrant sees them: the same pictures in the same order."""
    found = [
        encode_pictures(entrant.model, folder, cache=request.cache, progress=progress, threads=request.threads)
        for entrant in request.entrants
    ]
    if any(each.sha256 != found[0].sha256 for each in found):
        raise FormatError(f"{folder} was changed while it was read: the models have seen different pictures")
    return found


def _answer_all(
    request: Request, asked: Sequence[QuerySet], galleries: Sequence[Embeddings], progress: Progress
) -> list[SetResults]:
    results = []
    for queries in (limited(each, request.limit) for each in asked):
        vectors = _encode_queries(request, queries, galleries, progress)
        pairs = [pair for pair in pairs_of(request.entrants) if pair.query.label in vectors]
        if pairs:
            by_label = dict(zip((entrant.label for entrant in request.entrants), galleries, strict=True))
            results.append(SetResults(queries, _rows(queries, pairs, vectors, by_label, progress)))
    return results


def _rows(
    queries: QuerySet,
    pairs: Sequence[Pair],
    vectors: Mapping[str, Float32s],
    galleries: Mapping[str, Embeddings],
    progress: Progress,
) -> tuple[Row, ...]:
    scorer = Scorer(queries.examples, METRICS, lambda example: example.families)
    count = len(queries.examples)
    values = []
    for number, pair in enumerate(pairs):

        def told(done: int, before: int = number * count) -> None:
            progress(f"ranking {queries.title}", before + done, len(pairs) * count)

        embeddings = galleries[pair.gallery.label]
        row_of = {id: row for row, id in enumerate(embeddings.ids)}
        rows = embeddings.vectors[[row_of[id] for id in queries.gallery]]
        pool = Pool(queries.gallery, pair.fit(rows))
        values.append(scorer.values(answer(queries.examples, pair.fit(vectors[pair.query.label]), pool, progress=told)))
    base = values[0] if pairs[0].kind == "heavy-heavy" else None
    return tuple(Row(pair, scorer.figures(each, base)) for pair, each in zip(pairs, values, strict=True))


def _encode_queries(
    request: Request, queries: QuerySet, galleries: Sequence[Embeddings], progress: Progress
) -> dict[str, Float32s]:
    """Return the vectors of the queries, float32 (examples, dim), by label of those that can encode them."""
    examples, entrants = queries.examples, request.entrants
    if queries.asked == "text":
        texts = [example.texts[0] for example in examples]
        readers = [entrant for entrant in entrants if entrant.model.manifest.can_read]
        return {
            each.label: encode_texts(each.model, texts, cache=request.cache, progress=progress, threads=request.threads)
            for each in readers
        }
    places = {id: row for row, id in enumerate(galleries[0].ids)}
    rows = np.array([places[str(example.reference)] for example in examples], dtype=np.int64)
    if queries.asked == "picture":
        return {entrant.label: each.vectors[rows] for entrant, each in zip(entrants, galleries, strict=True)}
    paths, sha256 = ([values[row] for row in rows] for values in (galleries[0].paths, galleries[0].sha256))
    return {
        each.label: encode_views(
            each.model, paths, sha256, seed=_VIEW_SEED, cache=request.cache, progress=progress, threads=request.threads
        )
        for each in entrants
    }
