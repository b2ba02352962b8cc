from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketlens.codes import directions, greatest_error, make_rotation, to_codes
from pocketlens.errors import BadQuery
from pocketlens.index import Index, IndexSpec, spec_for
from pocketlens.partitions import make_partitions
from pocketlens.subset import search_among
from pocketlens_bench import clip_shaped
from tests.colours import unit

ROWS, DIM = 6_000, 64


def index_of(vectors: np.ndarray, *, partitioned: bool = False, rescore: bool = True) -> Index:
    """Return an index of vectors, or one by partitions, in their order, that looks through one of them."""
    rotation = make_rotation(vectors.shape[1])
    codes, spec, partitions = to_codes(vectors, rotation), spec_for(len(vectors)), None
    if partitioned:
        order, partitions = make_partitions(vectors, codes, rotation, 80)
        vectors, codes = vectors[order], codes[order]
        spec = IndexSpec("partitions", len(vectors), partitions=partitions.count, probes=1, recall=0.1)
    originals = vectors.astype(np.float16)
    spec = replace(spec, code_error=greatest_error(originals, codes, rotation))
    return Index.build(codes, rotation, originals if rescore else None, spec, partitions=partitions)


def assert_exhaustive(index: Index, query: np.ndarray, rows: np.ndarray, k: int) -> None:
    """Compare a search with float64 products of all the rows; scores that float32 cannot tell may change places."""
    assert index.originals is not None
    found, cosines = search_among(index, query, rows, k=k)
    scores = index.originals[:].astype(np.float64) @ (query / np.linalg.norm(query)).astype(np.float64)
    expected = np.sort(scores[rows])[::-1][:k]
    assert len(set(found.tolist())) == len(found) and set(found.tolist()) <= set(rows.tolist())
    np.testing.assert_allclose(scores[found], expected, atol=1e-6)
    np.testing.assert_allclose(cosines, np.clip(expected, -1, 1), atol=1e-6)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return clip_shaped.pictures(ROWS, dim=DIM)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clip_shaped.texts(20, dim=DIM)


@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5, 49, 374, 376, 1_000, 3_000, ROWS - 1, ROWS])
def test_the_answer_is_that_of_an_exhaustive_search(
    pictures: np.ndarray, queries: np.ndarray, rng: np.random.Generator, count: int, partitioned: bool
) -> None:
    index = index_of(pictures, partitioned=partitioned)
    for query in queries:
        rows = np.sort(rng.choice(ROWS, size=count, replace=False))
        assert_exhaustive(index, query, rows, 10)


@pytest.mark.parametrize("k", [1, 100, 1_000])
def test_rows_far_from_the_query_are_found_too(pictures: np.ndarray, queries: np.ndarray, k: int) -> None:
    index = index_of(pictures)
    for query in queries[:5]:
        farthest = np.sort(np.argsort(pictures @ query)[: ROWS // 2])  # none of an unfiltered search's best
        assert_exhaustive(index, query, farthest, k)


def test_rows_that_their_codes_cannot_tell_apart_are_told_apart_by_their_originals(rng: np.random.Generator) -> None:
    vectors = unit(
        unit(rng.standard_normal(DIM)) + 3e-4 * rng.standard_normal((ROWS, DIM))
    )  # nearer than codes are exact
    index = index_of(vectors)
    rows = np.arange(0, ROWS, 2)
    assert index.originals is not None
    for query in unit(rng.standard_normal((10, DIM))):
        by_code = directions(index.codes[rows]) @ directions(to_codes(query[np.newaxis], index.rotation))[0]
        by_original = index.originals[rows].astype(np.float32) @ query
        assert not set(np.argsort(-by_original)[:10]) <= set(np.argsort(-by_code)[:50])  # fifty would not be enough
        assert_exhaustive(index, query, rows, 10)


@pytest.mark.parametrize("count", [3, 300, 3_000, ROWS])
def test_without_originals_codes_are_compared(
    pictures: np.ndarray, queries: np.ndarray, rng: np.random.Generator, count: int
) -> None:
    index = index_of(pictures, rescore=False)
    for query in queries[:5]:
        rows = np.sort(rng.choice(ROWS, size=count, replace=False))
        found, cosines = search_among(index, query, rows, k=10)
        scores = directions(index.codes[:]) @ directions(to_codes(query[np.newaxis], index.rotation))[0]
        assert set(found.tolist()) <= set(rows.tolist())
        np.testing.assert_allclose(cosines, np.sort(scores[rows])[::-1][:10], atol=1e-6)
        np.testing.assert_allclose(cosines, scores[found], atol=1e-6)
        if count == ROWS:
            np.testing.assert_allclose(cosines, index.search(query[np.newaxis], k=10).scores[0], atol=1e-6)


def test_an_opened_index_answers_as_the_built_one(pictures: np.ndarray, queries: np.ndarray, tmp_path: Path) -> None:
    built = index_of(pictures)
    built.save(tmp_path / "codes")
    assert built.originals is not None
    opened = Index.open(tmp_path / "codes", built.rotation, built.originals[:], built.spec)
    np.testing.assert_array_equal(opened.codes[:], built.codes[:])
    rows = np.arange(100, 5_000)
    for query in queries[:3]:
        found, expected = (search_among(index, query, rows, k=7)[0] for index in (opened, built))
        np.testing.assert_array_equal(found, expected)


def test_equal_rows_come_in_row_order() -> None:
    vectors = np.repeat(np.eye(2, DIM, dtype=np.float32), 500, axis=0)
    index = index_of(vectors)
    rows = np.arange(1, 1_000, 2)
    assert search_among(index, vectors[0], rows, k=5)[0].tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("k", [0, 1_001, 1.5, True])
def test_a_k_out_of_range_is_refused(pictures: np.ndarray, k: int) -> None:
    with pytest.raises(BadQuery, match="k is"):
        search_among(index_of(pictures[:10]), pictures[0], np.arange(5), k=k)


def test_the_error_of_codes_is_that_of_the_worst(pictures: np.ndarray) -> None:
    index = index_of(pictures)
    assert index.originals is not None
    rotated = index.originals[:].astype(np.float64) @ index.rotation.astype(np.float64)
    errors = np.linalg.norm(rotated - directions(index.codes[:]), axis=1)
    assert index.spec.code_error == pytest.approx(errors.max(), rel=1e-3)
    assert 1e-3 < index.spec.code_error < 3e-2
