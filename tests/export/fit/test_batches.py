from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketlens_export.fit.batches import Batches


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_takes_every_row_at_most_once(count: int, batch: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(3, 20, count)
    batches = Batches(lengths, batch, seed=seed)
    steps = count // min(batch, count)
    rows = np.concatenate([batches.rows(step) for step in range(steps)])
    assert len(set(rows.tolist())) == len(rows) == steps * min(batch, count)
    assert rows.min() >= 0 and rows.max() < count


def test_a_step_depends_on_its_number_alone() -> None:
    lengths = np.arange(1, 101)
    whole = [Batches(lengths, 8, seed=1).rows(step).tolist() for step in range(40)]
    running = Batches(lengths, 8, seed=1)
    assert [running.rows(step).tolist() for step in range(40)] == whole
    assert running.rows(17).tolist() == whole[17]  # back to an earlier epoch
    assert Batches(lengths, 8, seed=2).rows(0).tolist() != whole[0]
    assert sorted(whole[0]) != sorted(whole[12])  # epochs differ


def test_rows_of_a_batch_are_alike_in_length() -> None:
    lengths = np.random.default_rng(0).integers(4, 64, 2_048)
    batches = Batches(lengths, 64, seed=0)
    padded = sum(int(lengths[batches.rows(step)].max()) * 64 for step in range(32))
    assert padded < 1.1 * lengths.sum()
    assert len({int(lengths[batches.rows(step)].max()) for step in range(4)}) > 1  # in random order


def test_every_row_gets_its_turn() -> None:
    batches = Batches(np.ones(30, dtype=np.int64), 8, seed=0)
    seen = {row for step in range(3 * 12) for row in batches.rows(step).tolist()}
    assert seen == set(range(30))
