"""Any sequence of changes, crashes and searches: the bundle and plain Python never differ (hypothesis, stateful)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from pocketlens.additions import BATCH
from pocketlens.errors import BadQuery
from pocketlens.lens import Lens, open_lens
from tests.conftest import COLOURS
from tests.reliability import seccomp
from tests.reliability.changes import (
    QUERIES,
    Change,
    Colour,
    State,
    hashes,
    left_beside,
    observe,
    picture,
    sha256,
    steps,
    wrong_answers,
)

Work = Callable[..., dict[str, Any]]
IDS = st.sampled_from([*(f"{name}.png" for name in COLOURS), *(f"{number}.png" for number in range(8))])
VALUES = st.sampled_from([0, 60, 128, 255])
COLOUR: st.SearchStrategy[Colour] = st.tuples(VALUES, VALUES, VALUES)
ADDS = st.dictionaries(IDS, COLOUR, min_size=1, max_size=4).map(lambda items: ("add", items))
REMOVES = st.lists(IDS, min_size=1, max_size=3, unique=True).map(lambda ids: ("remove", ids))
COMPACTS = st.just(("compact", None))
CHANGES: st.SearchStrategy[Change] = st.one_of(ADDS, REMOVES, COMPACTS)


class Bundle(RuleBasedStateMachine):
    """An opened bundle beside a dict of what should be in it."""

    shipped: ClassVar[Path]
    work: ClassVar[Work]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = Path(shutil.copytree(self.shipped, self.folder / "bundle"))
        self.state: State = {f"{name}.png": colour for name, colour in COLOURS.items()}
        self.lens: Lens = open_lens(self.path, threads=1)

    @rule(items=st.dictionaries(IDS, COLOUR, min_size=1, max_size=4))
    def add(self, items: State) -> None:
        told = self.lens.add({id: picture(colour) for id, colour in items.items()})
        assert told.added == [id for id in items if id not in self.state]
        assert told.unchanged == [id for id, colour in items.items() if self.state.get(id) == colour]
        assert len(told.added) + len(told.unchanged) + len(told.replaced) == len(items)
        self.state |= items

    @rule(count=st.integers(BATCH - 1, BATCH + 1), colour=COLOUR)
    def add_many(self, count: int, colour: Colour) -> None:
        items = {f"many/{number}": colour for number in range(count)}
        self.lens.add({id: picture(colour) for id, colour in items.items()})
        self.state |= items

    @rule(ids=st.lists(IDS, min_size=1, max_size=3))
    def remove(self, ids: list[str]) -> None:
        if set(ids) <= set(self.state):
            self.lens.remove(ids)
            self.state = {id: colour for id, colour in self.state.items() if id not in ids}
        else:
            with pytest.raises(BadQuery, match="no item has the id"):
                self.lens.remove(ids)

    @rule()
    def compact(self) -> None:
        if not self.state:
            with pytest.raises(BadQuery, match="no item is left"):
                self.lens.compact()
            return
        assert self.lens.compact().items == len(self.state)
        assert left_beside(self.path) == []

    @rule(change=CHANGES)
    def change_in_another_process(self, change: Change) -> None:
        told = self.work(bundle=self.path, changes=[change])
        allowed = steps(self.state, change)
        assert (told["error"] is None) == bool(allowed), told
        self.state = allowed[-1] if allowed else self.state

    @rule(change=CHANGES, at=st.integers(0, 110))
    def crash(self, change: Change, at: int) -> None:
        told = self.work(
            bundle=self.path, changes=[change], **({"kill_at": at} if seccomp.AVAILABLE else {"kill_s": at / 1e3})
        )
        found = observe(self.lens._collection.now())
        allowed = [self.state, *steps(self.state, change)][told["steps"] :]
        fitting = [state for state in allowed if hashes(state) == found]
        assert fitting, (told, found)
        self.state = fitting[0]

    @rule()
    def reopen(self) -> None:
        self.lens.close()
        self.lens = open_lens(self.path, threads=1)

    @rule(k=st.integers(1, 30))
    def search(self, k: int) -> None:
        assert wrong_answers(self.lens, self.state, k=k) == []

    @rule(many=st.booleans(), least=st.integers(74, 79), negated=st.booleans(), k=st.integers(1, 300))
    def search_filtered(self, many: bool, least: int, negated: bool, k: int) -> None:
        folder = "many" if many else ""
        where: dict[str, Any] = {"or": [{"folder": folder}, {"size_bytes": {"gte": least}}]}
        allowed = {
            id: colour
            for id, colour in self.state.items()
            if (id.startswith("many/") == many or len(picture(colour)) >= least) != negated
        }
        where = {"not": where} if negated else where
        assert wrong_answers(self.lens, allowed, k=k, where=where) == []

    @rule(id=IDS)
    def look_for_one_like(self, id: str) -> None:
        if id not in self.state:
            with pytest.raises(BadQuery, match=r"no item has the id|was removed"):
                self.lens.similar(id)
            return
        ids = [hit.id for hit in self.lens.similar(id, k=1_000)]
        assert sorted(ids) == sorted(set(self.state) - {id})

    @rule(colour=COLOUR)
    def search_by_picture(self, colour: Colour) -> None:
        hits = self.lens.search(image=picture(colour), k=1_000)
        assert {hit.id: hit.id for hit in hits}.keys() == self.state.keys()
        same = [hit.id for hit in hits if self.state[hit.id] == colour]
        assert all(hit.cosine > 0.999 for hit in hits if hit.id in same)

    @invariant()
    def the_items_are_the_same(self) -> None:
        assert observe(self.lens._collection.now()) == {id: sha256(colour) for id, colour in self.state.items()}

    def teardown(self) -> None:
        assert wrong_answers(self.lens, self.state) == []
        self.lens.close()
        shutil.rmtree(self.folder)


def run(work: Work, shipped: Path, *, examples: int, length: int) -> None:
    assert len(QUERIES) > 3
    machine = type("Bundle", (Bundle,), {"shipped": shipped, "work": staticmethod(work)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=length, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_a_model(work: Work, shipped: Path) -> None:
    run(work, shipped, examples=12, length=15)


@pytest.mark.soak
def test_a_model_for_long(work: Work, shipped: Path) -> None:
    run(work, shipped, examples=200, length=30)
