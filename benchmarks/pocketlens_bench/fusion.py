"""Whether a fused search over candidates finds what one over every row finds, and at what share of its time.

Each method that fuses scores, with and without what is not wanted, on CLIP-shaped pictures and texts. Below the
crossover candidates come from a scan of the codes, from there on from the nearest partitions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose import Composed, Negative, Query, Text, compose, find_method
from pocketlens.compose.method import Value
from pocketlens.concepts import Concepts
from pocketlens.fusion import CANDIDATES, EXHAUSTIVE_ROWS, search_fused
from pocketlens.gallery import Counts, Gallery
from pocketlens.gallery_writer import write_gallery
from pocketlens.items import Item
from pocketlens.model import Space
from pocketlens_bench import clip_shaped
from pocketlens_bench.measure import Options, Progress, Report, Row, alternate, at_least, median, ratio, significant

_K = 10
_SIZES = (10_000, 100_000, 400_000)
_TIMED = 40
_NAMES = 300
_SUBSPACE = 64


@dataclass(frozen=True, slots=True)
class _Case:
    """A method, values of its parameters, and whether a text is unwanted."""

    method: str
    values: Mapping[str, Value]
    unwanted: bool

    @property
    def title(self) -> str:
        return f"{self.method}{', one unwanted text' if self.unwanted else ''}"


_CASES = (
    _Case("product", {}, False),
    _Case("centred-product", {}, False),
    _Case("weicom", {}, False),
    _Case("basic", {}, False),
    _Case("weimocir", {}, False),
    _Case("sum", {"negative_level": "score"}, True),
    _Case("product", {"negative_level": "score"}, True),
    _Case("weicom", {"negative_level": "score"}, True),
)


class _Kit:
    """What methods ask for: the texts stand in place of an encoder's, by number."""

    def __init__(self, gallery: Gallery, texts: Float32s, concepts: Concepts) -> None:
        self.gallery = gallery
        self.texts = texts
        self.concepts = concepts
        self.mean = gallery.mean
        self.covariance = gallery.covariance

    def encode_texts(self, texts: list[str]) -> Float32s:
        return self.texts[[int(text) for text in texts]]

    def encode_prompts(self, prompts: list[str], pseudo_tokens: Float32s) -> Float32s:
        raise NotImplementedError

    def invert(self, recipe: str, vector: Float32s) -> Float32s:
        raise NotImplementedError

    def invert_features(self, recipe: str, features: Float32s) -> Float32s:
        raise NotImplementedError

    def nearest(self, vector: Float32s, count: int) -> Float32s:
        return self.gallery.index.vectors(self.gallery.index.search(vector[np.newaxis], k=count).rows[0])


def run(options: Options, progress: Progress) -> Report:
    """Return, for each size and method, how many queries have the same top ten, and the time over an exhaustive one."""
    sizes, count = ((2_000, 4_000), 10) if options.quick else (_SIZES, 500)
    table: list[Row] = []
    for rows in sizes:
        progress(f"{rows} rows: writing the gallery")
        with tempfile.TemporaryDirectory() as folder:
            gallery = _gallery(Path(folder), clip_shaped.pictures(rows), clip_shaped.texts(256, seed=7))
            table += [_row(gallery, case, count, progress) for case in _CASES]
            gallery.close()
    return _report(table, count)


def _gallery(folder: Path, vectors: Float32s, probes: Float32s) -> Gallery:
    items = [Item(str(row), row, str(row), 1, 1, "0" * 64, {}) for row in range(len(vectors))]
    space, counts = Space("clip-shaped@" + "0" * 64, vectors.shape[1]), Counts(len(vectors), len(vectors), 0, {})
    write_gallery(folder, vectors, items, space=space, model="clip-shaped", counts=counts, probes=probes)
    return Gallery.open(folder)


def _row(gallery: Gallery, case: _Case, count: int, progress: Progress) -> Row:
    rows = gallery.index.spec.rows
    progress(f"{rows} rows: {case.title}")
    queries = _queries(gallery, case, count)
    same = [_top(gallery, query, True) == _top(gallery, query, False) for query in queries]
    elapsed_ms = alternate(
        {name: _timed(gallery, queries, name == "every row") for name in ("every row", "candidates")},
        rounds=min(_TIMED, count),
    )
    return {
        "rows": rows,
        "method": case.title,
        "same top 10": significant(float(np.mean(same))),
        "every row p50 ms": median(elapsed_ms["every row"]),
        "candidates p50 ms": median(elapsed_ms["candidates"]),
        "candidates over every row": ratio(elapsed_ms["candidates"], elapsed_ms["every row"]),
    }


def _queries(gallery: Gallery, case: _Case, count: int) -> list[Composed]:
    texts = clip_shaped.texts(2 * count + _NAMES)
    names = texts[2 * count :]
    subspace = np.linalg.svd(names - names.mean(axis=0), full_matrices=False)[2][:_SUBSPACE]
    concepts = Concepts(tuple(map(str, range(_NAMES))), names, names.mean(axis=0), subspace.astype(np.float32))
    kit = _Kit(gallery, texts, concepts)
    queries = []
    for number, picture in enumerate(clip_shaped.pictures(count, seed=1)):
        negative = Negative(texts[[count + number]], np.ones(1, dtype=np.float32)) if case.unwanted else None
        query = Query(picture, (Text(str(number)),))
        queries.append(compose(query, negative, kit, find_method(case.method), case.values))
    return queries


def _top(gallery: Gallery, query: Composed, exhaustive: bool) -> list[int]:
    return sorted(search_fused(gallery, query, k=_K, exhaustive=exhaustive).rows.tolist())


def _timed(gallery: Gallery, queries: list[Composed], exhaustive: bool) -> Callable[[], object]:
    """Return a function that answers one query, another one at each call."""
    waiting = iter(queries * (_TIMED + 4))
    return lambda: _top(gallery, next(waiting), exhaustive)


def _report(table: list[Row], count: int) -> Report:
    worst = min(float(row["same top 10"] or 0) for row in table)
    return Report(
        settings={
            "dim": clip_shaped.DIM,
            "queries": count,
            "timed queries": _TIMED,
            "k": _K,
            "candidates": CANDIDATES,
            "exhaustive up to": EXHAUSTIVE_ROWS,
        },
        threads=1,
        tables={"Candidates against every row": table},
        bars=[at_least("queries with the same top 10, the worst method and size", worst, 0.99)],
        notes=[
            f"The runtime scores every row of galleries of up to {EXHAUSTIVE_ROWS}; candidates are for larger ones.",
            "Synthetic vectors with CLIP's statistics (clip_shaped.py), not embeddings of a trained model.",
            "Times are of the search alone, from a composed query to rows.",
        ],
        packages=("numpy", "usearch"),
    )
