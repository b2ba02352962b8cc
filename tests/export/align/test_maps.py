from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketlens.errors import Refused
from pocketlens_export.align import residual
from pocketlens_export.align.linear import (
    LEAST_OF_FEW,
    PENALTIES,
    choose_procrustes,
    choose_ridge,
    fit_centred_procrustes,
    fit_procrustes,
    fit_ridge,
)
from pocketlens_export.align.maps import Float64s, Hidden, Map, Pairs, choose, mean_cosine, to_units
from pocketlens_export.align.residual import CROSS_WEIGHT, alignment_loss, fit_residual


def ignore(stage: str, done: int, total: int) -> None:
    pass


def units(count: int, dim: int, seed: int = 0) -> Float64s:
    return to_units(np.random.default_rng(seed).standard_normal((count, dim)))


def rotation(dim: int, seed: int = 0) -> Float64s:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0])


def noisy_pairs(count: int, light: int, heavy: int, *, noise: float, seed: int = 0) -> Pairs:
    """Return pairs that a linear map with a bias explains but for noise."""
    rng = np.random.default_rng(seed)
    true = np.random.default_rng(99)  # one map, whatever the seed
    weight, bias = true.standard_normal((light, heavy)), true.standard_normal(heavy)
    x = to_units(rng.standard_normal((count, light)) + 0.5)
    return Pairs(x, to_units(x @ weight + bias + noise * rng.standard_normal((count, heavy))))


def test_a_map_by_hand() -> None:
    map = Map(np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([0.0, 2.0]))
    np.testing.assert_allclose(map.apply(np.array([[1.0, 1.0]])), [[0.6, 0.8]])
    hidden = Hidden(np.array([[1.0], [-1.0]]), np.array([-0.5]), np.array([[0.0, 8.0]]))
    # hidden: relu(2 - 0 - 0.5) = 1.5, times 8 is 12; (6, 2 + 12)
    np.testing.assert_allclose(
        Map(map.weight, map.bias, hidden).apply(np.array([[2.0, 0.0]])), to_units(np.array([[6.0, 14.0]]))
    )
    # relu(0 - 1 - 0.5) = 0
    np.testing.assert_allclose(Map(map.weight, map.bias, hidden).apply(np.array([[0.0, 1.0]])), [[0.0, 1.0]])


@pytest.mark.parametrize(("light", "heavy"), [(5, 5), (6, 3), (4, 9)])
def test_ridge_without_penalty_is_least_squares(light: int, heavy: int) -> None:
    pairs = noisy_pairs(80, light, heavy, noise=0.3)
    (found,) = fit_ridge(pairs, [1e-13])
    design = np.hstack([pairs.light, np.ones((80, 1))])
    expected = np.linalg.lstsq(design, pairs.heavy)[0]
    np.testing.assert_allclose(found.weight, expected[:-1], atol=1e-9)
    np.testing.assert_allclose(found.bias, expected[-1], atol=1e-9)


def test_ridge_with_a_penalty_in_another_way() -> None:
    """Rows that stand for the penalty, below centred data, make least squares of it (a textbook identity)."""
    pairs, penalty = noisy_pairs(50, 6, 4, noise=0.3), 0.2
    x, y = pairs.light - pairs.light.mean(axis=0), pairs.heavy - pairs.heavy.mean(axis=0)
    scale = np.mean(np.diag(x.T @ x / 50))
    design = np.vstack([x, np.sqrt(50 * penalty * scale) * np.eye(6)])
    expected = np.linalg.lstsq(design, np.vstack([y, np.zeros((6, 4))]))[0]
    (found,) = fit_ridge(pairs, [penalty])
    np.testing.assert_allclose(found.weight, expected, atol=1e-10)
    np.testing.assert_allclose(found.bias, pairs.heavy.mean(axis=0) - pairs.light.mean(axis=0) @ expected, atol=1e-10)


def test_the_penalty_is_the_one_that_does_best_on_other_pairs() -> None:
    train, validation = noisy_pairs(60, 40, 30, noise=3.0, seed=1), noisy_pairs(400, 40, 30, noise=3.0, seed=2)
    found = choose_ridge(train, validation)
    cosines = [mean_cosine(map, validation) for map in fit_ridge(train, list(PENALTIES))]
    assert found.chosen == f"penalty {PENALTIES[int(np.argmax(cosines))]:.3g}"
    assert [each.cosine for each in found.tried] == cosines
    assert PENALTIES[0] < PENALTIES[int(np.argmax(cosines))]  # noise: the least penalty is not the best
    assert mean_cosine(found.map, validation) == max(cosines)


def test_few_pairs_are_not_fitted_without_a_penalty() -> None:
    few = choose_ridge(noisy_pairs(39, 40, 5, noise=0.0), noisy_pairs(20, 40, 5, noise=0.0, seed=1))
    assert few.tried[0].name == f"penalty {LEAST_OF_FEW:.3g}"
    enough = choose_ridge(noisy_pairs(40, 40, 5, noise=0.0), noisy_pairs(20, 40, 5, noise=0.0, seed=1))
    assert enough.tried[0].name == "penalty 1e-06"


@pytest.mark.parametrize("fit", [fit_procrustes, fit_centred_procrustes])
def test_procrustes_recovers_a_rotation(fit: object) -> None:
    assert callable(fit)
    x, planted = units(100, 12), rotation(12)
    found = fit(Pairs(x, x @ planted))
    np.testing.assert_allclose(found.weight, planted, atol=1e-12)
    np.testing.assert_allclose(found.bias, np.zeros(12), atol=1e-12)


def test_procrustes_recovers_a_rotation_about_means() -> None:
    """Scale and bias are recovered too: the data are (x - m) R / 2 + c before they are brought to length 1."""
    rng = np.random.default_rng(3)
    x, planted, shift = units(100, 6), rotation(6), rng.standard_normal(6)
    found = fit_centred_procrustes(Pairs(x, (x - x.mean(axis=0)) @ planted / 2 + shift))
    np.testing.assert_allclose(found.weight, planted / 2, atol=1e-12)
    np.testing.assert_allclose(found.bias, shift - x.mean(axis=0) @ planted / 2, atol=1e-12)
    y = to_units((x - x.mean(axis=0)) @ planted / 2 + shift)
    assert choose_procrustes(Pairs(x, y), Pairs(x, y)).chosen == "centred"


@pytest.mark.parametrize(("light", "heavy"), [(9, 4), (4, 9), (5, 5)])
def test_procrustes_is_semi_orthogonal_and_no_other_does_better(light: int, heavy: int) -> None:
    pairs = noisy_pairs(60, light, heavy, noise=0.5)
    weight = fit_procrustes(pairs).weight
    gram = weight.T @ weight if light >= heavy else weight @ weight.T
    np.testing.assert_allclose(gram, np.eye(min(light, heavy)), atol=1e-12)

    def inner_products(other: Float64s) -> float:
        return float(((pairs.light @ other) * pairs.heavy).sum())

    for seed in range(50):  # rotations near and far on either side
        step = 10.0 ** -(seed % 5)
        for dim in (light, heavy):
            skew = np.random.default_rng(seed).standard_normal((dim, dim)) * step
            turn = np.linalg.qr(np.eye(dim) + skew - skew.T)[0]
            turn = turn * np.sign(np.diag(turn))
            other = turn @ weight if dim == light else weight @ turn
            assert inner_products(other) <= inner_products(weight) + 1e-9


def test_the_first_of_equal_candidates_is_chosen() -> None:
    pairs = noisy_pairs(10, 3, 3, noise=0.1)
    map = fit_procrustes(pairs)
    found = choose([("a", map), ("b", map)], pairs)
    assert found.chosen == "a" and [each.name for each in found.tried] == ["a", "b"]


def test_loss_by_hand() -> None:
    found, target = torch.tensor([[0.6, 0.8], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # cosines 0.6 and 1; g_1·f_2 - f_1·f_2 = 0.8, g_2·f_1 - f_2·f_1 = 0
    expected = 0.2 + CROSS_WEIGHT * 0.64 / 2
    assert float(alignment_loss(found, target)) == pytest.approx(expected, abs=1e-7)


@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 100))
def test_loss_in_numpy(count: int, dim: int, seed: int) -> None:
    g, f = units(count, dim, seed), units(count, dim, seed + 1_000)
    cross = [(g[i] @ f[j] - f[i] @ f[j]) ** 2 for i in range(count) for j in range(count) if i != j]
    expected = np.mean([1 - g[i] @ f[i] for i in range(count)]) + 0.7482 * np.mean(cross)
    assert float(alignment_loss(torch.from_numpy(g), torch.from_numpy(f))) == pytest.approx(expected, abs=1e-12)


def curved_pairs(count: int, seed: int) -> Pairs:
    x = units(count, 8, seed)
    return Pairs(x, to_units(np.hstack([np.abs(x), x[:, :4] * x[:, 4:]]) - 0.1))


def test_residual_beats_the_ridge_map_it_starts_from_where_things_are_not_linear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(residual, "_ROUNDS", 6)
    train, validation, test = (curved_pairs(count, seed) for seed, count in enumerate((200, 100, 100)))
    told: list[int] = []
    found = fit_residual(train, validation, seed=0, progress=lambda stage, done, total: told.append(done))
    ridge = choose_ridge(train, validation)
    assert found.tried[0].cosine == pytest.approx(mean_cosine(ridge.map, validation), abs=1e-6)
    assert mean_cosine(found.map, test) > mean_cosine(ridge.map, test) + 0.05
    assert mean_cosine(found.map, validation) == max(each.cosine for each in found.tried)
    assert told == list(range(1, 100 * (len(found.tried) - 1) + 1))


def test_residual_is_the_same_again_and_stops_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residual, "_ROUND", 10)
    x, planted = units(100, 6), rotation(6)
    pairs = Pairs(x, x @ planted)
    first, again = (fit_residual(pairs, pairs, seed=1, progress=ignore) for _ in range(2))
    np.testing.assert_array_equal(first.map.weight, again.map.weight)
    assert first.tried == again.tried
    assert 6 <= len(first.tried) < 41
    assert mean_cosine(first.map, pairs) > 1 - 1e-6


def test_residual_refuses_a_loss_that_is_no_number() -> None:
    pairs = noisy_pairs(40, 4, 4, noise=0.1)
    spoilt = Pairs(pairs.light, pairs.heavy.copy())
    spoilt.heavy[:] *= 1e30
    with pytest.raises(Refused, match="the loss of the residual MLP is"):
        fit_residual(spoilt, pairs, seed=0, progress=ignore)
