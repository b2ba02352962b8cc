from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlens import index as index_module
from pocketlens._native import usearch
from pocketlens.codes import from_codes, make_rotation, to_codes, to_units
from pocketlens.errors import BadQuery, FormatError
from pocketlens.index import Index, IndexSpec, Matches, spec_for
from pocketlens.tune import exact_rows, recall
from tests.colours import unit

DIM = 32
ROTATION = make_rotation(DIM)


@pytest.fixture
def vectors(rng: np.random.Generator) -> np.ndarray:
    return unit(rng.standard_normal((2_000, DIM)))


@pytest.fixture
def queries(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((20, DIM)).astype(np.float32) * 3


def build(vectors: np.ndarray, *, rescore: bool = True, spec: IndexSpec | None = None) -> Index:
    originals = vectors.astype(np.float16) if rescore else None
    return Index.build(to_codes(vectors, ROTATION), ROTATION, originals, spec or spec_for(len(vectors)))


def same(a: Matches, b: Matches) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("rows", "scores", "counts"))


def test_rescored_answers_are_those_of_exact_search(vectors: np.ndarray, queries: np.ndarray) -> None:
    matches = build(vectors).search(queries, k=10)
    scores = unit(queries) @ vectors.astype(np.float16).astype(np.float32).T
    expected = np.argsort(-scores, axis=1)[:, :10]
    np.testing.assert_array_equal(matches.rows, expected)
    np.testing.assert_allclose(matches.scores, np.take_along_axis(scores, expected, axis=1), atol=1e-6)
    assert matches.counts.tolist() == [10] * 20


def test_no_cosine_leaves_its_range(rng: np.random.Generator) -> None:
    vectors = unit(rng.standard_normal((300, DIM)))
    assert ((vectors.astype(np.float16).astype(np.float32) * vectors).sum(axis=1) > 1).any()  # a float16 copy is longer
    scores = build(vectors).search(vectors, k=1).scores  # each finds itself
    assert scores.max() <= 1
    assert scores.min() > 0.999


def test_without_originals_scores_are_the_cosines_of_the_codes(vectors: np.ndarray, queries: np.ndarray) -> None:
    matches = build(vectors, rescore=False).search(queries, k=10)
    scores = from_codes(to_codes(queries, ROTATION), ROTATION) @ from_codes(to_codes(vectors, ROTATION), ROTATION).T
    expected = -np.sort(-scores, axis=1)[:, :10]
    np.testing.assert_allclose(matches.scores, expected, atol=2e-3)  # USearch's cosine of int8 is not exact
    np.testing.assert_allclose(np.take_along_axis(scores, matches.rows, axis=1), expected, atol=2e-3)


@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize(("rows", "count", "k"), [(1, 1, 1), (3, 2, 10), (60, 0, 5), (60, 3, 1000), (60, 1, 60)])
def test_shapes_never_depend_on_the_data(
    vectors: np.ndarray, queries: np.ndarray, rows: int, count: int, k: int, rescore: bool
) -> None:
    matches = build(vectors[:rows], rescore=rescore).search(queries[:count], k=k)
    assert matches.rows.shape == matches.scores.shape == (count, k)
    assert matches.rows.dtype == matches.counts.dtype == np.int64
    assert matches.scores.dtype == np.float32
    real = min(rows, k)
    assert matches.counts.tolist() == [real] * count
    assert (matches.rows[:, real:] == -1).all()
    assert np.isneginf(matches.scores[:, real:]).all()
    assert all(len(set(found)) == real and min(found) >= 0 for found in matches.rows[:, :real].tolist())
    assert (np.diff(matches.scores[:, :real], axis=1) <= 0).all()


@pytest.mark.parametrize("rescore", [True, False])
def test_equal_scores_stand_in_row_order(vectors: np.ndarray, rescore: bool) -> None:
    tied = np.repeat(vectors[[0, 1]], 20, axis=0)  # rows 0..19 are alike, and 20..39
    matches = build(tied, rescore=rescore).search(vectors[[1]], k=40)
    assert matches.rows[0].tolist() == [*range(20, 40), *range(20)]


def test_answers_do_not_depend_on_the_length_of_a_query(vectors: np.ndarray, queries: np.ndarray) -> None:
    index = build(vectors)
    expected = index.search(queries, k=5)
    for scale in (1e-30, 2.0**-100, 1e30):
        found = index.search(queries * np.float32(scale), k=5)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("k", [0, -1, 1001, 2.0, "3", None, True])
def test_k_out_of_range_is_a_bad_query(vectors: np.ndarray, queries: np.ndarray, k: object) -> None:
    with pytest.raises(BadQuery, match="expected an integer from 1 to 1000"):
        build(vectors[:5]).search(queries, k=k)  # type: ignore[arg-type]


@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_opened_index_gives_the_answers_of_the_saved_one(
    vectors: np.ndarray, queries: np.ndarray, tmp_path: Path, rescore: bool, threads: int
) -> None:
    built = build(vectors, rescore=rescore)
    built.save(tmp_path / "codes")
    originals = vectors.astype(np.float16) if rescore else None
    opened = Index.open(tmp_path / "codes", ROTATION, originals, built.spec, threads=threads)
    for k in (1, 10, 100):
        assert same(opened.search(queries, k=k), built.search(queries, k=k))
    np.testing.assert_array_equal(opened.vectors(), built.vectors())


def test_vectors_are_the_originals_or_read_back_from_the_codes(vectors: np.ndarray) -> None:
    np.testing.assert_array_equal(build(vectors).vectors(), vectors.astype(np.float16).astype(np.float32))
    read_back = build(vectors, rescore=False).vectors()
    np.testing.assert_array_equal(read_back, from_codes(to_codes(vectors, ROTATION), ROTATION))


def test_the_same_codes_give_the_same_bytes(vectors: np.ndarray, tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(vectors).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("rows", "dim", "found"), [(9, DIM, "9 x 32"), (10, 8, "10 x 8")])
def test_a_file_of_another_size_is_a_format_error(tmp_path: Path, rows: int, dim: int, found: str) -> None:
    rotation = make_rotation(dim)
    codes = to_codes(np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32), rotation)
    Index.build(codes, rotation, None, spec_for(rows)).save(tmp_path / "codes")
    with pytest.raises(FormatError, match=f"codes holds {found} codes of type I8, expected 10 x 32 codes"):
        Index.open(tmp_path / "codes", ROTATION, None, spec_for(10))


def test_a_file_of_another_data_type_is_a_format_error(vectors: np.ndarray, tmp_path: Path) -> None:
    floats = usearch.Index(ndim=DIM, metric="cos", dtype="f32")
    floats.add(np.arange(10), vectors[:10], threads=1)
    floats.save(str(tmp_path / "codes"))
    with pytest.raises(FormatError, match=r"codes holds 10 x 32 codes of type F32, expected .* of type I8"):
        Index.open(tmp_path / "codes", ROTATION, None, spec_for(10))


@pytest.mark.parametrize("content", [b"", b"usearch", b"not an index" * 100])
def test_a_file_that_is_no_index_is_a_format_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "codes").write_bytes(content)
    with pytest.raises(FormatError, match="codes is not a USearch index"):
        Index.open(tmp_path / "codes", ROTATION, None, spec_for(10))


def test_partitions_are_made_only_from_the_crossover_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spec_for(index_module.CROSSOVER_ROWS - 1).kind == "exhaustive"
    assert spec_for(index_module.CROSSOVER_ROWS).kind == "partitions"
    assert spec_for(1).recall == 1.0
    monkeypatch.setattr(index_module, "CROSSOVER_ROWS", 5)
    assert spec_for(5).kind == "partitions"


def test_exact_rows_and_recall_by_hand() -> None:
    corners = np.eye(3, dtype=np.float32)
    queries = np.array([[3, 2, 1], [0, 1, 2]], dtype=np.float32)
    assert exact_rows(corners, queries, k=2).tolist() == [[0, 1], [2, 1]]
    assert exact_rows(corners, queries, k=9).tolist() == [[0, 1, 2], [2, 1, 0]]
    assert recall(np.array([[0, 5], [2, 1]]), np.array([[0, 1], [1, 2]])) == 0.75


@pytest.mark.parametrize("rescore", [True, False])
def test_inner_products_equal_numpy(rng: np.random.Generator, rescore: bool) -> None:
    vectors = to_units(rng.standard_normal((2_500, 24)).astype(np.float32))
    vectors[7, :20] = 1e-6  # subnormal in float16
    originals = vectors.astype(np.float16) if rescore else None
    rotation = make_rotation(24)
    spec = spec_for(2_500)
    index = Index.build(to_codes(vectors, rotation), rotation, originals, spec)
    asked = np.array([[1e-3], [-1], [50]]) * rng.standard_normal((3, 24))
    rows = rng.permutation(2_500)[:1_500]
    for found, chosen in ((index.inner_products(asked.astype(np.float32)), np.arange(2_500)),
                          (index.inner_products(asked.astype(np.float32), rows), rows)):  # fmt: skip
        expected = asked @ index.vectors(chosen).astype(np.float64).T
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(found[0], expected[0], atol=2e-9)
    assert index.inner_products(asked.astype(np.float32), rows[:0]).shape == (3, 0)


def test_candidates_are_all_that_any_query_is_near(rng: np.random.Generator) -> None:
    vectors = to_units(rng.standard_normal((3_000, 24)).astype(np.float32))
    rotation = make_rotation(24)
    index = Index.build(to_codes(vectors, rotation), rotation, None, spec_for(3_000))
    queries = vectors[[5, 9]] * np.float32(3)
    found = index.candidates(queries, 1_500)  # more than a search may ask for
    assert found.tolist() == sorted(set(found.tolist()))
    codes = index.vectors()
    for query in queries:
        best = np.argsort(-(codes @ query))[:1_400]
        assert np.isin(best, found).mean() > 0.99
    assert index.candidates(queries, 10**6).tolist() == list(range(3_000))
