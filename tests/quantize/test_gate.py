from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pocketlens.errors import BadQuery
from pocketlens_quantize.gate import DEFAULTS, SAME_IN_BATCH, Gate, parse_gates

SHARE = st.floats(0, 1)
MOST = {"cosine": 1.0, "agreement": 1.0, "recall": 100.0}
GATE = Gate(0.99, 0.95, 1.0)
GOOD = {"cosine": 0.995, "agreement": 0.97, "same_in_batch": 1.0}


@pytest.mark.parametrize("text", [None, ""])
def test_without_a_word_the_defaults_hold(text: str | None) -> None:
    assert parse_gates(text) == DEFAULTS


@given(st.dictionaries(st.sampled_from(["cosine", "agreement"]), SHARE), st.none() | st.floats(0, 100), st.randoms())
def test_what_is_written_is_what_is_demanded(shares: dict[str, float], recall: float | None, chance: object) -> None:
    values = shares | ({} if recall is None else {"recall": recall})
    assume(values)
    gates = parse_gates(", ".join(f"{name}={value!r}" for name, value in values.items()))
    for tower, gate in gates.items():
        for name in MOST:
            assert getattr(gate, name) == values.get(name, getattr(DEFAULTS[tower], name))


@given(st.sampled_from(sorted(MOST)), st.floats() | st.text(max_size=8).filter(lambda text: "," not in text))
@example("recall", float("nan"))
@example("cosine", float("inf"))
@example("cosine", 1.0000001)
@example("agreement", -1e-9)
@example("recall", "")
def test_a_value_that_is_no_number_in_range_is_named(name: str, value: float | str) -> None:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    assume(not 0 <= number <= MOST[name])
    with pytest.raises(BadQuery) as caught:
        parse_gates(f"{name}={value}")
    assert f"{name} is " in str(caught.value) and f"expected a number from 0 to {MOST[name]:g}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("speed=1", "speed"),
        ("cosine=0.9,cosine=0.8", "cosine"),
        ("cosine=0.9,", ""),
        ("=1", ""),
        ("Recall=1", "Recall"),
    ],
)
def test_an_unknown_name_or_one_given_twice_is_named(text: str, name: str) -> None:
    with pytest.raises(BadQuery, match=re.escape(f"--gate {text}: {name!r} is twice there or unknown")):
        parse_gates(text)


def test_what_reaches_the_bar_exactly_misses_nothing() -> None:
    assert GATE.misses(cosine=0.99, agreement=0.95, same_in_batch=SAME_IN_BATCH, lost=1.0) == []
    assert GATE.misses(**GOOD, lost=None) == []


@pytest.mark.parametrize(
    ("changed", "phrase"),
    [
        ({"cosine": 0.98}, "mean cosine 0.9800 misses 0.99 by 0.0100"),
        ({"agreement": 0.9}, "agreement@10 0.9000 misses 0.95 by 0.0500"),
        ({"same_in_batch": 0.5}, "cosine alone against in a batch 0.5000 misses 0.9999 by 0.4999"),
        ({"lost": 1.5}, "labelled recall@10 falls by 1.50 points, 0.50 too many"),
    ],
)
def test_each_miss_is_a_phrase_with_its_numbers(changed: dict[str, float], phrase: str) -> None:
    figures = {**GOOD, "lost": None, **changed}
    assert GATE.misses(**figures) == [phrase]  # type: ignore[arg-type]  # lost may be None, the others are numbers


@pytest.mark.parametrize("figure", [*GOOD, "lost"])
def test_what_is_no_number_is_missed(figure: str) -> None:
    [phrase] = GATE.misses(**({**GOOD, "lost": 0.0} | {figure: float("nan")}))
    assert " nan " in phrase


def test_nothing_hides_behind_the_first_miss() -> None:
    assert len(GATE.misses(cosine=0, agreement=0, same_in_batch=0, lost=100)) == 4


@given(SHARE, SHARE, SHARE)
def test_a_tightened_gate_allows_a_share_of_the_losses(cosine: float, agreement: float, share: float) -> None:
    gate = Gate(cosine, agreement, 2.0).tightened(share)
    assert 1 - gate.cosine == pytest.approx(share * (1 - cosine), abs=1e-12)
    assert 1 - gate.agreement == pytest.approx(share * (1 - agreement), abs=1e-12)
    assert gate.recall == 2.0


def test_what_passes_a_tightened_gate_passes_the_gate() -> None:
    tight = GATE.tightened(0.5)
    assert tight.misses(cosine=0.994, agreement=0.97, same_in_batch=1, lost=None) == [
        "mean cosine 0.9940 misses 0.995 by 0.0010",
        "agreement@10 0.9700 misses 0.975 by 0.0050",
    ]
    assert GATE.misses(cosine=0.994, agreement=0.97, same_in_batch=1, lost=None) == []
