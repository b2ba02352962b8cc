from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlens.errors import MissingPart
from pocketlens.tune import exact_rows
from pocketlens_bench import clip_shaped, engines, index, index_million
from pocketlens_bench.engines import (
    FLAT,
    IVF,
    NUMPY,
    OURS,
    RESCORED,
    Engine,
    builds,
    key_of,
    measure_engines,
    numpy_scan,
)
from pocketlens_bench.measure import Options, Row


def _point(name: str, setting: int | None, recall: float, p50_ms: float) -> Row:
    return {"index": name, "setting": setting, "recall@10": recall, "p50 ms": p50_ms}


def test_the_least_time_at_a_recall_of_hand_made_points() -> None:
    points = [
        _point(OURS, 5, 0.94, 1.0),
        _point(OURS, 9, 0.96, 3.0),
        _point(OURS, 7, 0.95, 2.0),
        _point(IVF, 4, 0.97, 4.0),
        _point(RESCORED, 4, 0.90, 4.0),
        _point(FLAT, None, 0.97, 40.0),
    ]
    elapsed_ms = {key_of(OURS, 7): [2.0, 2.0, 2.0], key_of(IVF, 4): [4.0, 4.0, 8.0], key_of(FLAT, 0): [40.0] * 3}
    least = index_million.at_target(points, elapsed_ms, 0.95)
    assert [(row["index"], row["setting"], row[f"time over {IVF}"]) for row in least] == [
        (OURS, 7, 0.5),
        (IVF, 4, 1.0),
        (FLAT, None, 10.0),
    ]
    assert {row[f"time over {RESCORED}"] for row in least} == {None}  # which does not reach it


def test_an_own_gallery_answers_with_the_vectors_own_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketlens.index.CROSSOVER_ROWS", 1_000)
    vectors, texts = clip_shaped.pictures(2_000), clip_shaped.texts(80)
    truth = exact_rows(vectors, texts[:30], k=10)
    gallery, ours, vector_of = engines.own_gallery(tmp_path, vectors, texts[30:])
    assert gallery.manifest.index.kind == "partitions"
    assert gallery.manifest.index.probes in ours.settings
    exhaustive = engines.usearch_scan(gallery, vector_of)
    measured = [numpy_scan(vectors), ours, exhaustive]
    rows, elapsed_ms = measure_engines(measured, texts[:30], truth, base=NUMPY, rounds=2)
    found = {key_of(str(row["index"]), int(row["setting"] or 0)): float(row["recall@10"] or 0) for row in rows}
    assert found.keys() == elapsed_ms.keys()
    assert found[key_of(NUMPY, 0)] == 1.0
    assert found[key_of(exhaustive.name, 0)] >= 0.99
    assert found[key_of(OURS, gallery.manifest.index.probes)] >= 0.95
    assert found[key_of(OURS, min(ours.settings))] < found[key_of(OURS, max(ours.settings))]
    sizes = builds(measured, vectors)
    assert [row["index"] for row in sizes] == [OURS]
    assert 0.25 < float(sizes[0]["size over float32"] or 0) < 0.32
    gallery.close()


@pytest.mark.parametrize("script", [index, index_million])
def test_without_faiss_a_script_says_what_installs_it(script: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MissingPart, match="faiss and hnswlib cannot be imported; make bench-index"):
        script.run(Options(quick=True), print)  # type: ignore[attr-defined]


def test_numpys_scan_is_exact() -> None:
    vectors = np.eye(20, dtype=np.float32)
    query = np.arange(20, dtype=np.float32)[np.newaxis]
    engine: Engine = numpy_scan(vectors)
    assert engine.search(query, 0).tolist() == list(range(19, 9, -1))
