"""Figures of rankings worked out by hand, and their shares of another's against a plain second bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlens_bench.asymmetric_figures import WHOLE, Scorer, answer
from pocketlens_bench.asymmetric_sets import METRICS
from pocketlens_bench.protocols.bootstrap import RESAMPLES
from pocketlens_bench.protocols.metrics import Ranking
from pocketlens_bench.protocols.ranking import Pool
from pocketlens_bench.protocols.task import Example


def example(id: str, answers: str, *, families: tuple[str, ...] = (), group: str | None = None) -> Example:
    return Example(id, families, group or id, id, (), frozenset(answers), excluded=frozenset([id]))


def families(example: Example) -> tuple[str, ...]:
    return example.families


def test_metrics_by_hand() -> None:
    examples = [example("a", "bc", families=("x",)), example("b", "ac", families=("x", "y"))]
    scorer = Scorer(examples, METRICS, families)
    rankings = [Ranking(tuple("dbc")), Ranking(tuple("acd"))]
    values = scorer.values(rankings)
    # a: first answer in second place; AP = (1/2 + 2/3) / 2. b: both at once; AP = (1 + 1) / 2
    assert values.tolist() == [[0, 1, 1, pytest.approx((1 / 2 + 2 / 3) / 2)], [1, 1, 1, 1]]
    parts = scorer.figures(values)
    assert list(parts) == [WHOLE, "x", "y"]
    assert [parts[name].queries for name in parts] == [2, 2, 1]
    assert parts[WHOLE].figures["R@1"].value == 50.0
    assert parts["y"].figures["mAP@10"].value == 100.0
    assert parts[WHOLE].figures["mAP@10"].value == pytest.approx(50 * (7 / 12 + 1))
    assert parts[WHOLE].shares == {}


def test_shares_are_of_the_same_resamples(rng: np.random.Generator) -> None:
    groups = [str(i // 4) for i in range(240)]
    examples = [example(str(i), "", group=group) for i, group in enumerate(groups)]
    scorer = Scorer(examples, METRICS[:1], families)
    base = (rng.random((240, 1)) < 0.6).astype(np.float64)
    values = base * (rng.random((240, 1)) < 0.9)  # what it finds, the base finds
    share = scorer.figures(values, base)[WHOLE].shares["R@1"]
    assert share.value == pytest.approx(100 * values.mean() / base.mean())
    ratios = []
    for _ in range(RESAMPLES):  # a second implementation: rows of drawn groups, one by one
        rows = np.concatenate([np.arange(4 * g, 4 * g + 4) for g in rng.integers(60, size=60)])
        ratios.append(100 * values[rows].sum() / base[rows].sum())
    assert (share.low, share.high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=1.0)
    unpaired = scorer.figures(values)[WHOLE].figures["R@1"]
    spread = 100 * (unpaired.high - unpaired.low) / (100 * base.mean())
    assert share.high - share.low < 0.7 * spread  # what is hard for both cancels out


def test_a_base_that_may_find_nothing_gives_no_share() -> None:
    examples = [example(str(i), "") for i in range(3)]
    scorer = Scorer(examples, METRICS[:1], families)
    one = np.array([[1.0], [0.0], [0.0]])  # some resample draws the first never
    assert scorer.figures(np.ones((3, 1)), one)[WHOLE].shares == {}
    assert scorer.figures(one, np.ones((3, 1)))[WHOLE].shares["R@1"].value == pytest.approx(100 / 3)


def test_equal_rankings_have_a_share_of_100_without_width() -> None:
    examples = [example(str(i), "", group=str(i // 2)) for i in range(40)]
    values = (np.arange(40) % 3 > 0).astype(np.float64)[:, np.newaxis]
    share = Scorer(examples, METRICS[:1], families).figures(values, values)[WHOLE].shares["R@1"]
    assert (share.low, share.value, share.high) == (100.0, 100.0, 100.0)


def test_answers_are_a_full_sort_without_the_query(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(300, 5)).astype(np.float32)
    vectors[7] = vectors[3]  # ties keep the gallery's order
    names = [f"{i:03}" for i in range(300)]
    examples = [example(name, "") for name in names[:40]]
    told: list[int] = []
    rankings = answer(examples, vectors[:40], Pool(names, vectors), progress=told.append)
    exact = vectors.astype(np.float64) @ vectors[:40].astype(np.float64).T
    for row, ranking in enumerate(rankings):
        order = sorted((i for i in range(300) if i != row), key=lambda i: (-round(exact[i, row], 5), i))
        assert ranking.top == tuple(names[i] for i in order[:10])
    assert told[-1] == 40
