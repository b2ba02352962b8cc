"""The cluster bootstrap against closed forms and a plain second implementation."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlens.errors import BadQuery
from pocketlens_bench.protocols.bootstrap import RESAMPLES, Bootstrap


def test_equal_values_have_an_interval_without_width() -> None:
    values = np.full((6, 2), 0.25)
    low, high = Bootstrap(list("aabbcc")).intervals(values)
    assert low.tolist() == high.tolist() == [0.25, 0.25]


def test_the_interval_of_single_examples_is_about_the_normal_one(rng: np.random.Generator) -> None:
    values = (rng.random((400, 1)) < 0.3).astype(np.float64)
    draws = Bootstrap([str(i) for i in range(400)])
    low, high = draws.intervals(values)[:, 0]
    deviation = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * deviation, abs=0.2 * deviation)
    assert high == pytest.approx(values.mean() + 1.96 * deviation, abs=0.2 * deviation)
    assert draws.mean(values)[0] == pytest.approx(values.mean())


def test_groups_are_drawn_whole(rng: np.random.Generator) -> None:
    of_group = rng.random(50)
    groups = [str(i // 8) for i in range(400)]  # 50 groups of 8 equal values: no more to learn than from 50
    repeated = np.repeat(of_group, 8)[:, np.newaxis]
    low, high = Bootstrap(groups).intervals(repeated)[:, 0]
    alone_low, alone_high = Bootstrap([str(i) for i in range(50)]).intervals(of_group[:, np.newaxis])[:, 0]
    assert high - low == pytest.approx(alone_high - alone_low, rel=0.1)
    naive = Bootstrap([str(i) for i in range(400)]).intervals(repeated)[:, 0]
    assert high - low > 2 * (naive[1] - naive[0])


def test_groups_of_unequal_size_weigh_what_they_hold() -> None:
    values = np.array([[1.0], [1.0], [1.0], [0.0]])
    means = Bootstrap(["a", "a", "a", "b"]).means(values)[:, 0]
    # two draws of two groups: aa 1.0 (1/4), ab or ba 3/4 (1/2), bb 0.0 (1/4)
    assert sorted(set(means.tolist())) == [0.0, 0.75, 1.0]
    shares = [np.mean(means == value) for value in (0.0, 0.75, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.06)


def test_families_weigh_the_same_and_are_drawn_apart() -> None:
    values = np.array([[1.0], [0.0], [0.0], [0.0]])
    draws = Bootstrap(list("abcd"), families=["x", "y", "y", "y"])
    assert draws.mean(values).tolist() == [0.5]
    assert draws.intervals(values)[:, 0].tolist() == [0.5, 0.5]  # x has one group, y is all zero


def test_the_same_seed_draws_the_same() -> None:
    values = np.arange(20.0).reshape(10, 2)
    groups = [str(i) for i in range(10)]
    assert (Bootstrap(groups).means(values) == Bootstrap(groups).means(values)).all()
    assert (Bootstrap(groups).means(values) != Bootstrap(groups, seed=1).means(values)).any()
    assert Bootstrap(groups).means(values).shape == (RESAMPLES, 2)


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(BadQuery, match="at least one example"):
        Bootstrap([])
