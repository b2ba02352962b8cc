from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pocketlens_export.distill.losses import csd, d3, fitnet, raml, rop
from pocketlens_export.distill.recipes import DISTILLATIONS, total_loss
from pocketlens_export.fit.recipe import check_values

Floats = NDArray[np.float64]


def batch(count: int, *, seed: int = 0, dim: int = 6) -> tuple[Floats, Floats]:
    """Return student and teacher, float64 (count, dim) of unit length, alike but not equal."""
    rng = np.random.default_rng(seed)
    teacher = rng.normal(size=(count, dim))
    student = teacher + 0.7 * rng.normal(size=(count, dim))
    return student / np.linalg.norm(student, axis=1)[:, None], teacher / np.linalg.norm(teacher, axis=1)[:, None]


def torch_of(*arrays: Floats) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def softmax(values: Floats) -> Floats:
    shifted = np.exp(values - values.max())
    return np.asarray(shifted / shifted.sum())


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def raml_by_loops(g: Floats, f: Floats, l1: float, l2: float) -> float:
    b = len(g)
    pairs = np.mean([(1 - g[i] @ f[i]) ** 2 for i in range(b)])
    others = [(i, j) for i in range(b) for j in range(b) if i != j]
    cross = np.mean([(g[i] @ f[j] - f[i] @ f[j]) ** 2 for i, j in others])
    own = np.mean([(g[i] @ g[j] - f[i] @ f[j]) ** 2 for i, j in others])
    return float(pairs + l1 * cross + l2 * own)


def nearest(f: Floats, i: int, k: int, *, itself: bool) -> list[int]:
    order = sorted(range(len(f)), key=lambda j: -(f[i] @ f[j]))
    return [j for j in order if itself or j != i][:k]


def csd_by_loops(g: Floats, f: Floats, k: int, sharp: float, soft: float) -> float:
    total = 0.0
    for i in range(len(g)):
        near = nearest(f, i, k, itself=True)
        p = softmax(np.array([f[i] @ f[j] for j in near]) / sharp)
        q = softmax(np.array([g[i] @ f[j] for j in near]) / soft)
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)
    return total / len(g)


def rop_by_loops(g: Floats, f: Floats, k: int, temperature: float) -> float:
    total = 0.0
    for i in range(len(g)):
        near = nearest(f, i, k, itself=True)
        asked, answered = [f[i] @ f[j] for j in near], [g[i] @ f[j] for j in near]
        weights = softmax(0.2 * np.array(asked))
        for a in range(len(near)):
            for b in range(len(near)):
                expected = sigmoid((asked[b] - asked[a]) / 1e-6)
                found = sigmoid((answered[b] - answered[a]) / temperature)
                total += weights[a] * (a + 1) * (expected - found) ** 2 / len(near)
    return total / len(g)


def d3_by_loops(g: Floats, f: Floats, k: int, alpha: float, beta: float, gamma: float) -> float:
    b = len(g)
    hard = simple = 0.0
    for i in range(b):
        near = nearest(f, i, k, itself=False)
        reversed_: list[float] = []
        others: list[float] = []
        for a in near:
            for c in near:
                expected, found = f[i] @ f[a] - f[i] @ f[c], g[i] @ f[a] - g[i] @ f[c]
                error = (found - expected) / (0.1 + abs(expected))
                (reversed_ if found * expected < 0 else others).append(error)
        hard += math.sqrt(sum(e * e for e in reversed_)) / b
        simple += math.sqrt(sum(e * e for e in others)) / b
    distances = math.sqrt(sum((1 - g[i] @ f[i]) ** 2 for i in range(b))) / b
    return alpha * distances + (beta * hard + gamma * simple) / max(min(k, b - 1) - 1, 1)


def test_fitnet_is_twice_one_minus_cosine() -> None:
    student, teacher = batch(5)
    expected = np.mean([2 - 2 * student[i] @ teacher[i] for i in range(5)])
    assert float(fitnet(*torch_of(student, teacher))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_losses_against_loops(count: int) -> None:
    arrays = batch(count, seed=count)
    g, f = torch_of(*arrays)
    assert float(raml(g, f, cross=0.75, own=0.25)) == pytest.approx(raml_by_loops(*arrays, 0.75, 0.25), rel=1e-9)
    for k in (2, 4, 96):
        assert float(csd(g, f, k=k, sharp=0.05, soft=0.5)) == pytest.approx(csd_by_loops(*arrays, k, 0.05, 0.5))
        assert float(rop(g, f, k=k, temperature=0.1)) == pytest.approx(rop_by_loops(*arrays, k, 0.1), rel=1e-9)
        found = d3(g, f, k=k, pairs=50, hard=2, simple=1)
        assert float(found) == pytest.approx(d3_by_loops(*arrays, k, 50, 2, 1), rel=1e-9)


def test_losses_worked_by_hand() -> None:
    f = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    g = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # the first view lies where the second should
    # raml: pairs (1 + 0) / 2; across g0.f1 = 1 for 0, g1.f0 = 0 for 0: 1/2; within g0.g1 = 1 for 0, both ways: 1
    assert float(raml(g, f, cross=10.0, own=100.0)) == pytest.approx(0.5 + 5 + 100)
    # csd: the teacher is almost sure of the picture itself; the student says (0, 1) and (1, 0) in list order
    first, second = math.log(1 + math.e), math.log(1 + math.e) - 1
    assert float(csd(g, f, k=2, sharp=0.01, soft=1.0)) == pytest.approx((first + second) / 2)
    # rop: the teacher's first is surely the first; the student says so by sigmoid(10) or by sigmoid(-10)
    weights = math.exp(0.2) / (math.exp(0.2) + 1), 2 / (math.exp(0.2) + 1)
    wrong, right = (1 - sigmoid(-10)) ** 2, (1 - sigmoid(10)) ** 2
    assert float(rop(g, f, k=2, temperature=0.1)) == pytest.approx(sum(weights) * (wrong + right) / 4, rel=1e-5)
    # d3: one neighbour has no difference, so that only the distances are left: |(1, 0)| / 2
    assert float(d3(g, f, k=10, pairs=50, hard=2, simple=1)) == pytest.approx(25)


def test_d3_tells_reversed_differences_from_others() -> None:
    f = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.6, 0.0, 0.8]])
    g = f.clone()
    g[0] = torch.tensor([0.0, 0.0, 1.0])  # by the teacher 0.8 and 0.6 from the others; by the student 0 and 0.8
    error = (0.8 + 0.2) / (0.1 + 0.2)  # of the only pair, in both directions
    expected = math.sqrt(2) * error / 3
    assert float(d3(g, f, k=2, pairs=0, hard=1, simple=0)) == pytest.approx(expected)
    assert float(d3(g, f, k=2, pairs=0, hard=0, simple=1)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", list(DISTILLATIONS))
@pytest.mark.parametrize("equal", [False, True])
def test_gradients_are_finite_and_lead_to_the_teacher(name: str, equal: bool) -> None:
    chosen = DISTILLATIONS[name]
    values = check_values(chosen.recipe, {})
    student, teacher = (array.float() for array in torch_of(*batch(12, seed=1)))
    free = (teacher if equal else student).clone().requires_grad_()

    def placed() -> Tensor:
        return torch.nn.functional.normalize(free, dim=1)

    total_loss(chosen, placed(), teacher, values).backward()  # type: ignore[no-untyped-call]
    assert free.grad is not None and torch.isfinite(free.grad).all()
    if not equal:
        before = float((placed() * teacher).sum(dim=1).mean().detach())
        optimiser = torch.optim.SGD([free], 0.02)
        for _ in range(100):
            optimiser.zero_grad()
            total_loss(chosen, placed(), teacher, values).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        assert float((placed() * teacher).sum(dim=1).mean().detach()) > before + 0.05


def test_the_anchor_is_added_with_its_weight() -> None:
    g, f = torch_of(*batch(6))
    for name, chosen in DISTILLATIONS.items():
        values = check_values(chosen.recipe, {} if name == "fitnet" else {"anchor": "3"})
        plain = float(chosen.loss(g, f, values))
        added = 0.0 if name == "fitnet" else 3 * float(fitnet(g, f))
        assert float(total_loss(chosen, g, f, values)) == pytest.approx(plain + added)
