from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketlens._native import usearch
from pocketlens.codes import from_codes, make_rotation, to_codes, to_units
from pocketlens.errors import BadQuery
from pocketlens.index import Index, spec_for
from pocketlens_bench.clip_shaped import pictures, texts

DIM = 16
ROTATION = make_rotation(DIM)
IDENTITY = np.eye(DIM, dtype=np.float32)
VECTORS = arrays(np.float32, (3, DIM), elements=st.floats(-1, 1, width=32)).filter(
    lambda vectors: bool(np.abs(vectors).max(axis=1).min() > 1e-3)
)


def test_every_code_value_is_read_back_in_proportion() -> None:
    values = np.arange(-128, 128)
    codes = np.zeros((256, DIM), dtype=np.int8)
    codes[:, 0], codes[:, 1] = values, 100
    expected = np.column_stack([values, np.full(256, 100)]) / np.hypot(values, 100)[:, np.newaxis]
    np.testing.assert_allclose(from_codes(codes, IDENTITY)[:, :2], expected, atol=1e-7)
    np.testing.assert_allclose(from_codes(codes, ROTATION), from_codes(codes, IDENTITY) @ ROTATION.T, atol=1e-6)


@pytest.mark.parametrize("rotation", [IDENTITY, ROTATION], ids=["identity", "rotation"])
def test_every_code_value_that_is_written_survives_a_round_trip(rotation: np.ndarray) -> None:
    codes = np.tile(np.arange(DIM, dtype=np.int8) * 8 - 60, (255, 1))
    codes[:, 3], codes[:, 7] = np.arange(-127, 128), -127  # the largest is always at full scale
    np.testing.assert_array_equal(to_codes(from_codes(codes, rotation), rotation), codes)


@pytest.mark.parametrize("dim", [1, 2, 63, 512])
def test_rotation_is_orthogonal_and_fixed_by_its_seed(dim: int) -> None:
    rotation = make_rotation(dim)
    assert rotation.dtype == np.float32
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dim), atol=1e-5)
    np.testing.assert_array_equal(rotation, make_rotation(dim))
    if dim > 1:
        assert not np.array_equal(rotation, make_rotation(dim, seed=1))


@given(VECTORS)
def test_error_is_at_most_half_a_step_in_the_rotated_space(vectors: np.ndarray) -> None:
    codes = to_codes(vectors, ROTATION)
    rotated = vectors.astype(np.float64) @ ROTATION
    steps = np.abs(rotated).max(axis=1, keepdims=True) / 127
    assert np.abs(codes).max(axis=1).tolist() == [127, 127, 127]
    assert (np.abs(codes * steps - rotated) <= 0.5001 * steps).all()
    cosines = (from_codes(codes, ROTATION) * to_units(vectors)).sum(axis=1)
    assert cosines.min() > 0.999


@given(VECTORS, st.integers(-90, 90))
def test_only_the_direction_matters(vectors: np.ndarray, exponent: int) -> None:
    scaled = np.ldexp(vectors, exponent)
    kept = np.abs(scaled) >= np.finfo(np.float32).tiny  # what the float32 of the input itself has lost is not ours
    if (kept | (vectors == 0)).all():
        np.testing.assert_array_equal(to_codes(scaled, ROTATION), to_codes(vectors, ROTATION))
        np.testing.assert_array_equal(to_units(scaled), to_units(vectors))


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-3, 1e30, 3e38])
def test_tiny_and_huge_vectors_keep_their_direction(rng: np.random.Generator, scale: float) -> None:
    vectors = rng.uniform(-1, 1, (50, DIM)).astype(np.float32)
    scaled = vectors * np.float32(scale)
    assert np.abs(to_codes(scaled, ROTATION).astype(int) - to_codes(vectors, ROTATION)).max() <= 1  # a tie may turn
    expected = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(to_units(scaled), expected, atol=1e-6)
    assert to_units(scaled).dtype == np.float32


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.0] * DIM, r"a zero vector in row 1"),
        ([np.nan] + [1.0] * (DIM - 1), r"NaN or infinity in row 1"),
        ([np.inf] + [1.0] * (DIM - 1), r"NaN or infinity in row 1"),
        ([-np.inf] * DIM, r"NaN or infinity in row 1"),
    ],
)
def test_a_vector_without_a_direction_is_refused(row: list[float], message: str) -> None:
    vectors = np.array([[1.0] * DIM, row, [1.0] * DIM], dtype=np.float32)
    with pytest.raises(BadQuery, match=message):
        to_codes(vectors, ROTATION)


@pytest.mark.parametrize("shape", [(DIM,), (2, DIM - 1), (2, DIM + 1), (0, 3), (1, 2, DIM)])
def test_a_wrong_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadQuery) as caught:
        to_codes(np.ones(shape, dtype=np.float32), ROTATION)
    assert str(caught.value) == f"vectors have shape {shape}, expected (n, {DIM})"


def test_no_vectors_give_no_codes() -> None:
    codes = to_codes(np.zeros((0, DIM), dtype=np.float32), ROTATION)
    assert codes.shape == (0, DIM)
    assert codes.dtype == np.int8


@cache
def _clip_shaped() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vectors, queries and the rows of each query's exact top 10."""
    vectors, queries = pictures(20_000), texts(100)
    return vectors, queries, np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10]


def _recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


@pytest.mark.parametrize(("rescore", "floor"), [(False, 0.96), (True, 0.995)])
def test_codes_find_the_exact_top_10_of_clip_shaped_vectors(rescore: bool, floor: float) -> None:
    vectors, queries, truth = _clip_shaped()
    rotation = make_rotation(512)
    originals = vectors.astype(np.float16) if rescore else None
    index = Index.build(to_codes(vectors, rotation), rotation, originals, spec_for(len(vectors)))
    assert _recall(index.search(queries, k=10).rows, truth) >= floor


def test_the_cast_of_usearch_finds_less_which_is_why_codes_are_made_here() -> None:
    vectors, queries, truth = _clip_shaped()
    index = usearch.Index(ndim=512, metric="cos", dtype="i8", connectivity=2, expansion_add=1)
    index.add(np.arange(len(vectors)), vectors, threads=1)
    assert _recall(index.search(queries, 10, exact=True, threads=1).keys, truth) < 0.9
