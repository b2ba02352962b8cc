"""What a filter costs: a filtered query beside the unfiltered one, from none to all pictures allowed, at equal answers.

A query is timed from its vector to the ranked rows, the filter's parsing and the columns included. Each filter's
answers are compared with an exhaustive search in NumPy over the pictures it allows.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Float32s
from pocketlens.attributes import Schema
from pocketlens.compose import Query, Text, compose, find_method
from pocketlens.compose.method import Composed
from pocketlens.contents import Contents
from pocketlens.filter import parse_filter, select_items
from pocketlens.gallery import Counts, Gallery
from pocketlens.gallery_writer import write_gallery
from pocketlens.items import Item
from pocketlens.model import Space
from pocketlens.moments import write_moment
from pocketlens_bench import clip_shaped
from pocketlens_bench.measure import (
    Options,
    Progress,
    Report,
    Row,
    alternate,
    at_least,
    at_most,
    median,
    ratio,
    significant,
)

_K = 10
_SHARES = (0.0, 0.0001, 0.001, 0.01, 0.03, 0.06, 0.07, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
_ROUNDS = 40
_COMPARED = 50  # queries whose answers are compared
_TYPES: Schema = {"rank": "integer", "away": "integer", "score": "real", "mood": "text", "name": "text", "tag": "tags"}
_SECONDS = 10 * 365 * 86_400
Filter = Mapping[str, Any]


def run(options: Options, progress: Progress) -> Report:
    """Return time and answers by the share of pictures that a filter allows, and what each kind of condition costs."""
    rows = 4_000 if options.quick else 100_000
    texts = clip_shaped.texts(300)
    vectors = clip_shaped.pictures(rows)
    progress(f"{rows} rows: writing the gallery")
    with tempfile.TemporaryDirectory() as name:
        gallery = _gallery(Path(name), vectors, _items(vectors, texts))
        progress("filters of every share")
        shares = _share_table(gallery, texts)
        progress("fused queries")
        fused = _fused_table(gallery, texts)
        progress("conditions of every kind")
        kinds = _kind_table(gallery)
        gallery.close()
    return _report(rows, shares, fused, kinds)


def _items(vectors: Float32s, texts: Float32s) -> list[Item]:
    """Return an item a row. `rank` is a random order; `away` one from the pictures farthest from all texts on."""
    generator = np.random.default_rng(0)
    count = len(vectors)
    ranks = generator.permutation(count)
    away = np.argsort(np.argsort(vectors @ texts.mean(axis=0)))
    taken = 1_577_836_800_000_000 + generator.integers(0, _SECONDS, count) * 1_000_000  # from 2020 on
    scores, moods, tags = (
        generator.random(count),
        generator.integers(0, 1_000, count),
        generator.integers(0, 50, (count, 3)),
    )
    items = []
    for row in range(count):
        attributes = {
            "rank": int(ranks[row]), "away": int(away[row]), "score": float(scores[row]), "mood": f"mood {moods[row]}",
            "name": f"IMG_{ranks[row]:06}", "tag": sorted({f"tag {tag}" for tag in tags[row]}),
            "taken": write_moment(int(taken[row])), "size_bytes": 100_000 + row,
        }  # fmt: skip
        items.append(Item(f"{row % 100}/{row}.jpg", row, f"{row}.jpg", 4_000, 3_000, "0" * 64, attributes))
    return items


def _gallery(folder: Path, vectors: Float32s, items: list[Item]) -> Gallery:
    space, counts = Space("clip-shaped@" + "0" * 64, vectors.shape[1]), Counts(len(vectors), len(vectors), 0, {})
    write_gallery(folder, vectors, items, space=space, model="clip-shaped", counts=counts, attributes=_TYPES)
    return Gallery.open(folder)


def _share_table(gallery: Gallery, texts: Float32s) -> list[Row]:
    contents, rows = Contents(gallery), gallery.index.spec.rows
    filters = {("at random", share): {"rank": {"lt": round(share * rows)}} for share in _SHARES}
    filters |= {("the farthest", share): {"away": {"lt": round(share * rows)}} for share in (0.01, 0.1, 0.5, 0.9)}
    queries = _cycle(texts)
    runs: dict[str, Callable[[], object]] = {"unfiltered": lambda: contents.nearest(next(queries), k=_K)}
    for key, filter in filters.items():
        runs[str(key)] = _filtered(contents, filter, lambda some: some.nearest(next(queries), k=_K))
        runs[f"select {key}"] = partial(_select, gallery, filter)
    elapsed_ms = alternate(runs, rounds=_ROUNDS)
    free = elapsed_ms["unfiltered"]
    return [
        {
            "allowed": f"{share:.2%} {which}",
            "select p50 ms": median(elapsed_ms[f"select {which, share}"]),
            "filtered p50 ms": median(elapsed_ms[str((which, share))]),
            "unfiltered p50 ms": median(free),
            "filtered over unfiltered": ratio(elapsed_ms[str((which, share))], free),
            "same as exhaustive": significant(_agreement(contents, filter, texts)),
        }
        for (which, share), filter in filters.items()
    ]


def _fused_table(gallery: Gallery, texts: Float32s) -> list[Row]:
    contents, rows = Contents(gallery), gallery.index.spec.rows
    queries = _cycle(_products(texts))
    filters = {share: {"rank": {"lt": round(share * rows)}} for share in (0.001, 0.1, 0.4, 0.5, 0.6, 0.9, 1.0)}
    runs: dict[str, Callable[[], object]] = {"unfiltered": lambda: contents.fused(next(queries), k=_K)}
    for share, filter in filters.items():
        runs[str(share)] = _filtered(contents, filter, lambda some: some.fused(next(queries), k=_K))
    elapsed_ms = alternate(runs, rounds=_ROUNDS // 2)
    return [
        {
            "allowed": f"{share:.2%} at random",
            "filtered p50 ms": median(elapsed_ms[str(share)]),
            "unfiltered p50 ms": median(elapsed_ms["unfiltered"]),
            "filtered over unfiltered": ratio(elapsed_ms[str(share)], elapsed_ms["unfiltered"]),
        }
        for share in filters
    ]


def _kind_table(gallery: Gallery) -> list[Row]:
    half = gallery.index.spec.rows // 2
    filters: dict[str, Filter] = {
        "integer below": {"rank": {"lt": half}},
        "real from": {"score": {"gte": 0.5}},
        "time from a year on": {"taken": {"gte": "2025"}},
        "text, one of 1,000": {"mood": "mood 7"},
        "text, 100 of 1,000": {"mood": {"in": [f"mood {n}" for n in range(100)]}},
        "text starts, of as many as items": {"name": {"starts": "IMG_0"}},
        "text contains, of as many as items": {"name": {"contains": "77"}},
        "one tag": {"tag": "tag 7"},
        "ten tags": {"tag": {"in": [f"tag {n}" for n in range(10)]}},
        "integers, 10,000 of them": {"rank": {"in": list(range(10_000))}},
        "three joined": {"rank": {"lt": half}, "or": [{"tag": "tag 7"}, {"not": {"score": {"lt": 0.5}}}]},
    }
    runs: dict[str, Callable[[], object]] = {
        name: partial(_select, gallery, filter) for name, filter in filters.items()
    }
    with closing(_sqlite(gallery)) as connection:
        select = "SELECT row FROM items WHERE rank < ?"
        runs["integer below, in SQLite by an index"] = lambda: connection.execute(select, (half,)).fetchall()
        elapsed_ms = alternate(runs, rounds=_ROUNDS)
    return [{"condition": name, "select p50 ms": median(elapsed_ms[name])} for name in runs]


def _sqlite(gallery: Gallery) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (row INTEGER PRIMARY KEY, rank INTEGER)")
    ranks = ((item.row, item.attributes["rank"]) for item in gallery.items.read_all())
    connection.executemany("INSERT INTO items VALUES (?, ?)", ranks)
    connection.execute("CREATE INDEX by_rank ON items (rank)")
    return connection


def _filtered(contents: Contents, filter: Filter, search: Callable[[Contents], object]) -> Callable[[], object]:
    return lambda: search(_narrowed(contents, filter))


def _narrowed(contents: Contents, filter: Filter) -> Contents:
    return contents.where(parse_filter(filter, contents.gallery.manifest.attributes))


def _select(gallery: Gallery, filter: Filter) -> object:
    return gallery.columns.rows_of(select_items(parse_filter(filter, gallery.manifest.attributes), gallery.columns))


def _agreement(contents: Contents, filter: Filter, texts: Float32s) -> float:
    """Return the share of queries whose scores are those of an exhaustive search; float32 cannot tell nearer ones."""
    gallery = contents.gallery
    rows = gallery.columns.rows_of(select_items(parse_filter(filter, gallery.manifest.attributes), gallery.columns))
    assert gallery.index.originals is not None
    scores = gallery.index.originals[rows].astype(np.float32) @ texts[:_COMPARED].T  # (rows, queries)
    narrowed = _narrowed(contents, filter)
    same = 0
    for query, column in zip(texts[:_COMPARED], scores.T, strict=True):
        found = narrowed.nearest(query, k=_K)
        expected = np.sort(column)[::-1][:_K]
        inside = np.isin(found.rows, rows).all() and len(set(found.rows.tolist())) == len(expected)
        same += bool(inside and np.allclose(found.cosines, expected, atol=2e-6))
    return same / _COMPARED


def _products(texts: Float32s) -> list[Composed]:
    """Return queries whose two scores are multiplied."""
    pictures = clip_shaped.pictures(20, seed=1)
    kit = _Texts(texts)
    return [
        compose(Query(picture, (Text(str(n)),)), None, kit, find_method("product"), {})
        for n, picture in enumerate(pictures)
    ]


class _Texts:
    """A kit that knows texts by number and nothing else, which is all that the product asks for."""

    def __init__(self, texts: Float32s) -> None:
        self._texts = texts
        self.mean: Any = None
        self.covariance: Any = None
        self.concepts: Any = None

    def encode_texts(self, texts: list[str]) -> Float32s:
        return self._texts[[int(text) for text in texts]]

    def encode_prompts(self, prompts: list[str], pseudo_tokens: Float32s) -> Float32s:
        raise NotImplementedError

    def invert(self, recipe: str, vector: Float32s) -> Float32s:
        raise NotImplementedError

    def invert_features(self, recipe: str, features: Float32s) -> Float32s:
        raise NotImplementedError

    def nearest(self, vector: Float32s, count: int) -> Float32s:
        raise NotImplementedError


def _cycle(values: Any) -> Iterator[Any]:
    while True:
        yield from values


def _report(rows: int, shares: list[Row], fused: list[Row], kinds: list[Row]) -> Report:
    worst, slowest = (max(float(row["filtered over unfiltered"] or 0) for row in table) for table in (shares, fused))
    same = min(float(row["same as exhaustive"] or 0) for row in shares)
    return Report(
        settings={"rows": rows, "dim": clip_shaped.DIM, "k": _K, "rounds": _ROUNDS, "queries compared": _COMPARED},
        threads=1,
        tables={"Filtered queries": shares, "Filtered queries that fuse two scores": fused, "Conditions": kinds},
        bars=[
            at_most("filtered over unfiltered time, the worst share", worst, 2),
            at_most("the same of fused queries", slowest, 2),
            at_least("queries that answer as an exhaustive search does, the worst share", same, 1),
        ],
        notes=[
            "A query is timed from its vector to ranked rows, parsing the filter and asking the columns included.",
            "The farthest: the pictures farthest from the texts, none of which an unfiltered search would find.",
            "Answers are compared with NumPy's products over all allowed rows, to 2e-6 of a score.",
            "Synthetic vectors with CLIP's statistics (clip_shaped.py), not embeddings of a trained model.",
        ],
        packages=("numpy", "usearch", "numkong"),
    )
