from __future__ import annotations

import io

import pytest
from PIL import Image

from pocketlens_bench.draft import large_jpegs, smallest_factor
from pocketlens_bench.measure import Row


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [
        ([0.99, 0.9999, 1.0], 2),
        ([1.0, 0.99, 0.99995], 3),  # a factor that passes below one that fails does not count
        ([0.99, 0.99, 0.99], None),
    ],
)
def test_the_smallest_factor_of_hand_made_tables(cosines: list[float], expected: int | None) -> None:
    table: list[Row] = [{"factor": i, "least cosine": value} for i, value in enumerate(cosines, start=1)]
    assert smallest_factor(table, least=0.9999) == expected


def test_large_pictures_are_the_same_every_time_and_of_the_size_asked_for() -> None:
    first, second = (list(large_jpegs((480, 360), 1)) for _ in range(2))
    assert first == second
    assert len(set(first)) == 3
    for jpeg in first:
        with Image.open(io.BytesIO(jpeg)) as image:
            assert (image.format, image.size) == ("JPEG", (480, 360))
