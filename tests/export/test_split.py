from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketlens_export.split import split_rows

CONTENTS = st.lists(st.binary(max_size=8), unique=True, min_size=3, max_size=60)


def digests(contents: list[bytes]) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]


@given(CONTENTS)
def test_every_row_is_in_one_part_and_no_part_is_empty(contents: list[bytes]) -> None:
    split = split_rows(digests(contents))
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(contents)))
    assert all(len(part) > 0 for part in parts)


def test_by_hand() -> None:
    """The last digits of the first 64 bits say where: 0 test, 1 validation, 2 to 9 training."""
    split = split_rows([f"{number:016x}{'f' * 48}" for number in (10, 21, 32, 43, 59, 60, 71, 88)])
    assert (split.test.tolist(), split.validation.tolist()) == ([0, 5], [1, 6])
    assert split.train.tolist() == [2, 3, 4, 7]


def test_a_tenth_each_and_a_content_stays_on_its_side() -> None:
    names = digests([str(number).encode() for number in range(4_000)])
    split = split_rows(names)
    assert 300 < len(split.test) < 500 and 300 < len(split.validation) < 500
    test = {names[row] for row in split.test}
    fewer = names[1_000:3_000]
    assert {fewer[row] for row in split_rows(fewer).test} == test & set(fewer)
