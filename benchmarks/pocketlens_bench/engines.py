"""The indexes that are compared: pocketlens's own, faiss's and hnswlib's, each at settings that trade recall for time.

faiss and hnswlib are no dependencies of pocketlens: `make bench-index` installs them beside it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens._types import Float16s, Float32s, Int64s
from pocketlens.errors import MissingPart
from pocketlens.gallery import Counts, Gallery
from pocketlens.gallery_writer import write_gallery
from pocketlens.index import PARTITIONS, Index, IndexSpec
from pocketlens.items import Item
from pocketlens.model import Space
from pocketlens.tune import recall
from pocketlens_bench.measure import Row, alternate, median, ratio, significant

K = 10
OURS, FLAT, IVF, NUMPY = "pocketlens", "faiss flat SQ8", "faiss IVF-SQ8", "NumPy float32"
RESCORED = f"{IVF}, re-scored"
_RESCORED = 50
_SHARES = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3)  # of the partitions
_WIDTHS = (64, 128, 256, 512, 1024, 2048)
_ADDED, _LINKS = 128, 16  # width and links of a graph's build
_SAMPLED, _TRAINED = 40, 5  # rows a list to train on, and rounds of it, as pocketlens's own

Search = Callable[[Float32s, int], Int64s]


@dataclass(frozen=True, slots=True)
class Engine:
    """An index over the vectors.

    Attributes:
        name: for tables.
        search: rows of the ten nearest, int64 (10,), of one query, float32 (1, dim), at a setting.
        settings: to measure at; 0 where there is nothing to set.
        build_s: seconds.
        file_bytes: of what is kept to search, without vectors to re-score from; None where nothing else is kept.
    """

    name: str
    search: Search
    settings: Sequence[int]
    build_s: float
    file_bytes: int | None


def measure_engines(
    engines: Sequence[Engine], queries: Float32s, truth: Int64s, *, base: str, rounds: int
) -> tuple[list[Row], dict[str, list[float]]]:
    """Return a row for every engine and setting, and milliseconds by "name, setting"; all take turns.

    Args:
        engines: what to measure.
        queries: float32 (n, dim).
        truth: int64 (n, 10), the exact answers.
        base: name of the engine whose time ratios are against.
        rounds: timed queries of each.
    """
    points = {key_of(engine.name, setting): (engine, setting) for engine in engines for setting in engine.settings}
    found = {
        key: np.stack([engine.search(query[np.newaxis], setting) for query in queries])
        for key, (engine, setting) in points.items()
    }
    elapsed_ms = alternate({key: _one_by_one(*point, queries) for key, point in points.items()}, rounds=rounds)
    rows: list[Row] = [
        {
            "index": engine.name,
            "setting": setting or None,
            "recall@10": round(recall(found[key], truth), 4),
            "p50 ms": median(elapsed_ms[key]),
            "p95 ms": significant(float(np.percentile(elapsed_ms[key], 95))),
            f"time over {base}": ratio(elapsed_ms[key], elapsed_ms[key_of(base, 0)]),
        }
        for key, (engine, setting) in points.items()
    ]
    return rows, elapsed_ms


def key_of(name: str, setting: int) -> str:
    """Return what names an engine at a setting."""
    return f"{name}, {setting}"


def builds(engines: Sequence[Engine], vectors: Float32s) -> list[Row]:
    """Return build time and size of every engine that keeps more than the vectors."""
    return [
        {
            "index": engine.name,
            "build s": significant(engine.build_s, 3),
            "MB": significant(engine.file_bytes / 1e6),
            "size over float32": significant(engine.file_bytes / vectors.nbytes, 3),
        }
        for engine in engines
        if engine.file_bytes is not None
    ]


def check_peers() -> None:
    """Raise `MissingPart` unless faiss and hnswlib are there."""
    missing = [name for name in ("faiss", "hnswlib") if find_spec(name) is None]
    if missing:
        raise MissingPart(f"{' and '.join(missing)} cannot be imported; make bench-index installs and measures")


def own_gallery(folder: Path, vectors: Float32s, probes: Float32s) -> tuple[Gallery, Engine, Int64s]:
    """Return a gallery of the vectors, written and opened, its index as an engine, and the vector of each row.

    Args:
        folder: an empty one.
        vectors: float32 (rows, dim).
        probes: float32 (n, dim), the texts that a build tunes on.
    """
    items = [Item(f"{row:07}", row, f"{row:07}", 1, 1, f"{row:064x}", {}) for row in range(len(vectors))]
    space, counts = Space("clip-shaped@" + "0" * 64, vectors.shape[1]), Counts(len(items), len(items), 0, {})
    start = time.perf_counter()
    write_gallery(folder, vectors, items, space=space, model="clip-shaped", counts=counts, probes=probes)
    seconds = time.perf_counter() - start
    gallery = Gallery.open(folder)
    index, spec = gallery.index, gallery.manifest.index
    vector_of = np.array([int(item.id) for item in gallery.items.read_all()])
    kept = [path for path in (folder / "index.usearch", folder / "partitions.npz") if path.exists()]
    shares = [max(1, round(share * spec.partitions)) for share in _SHARES]
    settings = [0] if spec.kind == "exhaustive" else sorted({*shares, spec.probes})
    engine = Engine(
        OURS,
        lambda query, setting: vector_of[index.search(query, k=K, probes=setting or None).rows[0]],
        settings,
        seconds,
        sum(path.stat().st_size for path in kept),
    )
    return gallery, engine, vector_of


def numpy_scan(vectors: Float32s) -> Engine:
    """Return a product with all vectors in float32."""

    def search(query: Float32s, setting: int) -> Int64s:
        scores = vectors @ query[0]
        best = np.argpartition(scores, -K)[-K:]
        return best[np.argsort(-scores[best])]

    return Engine(NUMPY, search, [0], 0.0, None)


def faiss_flat(vectors: Float32s) -> Engine:
    """Return faiss's exhaustive search of 8-bit codes."""
    import faiss

    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    return _faiss(FLAT, index, vectors, lambda setting: None, [0])


def faiss_ivf(vectors: Float32s, originals: Float16s) -> list[Engine]:
    """Return faiss's inverted lists of 8-bit codes, as many lists as pocketlens makes, plain and re-scored."""
    import faiss

    lists = round(PARTITIONS * sqrt(len(vectors)))
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.max_points_per_centroid = _TRAINED, _SAMPLED

    def use(setting: int) -> None:
        index.nprobe = setting

    settings = [max(1, round(share * lists)) for share in _SHARES]
    plain = _faiss(IVF, index, vectors, use, settings)

    def rescored(query: Float32s, setting: int) -> Int64s:
        use(setting)
        found = index.search(query, _RESCORED)[1][0]
        scores = originals[found].astype(np.float32) @ query[0]
        return np.asarray(found[np.argsort(-scores)[:K]], dtype=np.int64)

    return [plain, Engine(RESCORED, rescored, settings, plain.build_s, None)]


def faiss_hnsw(vectors: Float32s) -> Engine:
    """Return faiss's graph over 8-bit codes."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexHNSWSQ(vectors.shape[1], kind, _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _ADDED

    def use(setting: int) -> None:
        index.hnsw.efSearch = setting

    return _faiss("faiss HNSW-SQ8", index, vectors, use, _WIDTHS)


def hnswlib_graph(vectors: Float32s) -> Engine:
    """Return hnswlib's graph over float32."""
    import hnswlib

    start = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), ef_construction=_ADDED, M=_LINKS)
    index.set_num_threads(1)
    index.add_items(vectors)
    seconds = time.perf_counter() - start

    def search(query: Float32s, setting: int) -> Int64s:
        index.set_ef(setting)
        return np.asarray(index.knn_query(query, k=K, num_threads=1)[0][0], dtype=np.int64)

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "index")  # noqa: PTH118  hnswlib takes text
        index.save_index(path)
        size = Path(path).stat().st_size
    return Engine("hnswlib float32", search, _WIDTHS, seconds, size)


def usearch_scan(gallery: Gallery, vector_of: Int64s) -> Engine:
    """Return pocketlens's exhaustive search of a gallery that has partitions."""
    from pocketlens.codes import to_codes

    index = gallery.index
    assert index.originals is not None
    vectors = index.vectors()
    rotation = index.rotation
    spec = IndexSpec("exhaustive", len(vectors), partitions=1, probes=1, recall=1.0)
    scan = Index.build(to_codes(vectors, rotation), rotation, index.originals[:], spec)
    return Engine(
        f"{OURS}, exhaustive", lambda query, setting: vector_of[scan.search(query, k=K).rows[0]], [0], 0.0, None
    )


def _faiss(name: str, index: Any, vectors: Float32s, use: Callable[[int], None], settings: Sequence[int]) -> Engine:
    import faiss

    faiss.omp_set_num_threads(1)
    start = time.perf_counter()
    index.train(vectors)
    index.add(vectors)
    seconds = time.perf_counter() - start

    def search(query: Float32s, setting: int) -> Int64s:
        use(setting)
        return np.asarray(index.search(query, K)[1][0], dtype=np.int64)

    return Engine(name, search, settings, seconds, int(faiss.serialize_index(index).nbytes))


def _one_by_one(engine: Engine, setting: int, queries: Float32s) -> Callable[[], object]:
    place = iter(range(10**9))
    return lambda: engine.search(queries[next(place) % len(queries)][np.newaxis], setting)
