from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlens import index as index_module
from pocketlens.codes import make_rotation, to_codes
from pocketlens.errors import FormatError
from pocketlens.index import Index, IndexSpec, Matches
from pocketlens.inspect import verify
from pocketlens.partitions import Partitions, make_partitions, open_partitions
from pocketlens.tune import TARGET_RECALL, recall, tune_probes
from tests.colours import unit
from tests.folders import files_below
from tests.galleries import gallery_of, item_of

DIM = 32
ROWS = 3_000
COUNT = 60
ROTATION = make_rotation(DIM)


@pytest.fixture
def vectors(rng: np.random.Generator) -> np.ndarray:
    """Return unit vectors around 40 points, so that some are nearer to each other than to the rest."""
    points = unit(rng.standard_normal((40, DIM)))
    return unit(points[rng.integers(0, 40, ROWS)] + 0.15 * rng.standard_normal((ROWS, DIM)))


@pytest.fixture
def queries(rng: np.random.Generator) -> np.ndarray:
    return unit(rng.standard_normal((50, DIM)))


def build(vectors: np.ndarray, *, rescore: bool = True, probes: int = 8) -> tuple[Index, np.ndarray, Partitions]:
    """Return an index by partitions, the vectors in its order, and the partitions."""
    codes = to_codes(vectors, ROTATION)
    order, partitions = make_partitions(vectors, codes, ROTATION, COUNT)
    vectors, codes = vectors[order], codes[order]
    spec = IndexSpec("partitions", len(vectors), partitions=partitions.count, probes=probes, recall=1.0)
    originals = vectors.astype(np.float16) if rescore else None
    return Index.build(codes, ROTATION, originals, spec, partitions=partitions), vectors, partitions


def same(a: Matches, b: Matches) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("rows", "scores", "counts"))


def test_every_row_is_in_one_partition_and_nearest_to_its_centre(vectors: np.ndarray) -> None:
    codes = to_codes(vectors, ROTATION)
    order, partitions = make_partitions(vectors, codes, ROTATION, COUNT)
    assert sorted(order.tolist()) == list(range(ROWS))
    assert partitions.starts[0] == 0
    assert partitions.starts[-1] == ROWS
    assert (np.diff(partitions.starts) > 0).all()
    assert 30 < partitions.count <= COUNT
    members = np.split(vectors[order], partitions.starts[1:-1])
    means = np.stack([part.mean(axis=0) for part in members])
    distances = ((vectors[order][:, np.newaxis] - means) ** 2).sum(axis=2)
    own = np.repeat(np.arange(len(members)), np.diff(partitions.starts))
    assert (distances[np.arange(ROWS), own] <= 1.3 * distances.min(axis=1)).mean() > 0.95
    scaled = partitions.centers * partitions.weights[:, np.newaxis]
    np.testing.assert_allclose(scaled, means @ ROTATION, atol=0.01)
    lengths = np.linalg.norm(codes[order].astype(np.float64), axis=1)
    np.testing.assert_allclose(partitions.scales * lengths, 1, atol=1e-6)


def test_the_same_vectors_make_the_same_partitions(vectors: np.ndarray) -> None:
    codes = to_codes(vectors, ROTATION)
    (order, one), (again, other) = (make_partitions(vectors, codes, ROTATION, COUNT) for _ in range(2))
    np.testing.assert_array_equal(order, again)
    for name in ("centers", "weights", "starts", "scales"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_copies_of_one_vector_leave_no_partition_empty(vectors: np.ndarray) -> None:
    copies = np.repeat(vectors[:2], 50, axis=0)
    order, partitions = make_partitions(copies, to_codes(copies, ROTATION), ROTATION, 20)
    assert partitions.count <= 2
    assert partitions.starts[-1] == len(order) == 100


@pytest.mark.parametrize("rescore", [True, False])
def test_with_every_partition_the_answers_are_those_of_a_scan(
    vectors: np.ndarray, queries: np.ndarray, rescore: bool
) -> None:
    index, ordered, _partitions = build(vectors, rescore=rescore, probes=COUNT)
    originals = ordered.astype(np.float16) if rescore else None
    spec = IndexSpec("exhaustive", ROWS, partitions=1, probes=1, recall=1.0)
    scan = Index.build(to_codes(ordered, ROTATION), ROTATION, originals, spec)
    found, expected = index.search(queries, k=10), scan.search(queries, k=10)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)  # USearch's cosine of int8 is not exact
    assert recall(found.rows, expected.rows) >= 0.99


def test_the_answers_are_the_best_of_the_nearest_partitions(vectors: np.ndarray, queries: np.ndarray) -> None:
    index, ordered, partitions = build(vectors, probes=5)
    found = index.search(queries, k=10)
    means = np.stack([part.mean(axis=0) for part in np.split(ordered, partitions.starts[1:-1])])
    own = np.repeat(np.arange(partitions.count), np.diff(partitions.starts))
    agreeing = 0
    for query, rows in zip(queries, found.rows, strict=True):
        nearest = np.argsort(-(means @ query))[:5]
        scores = np.where(np.isin(own, nearest), ordered @ query, -np.inf)
        agreeing += len(set(np.argsort(-scores)[:10]) & set(rows.tolist()))
    assert agreeing >= 0.98 * found.rows.size  # codes of centres may swap two that are all but as near


@pytest.mark.parametrize("k", [1, 10, 500, 1000])
def test_few_probes_give_as_many_hits_as_were_asked_for(vectors: np.ndarray, queries: np.ndarray, k: int) -> None:
    matches = build(vectors, probes=1)[0].search(queries, k=k)
    assert matches.counts.tolist() == [k] * len(queries)
    assert all(len(set(rows)) == k for rows in matches.rows.tolist())
    assert (np.diff(matches.scores, axis=1) <= 0).all()


def test_candidates_beyond_the_probes_are_found_too(vectors: np.ndarray, queries: np.ndarray) -> None:
    index = build(vectors, probes=1)[0]
    assert index.candidates(queries[:1], ROWS).tolist() == list(range(ROWS))


def test_tuning_reaches_its_target_with_the_least_number_of_probes(vectors: np.ndarray, queries: np.ndarray) -> None:
    index, ordered, partitions = build(vectors)
    spec = tune_probes(index, ordered, queries)
    assert spec == replace(index.spec, probes=spec.probes, recall=spec.recall)
    truth = np.argsort(-(queries @ ordered.T), axis=1)[:, :10]
    found = {probes: recall(index.search(queries, k=10, probes=probes).rows, truth) for probes in range(1, COUNT)}
    assert spec.recall == round(found[spec.probes], 4)
    assert found[spec.probes] >= TARGET_RECALL
    assert found[int(spec.probes / 1.1) - 1] < TARGET_RECALL
    assert 1 < spec.probes < partitions.count


def test_tuning_without_queries_makes_harder_ones_than_pictures(vectors: np.ndarray) -> None:
    index, ordered, _partitions = build(vectors)
    assert tune_probes(index, ordered, ordered[:200]).probes < tune_probes(index, ordered, None).probes


def test_tuning_tells_a_recall_that_misses_the_target(vectors: np.ndarray, queries: np.ndarray) -> None:
    index, ordered, partitions = build(vectors)
    spec = tune_probes(index, -ordered, queries)  # what the index does not hold
    assert spec.probes == partitions.count
    assert spec.recall < 0.5


def test_another_number_of_probes_holds_for_one_search_only(vectors: np.ndarray, queries: np.ndarray) -> None:
    index = build(vectors, probes=COUNT)[0]
    wide = index.search(queries, k=10)
    assert not same(index.search(queries, k=10, probes=1), wide)
    assert same(index.search(queries, k=10), wide)


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring the crossover down to these galleries' size."""
    monkeypatch.setattr(index_module, "CROSSOVER_ROWS", ROWS)


@pytest.mark.usefixtures("low")
def test_a_large_gallery_keeps_its_tuned_probes_and_gives_each_item_its_own_vector(
    tmp_path: Path, vectors: np.ndarray, queries: np.ndarray
) -> None:
    gallery = gallery_of(tmp_path, vectors)
    folder, spec = tmp_path / "gallery", gallery.manifest.index
    assert spec.kind == "partitions"
    assert 1 < spec.probes <= spec.partitions == len(np.load(folder / "partitions.npz")["centers"])
    items = gallery.items.read_all()
    assert [item.row for item in items] == list(range(ROWS))
    places = [int(item.id) for item in items]
    np.testing.assert_allclose(gallery.index.vectors(), vectors[places], atol=1e-3)
    found = gallery.index.search(queries, k=10)
    assert same(found, gallery.index.search(queries, k=10, probes=spec.probes))
    assert not same(found, gallery.index.search(queries, k=10, probes=1))
    gallery.close()
    verify(folder)


@pytest.mark.usefixtures("low")
def test_the_same_vectors_make_the_same_large_gallery(tmp_path: Path, vectors: np.ndarray) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        gallery_of(tmp_path / name, vectors).close()
    names = files_below(tmp_path / "a")
    assert "gallery/partitions.npz" in names and names == files_below(tmp_path / "b")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.usefixtures("low")
def test_items_that_share_a_row_still_do_in_a_large_gallery(tmp_path: Path, vectors: np.ndarray) -> None:
    copies = [item_of(row, id=f"copy of {row}") for row in range(0, ROWS, 500)]
    gallery = gallery_of(tmp_path, vectors, [*map(item_of, range(ROWS)), *copies])
    for copy in copies:
        row = gallery.items.find(copy.id).row
        assert [item.id for item in gallery.items.of_row(row)] == [str(copy.row), copy.id]
    gallery.close()


def _unsorted(arrays: dict[str, Any]) -> None:
    arrays["starts"][1] = arrays["starts"][2]


def _short(arrays: dict[str, Any]) -> None:
    arrays["starts"][-1] -= 1


def _nan(arrays: dict[str, Any]) -> None:
    arrays["weights"][0] = np.nan


def _wide(arrays: dict[str, Any]) -> None:
    arrays["centers"] = arrays["centers"].astype(np.float32)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_unsorted, "starts do not rise from 0 to 3000"),
        (_short, "starts do not rise from 0 to 3000"),
        (_nan, r"weights is float32 \(\d+,\), expected finite float32"),
        (_wide, r"centers is float32 \(\d+, 32\), expected finite int8"),
    ],
)
def test_arrays_that_are_no_partitions_of_the_gallery_are_a_format_error(
    vectors: np.ndarray, tmp_path: Path, harm: Any, message: str
) -> None:
    partitions = build(vectors)[2]
    partitions.save(tmp_path / "p.npz")
    arrays = dict(np.load(tmp_path / "p.npz"))
    harm(arrays)
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(FormatError, match=f"p.npz: {message}"):
        open_partitions(tmp_path / "p.npz", rows=ROWS, dim=DIM, count=partitions.count)
