"""Several segments are searched as one: exhaustively they give the very answers of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlens.codes import make_rotation, to_codes
from pocketlens.fusion import top
from pocketlens.index import Index, IndexSpec, Matches, spec_for
from pocketlens.partitions import make_partitions
from pocketlens.subset import search_among
from pocketlens.tune import exact_rows, recall, tune_probes
from tests.colours import unit

DIM, ROWS = 32, 3_000
ROTATION = make_rotation(DIM)
CUTS = ([1_000, 2_000], [1], [2_999], [10, 11, 12, 2_500], [1_500])


@pytest.fixture
def vectors(rng: np.random.Generator) -> np.ndarray:
    return unit(rng.standard_normal((ROWS, DIM)))


@pytest.fixture
def queries(rng: np.random.Generator) -> np.ndarray:
    return unit(rng.standard_normal((30, DIM)))


def build(vectors: np.ndarray, rescore: bool = True) -> Index:
    originals = vectors.astype(np.float16) if rescore else None
    return Index.build(to_codes(vectors, ROTATION), ROTATION, originals, spec_for(len(vectors)))


def partitioned(vectors: np.ndarray, count: int, probes: int) -> tuple[Index, np.ndarray]:
    """Return an index by partitions, and the number that each of its rows has among the vectors."""
    codes = to_codes(vectors, ROTATION)
    order, partitions = make_partitions(vectors, codes, ROTATION, count)
    spec = IndexSpec("partitions", len(vectors), partitions.count, probes=probes, recall=1.0, code_error=0.1)
    originals = vectors[order].astype(np.float16)
    return Index.build(codes[order], ROTATION, originals, spec, partitions=partitions), order


def joined(vectors: np.ndarray, cuts: list[int], rescore: bool = True, gone: np.ndarray | None = None) -> Index:
    return Index.join([build(part, rescore) for part in np.split(vectors, cuts)], gone)


def assert_same(found: Matches, expected: Matches) -> None:
    for name in ("rows", "scores", "counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_segments_answer_as_the_whole(vectors: np.ndarray, queries: np.ndarray, cuts: list[int], rescore: bool) -> None:
    whole, index = build(vectors, rescore), joined(vectors, cuts, rescore)
    for k in (1, 10, 200):
        assert_same(index.search(queries, k=k), whole.search(queries, k=k))
    np.testing.assert_array_equal(index.candidates(queries[:3], 500), whole.candidates(queries[:3], 500))
    np.testing.assert_array_equal(index.inner_products(queries), whole.inner_products(queries))
    some = np.array([0, 999, 1_000, 2_999, 1])
    np.testing.assert_array_equal(index.inner_products(queries, some), whole.inner_products(queries, some))
    np.testing.assert_array_equal(index.vectors(), whole.vectors())
    assert index.spec == whole.spec


@pytest.mark.parametrize("count", [20, 2_000])
def test_search_among_rows_of_segments_is_that_of_the_whole(
    vectors: np.ndarray, queries: np.ndarray, rng: np.random.Generator, count: int
) -> None:
    whole, index = build(vectors), joined(vectors, [1_000, 2_000])
    rows = np.sort(rng.choice(ROWS, size=count, replace=False))
    for query in queries:
        for found, expected in zip(
            search_among(index, query, rows, k=10), search_among(whole, query, rows, k=10), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.997, 1.0])
@pytest.mark.parametrize("kind", ["exhaustive", "partitions"])
def test_rows_that_are_gone_are_never_found_and_hide_no_others(
    vectors: np.ndarray, queries: np.ndarray, rng: np.random.Generator, share: float, kind: str
) -> None:
    gone = rng.random(ROWS) < share
    if kind == "exhaustive":
        index = joined(vectors, [1_000, 2_000], gone=gone)
    else:
        parts = [partitioned(part, 20, probes=20) for part in np.split(vectors, 2)]
        vectors = np.concatenate([part[order] for part, (_, order) in zip(np.split(vectors, 2), parts, strict=True)])
        index = Index.join([part for part, _ in parts], gone)
    left = np.flatnonzero(~gone)
    np.testing.assert_array_equal(index.rows, left)
    stored = vectors.astype(np.float16).astype(np.float32)
    for query in queries:
        matches = index.search(query[np.newaxis], k=10)
        expected = left[top((stored @ query)[left], 10)]
        assert matches.counts[0] == min(10, len(left))
        np.testing.assert_array_equal(matches.rows[0, : len(expected)], expected)
        assert (matches.rows[0, len(expected) :] == -1).all()
    assert set(index.candidates(queries[:2], ROWS)) == set(left)


def tuned(vectors: np.ndarray, count: int, queries: np.ndarray) -> tuple[Index, np.ndarray]:
    """Return an index by partitions as a build tunes it, and the number that each row has among the vectors."""
    index, order = partitioned(vectors, count, probes=1)
    probes = tune_probes(index, vectors[order], queries).probes
    return partitioned(vectors, count, probes)


def test_segments_with_partitions_find_as_much_as_one(rng: np.random.Generator) -> None:
    """Each is tuned by itself. What is among the best of all is higher among the best of its segment."""
    points = unit(rng.standard_normal((40, DIM)))
    vectors = unit(points[rng.integers(0, 40, ROWS)] + 0.15 * rng.standard_normal((ROWS, DIM)))
    tuning, queries = unit(rng.standard_normal((100, DIM))), unit(rng.standard_normal((200, DIM)))
    truth = exact_rows(vectors, queries, k=10)
    whole, order = tuned(vectors, 60, tuning)
    parts = [tuned(part, 36, tuning) for part in np.split(vectors, 3)]
    index = Index.join([part for part, _ in parts])
    numbers = np.concatenate([1_000 * n + order for n, (_, order) in enumerate(parts)])
    of_whole = recall(order[whole.search(queries, k=10).rows], truth)
    of_segments = recall(numbers[index.search(queries, k=10).rows], truth)
    assert index.spec.probes < 0.7 * index.spec.partitions  # there is something to miss
    assert 0.96 < of_whole < 1
    assert of_segments > of_whole - 0.01
    specs = [part.spec for part, _ in parts]
    assert index.spec == IndexSpec(
        "partitions", ROWS, sum(spec.partitions for spec in specs), sum(spec.probes for spec in specs), 1.0, 0.1
    )


def test_a_segment_searched_exhaustively_joins_one_by_partitions(vectors: np.ndarray, queries: np.ndarray) -> None:
    first, order = partitioned(vectors[:2_000], 20, probes=20)
    index = Index.join([first, build(vectors[2_000:])])
    numbers = np.concatenate([order, np.arange(2_000, ROWS)])
    assert index.spec.kind == "partitions"
    found = index.search(queries, k=10)
    stored = vectors.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(numbers[found.rows], exact_rows(stored, queries, k=10))
