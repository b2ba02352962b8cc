from __future__ import annotations

import numpy as np
import pytest

from pocketlens_bench.clip_shaped import pictures, texts

ROWS, TEXTS = 20_000, 200


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    return pictures(ROWS)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return texts(TEXTS)


def test_vectors_are_unit_float32(gallery: np.ndarray, queries: np.ndarray) -> None:
    assert gallery.shape == (ROWS, 512) and queries.shape == (TEXTS, 512)
    assert gallery.dtype == queries.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)


def test_pictures_lie_in_a_cone_of_low_rank_with_two_outliers(gallery: np.ndarray) -> None:
    cosines = (gallery[: ROWS // 2] * gallery[ROWS // 2 :]).sum(axis=1)
    assert cosines.mean() == pytest.approx(0.55, abs=0.01)
    assert cosines.std() == pytest.approx(0.10, abs=0.01)
    mean = gallery.mean(axis=0)
    covariance = np.cov(gallery.T)
    assert np.trace(covariance) ** 2 / (covariance**2).sum() < 30  # participation ratio, of 512
    assert set(np.argsort(-np.abs(mean))[:2]) == {92, 133}
    assert np.abs(mean[[92, 133]]).min() > 5 * np.sort(np.abs(mean))[-3]


def test_text_scores_are_those_of_clip(gallery: np.ndarray, queries: np.ndarray) -> None:
    scores = queries @ gallery.T
    assert scores.mean() == pytest.approx(0.23, abs=0.01)
    assert scores.std() == pytest.approx(0.05, abs=0.01)
    best = -np.sort(-scores, axis=1)
    for rank, expected in ((2, 0.37), (20, 0.35)):  # the top 10 and 100 of 100,000 are the top 2 and 20 of 20,000
        assert best[:, rank - 1].mean() == pytest.approx(expected, abs=0.01)


def test_texts_are_apart_from_pictures(gallery: np.ndarray, queries: np.ndarray) -> None:
    between = queries @ queries.T
    assert between[~np.eye(TEXTS, dtype=bool)].mean() > 0.5  # they share the gap's direction
    assert (queries @ gallery.T).max() < (gallery[:100] @ gallery[100:].T).mean()


def test_the_first_rows_do_not_depend_on_how_many_are_drawn_but_on_the_seed(gallery: np.ndarray) -> None:
    np.testing.assert_array_equal(pictures(5_000), gallery[:5_000])
    assert not np.array_equal(pictures(10, seed=1), gallery[:10])


def test_other_widths_are_possible() -> None:
    assert pictures(7, dim=64).shape == texts(7, dim=64).shape == (7, 64)
