from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens._types import Float32s
from pocketlens_export.align.maps import Map, Pairs, to_units
from pocketlens_export.align.quality import Seen, measure_pictures, measure_texts, ranks_of_own, recalls
from pocketlens_export.align.towers import mapped_golden


def units(count: int, dim: int, seed: int = 0) -> Float32s:
    return to_units(np.random.default_rng(seed).standard_normal((count, dim))).astype(np.float32)


def identity(dim: int) -> Map:
    return Map(np.eye(dim), np.zeros(dim))


def test_ranks_by_hand() -> None:
    gallery = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    queries = np.array([[0.8, 0.6], [0.8, 0.6], [0.8, 0.6]], dtype=np.float32)  # scores 0.8, 0.6, 0.96
    assert ranks_of_own(queries, gallery).tolist() == [2, 3, 1]


def test_of_equally_near_rows_the_earlier_one_is_in_front() -> None:
    same = np.array([[1, 0]] * 3, dtype=np.float32)
    assert ranks_of_own(same, same).tolist() == [1, 2, 3]


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 50))
def test_ranks_in_another_way(count: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = (rng.integers(-1, 2, (count, dim)).astype(np.float32) for _ in range(2))  # many ties
    expected = []
    for row in range(count):
        scores = gallery.astype(np.float64) @ queries[row]
        order = sorted(range(count), key=lambda other: (-scores[other], other))
        expected.append(order.index(row) + 1)
    assert ranks_of_own(queries, gallery).tolist() == expected


def test_who_is_asked_through_what() -> None:
    planted = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    light = Seen(units(200, 6, seed=2), units(200, 6, seed=2))
    heavy = Seen(units(200, 6, seed=3), (light.originals @ planted).astype(np.float32))
    found = measure_pictures(light, heavy, Map(planted, np.zeros(6)))
    assert set(found) == {"light_light", "heavy_heavy", "light_heavy", "light_heavy_raw"}
    figures = recalls(found, "asymmetric_")
    assert figures["asymmetric_light_heavy_recall_at_1"] == figures["asymmetric_light_light_recall_at_1"] == 1
    assert figures["asymmetric_light_heavy_raw_recall_at_10"] < 0.2  # the control
    assert figures["asymmetric_heavy_heavy_recall_at_10"] < 0.2  # views of other pictures
    texts = measure_texts(
        Pairs(light.originals.astype(float), heavy.originals.astype(float)), Map(planted, np.zeros(6))
    )
    assert (texts["light_heavy"] == 1).all() and texts["light_heavy_raw"].mean() > 20


def test_no_raw_control_between_different_dimensions() -> None:
    light, heavy = Seen(units(9, 4), units(9, 4)), Seen(units(9, 6), units(9, 6))
    map = Map(np.eye(4, 6), np.zeros(6))
    assert "light_heavy_raw" not in measure_pictures(light, heavy, map)
    assert list(measure_texts(Pairs(light.views.astype(float), heavy.views.astype(float)), map)) == ["light_heavy"]


def test_recalls_by_hand() -> None:
    found = recalls({"light_heavy": np.array([1, 2, 10, 11])}, "asymmetric_")
    assert found == {"asymmetric_light_heavy_recall_at_1": 0.25, "asymmetric_light_heavy_recall_at_10": 0.75}


def golden(count: int, dim: int, *, cosine: float, max_abs: float) -> dict[str, np.ndarray]:
    return {
        "image_embedding": units(count, dim, seed=5),
        "image_min_cosine": np.array(cosine, dtype=np.float32),
        "image_max_abs": np.array(max_abs, dtype=np.float32),
    }


def test_golden_values_and_bars_of_a_map_that_keeps_angles() -> None:
    given_values = golden(4, 16, cosine=0.99, max_abs=0.01)
    found = mapped_golden("image", given_values, identity(16))
    np.testing.assert_allclose(found["image_embedding"], given_values["image_embedding"], atol=1e-7)
    assert found["image_min_cosine"] == pytest.approx(0.99, abs=1e-6)
    assert 0.01 <= found["image_max_abs"] < 0.014
    assert found["image_embedding"].dtype == found["image_max_abs"].dtype == np.float32


def test_bars_are_as_wide_as_the_map_makes_deviations() -> None:
    """A map that stretches what lies across the embeddings by ten turns an angle of 0.45 degrees into about 4."""
    first = np.zeros((1, 16), dtype=np.float32)
    first[0, 0] = 1
    given_values = golden(1, 16, cosine=0.99997, max_abs=1e-4) | {"image_embedding": first}
    found = mapped_golden("image", given_values, Map(np.diag([1.0, *[10.0] * 15]), np.zeros(16)))
    angle = np.degrees(np.arccos(float(found["image_min_cosine"])))
    assert 4.2 < angle < 4.6
    assert 5e-4 < found["image_max_abs"] < 1.01e-3
