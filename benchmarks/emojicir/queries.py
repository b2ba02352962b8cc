"""Chooses cases by a fixed seed and writes their queries: balanced over families, concepts and vendors."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from emojicir.cases import Case, positive_cases
from emojicir.families import edits
from emojicir.gallery import Gallery
from emojicir.negatives import negative_cases
from emojicir.tables import Tables

SEED = 0
CASES = {"train": 1600, "validation": 600, "test": 1200}
"""Cases of each split, of which each phrasing is a query; as even over the families as these have concepts."""

NEGATIVE_CASES = {"train": 200, "validation": 80, "test": 160}
PER_TARGET = 20
"""At most so many cases of a family and split share their target, or a family of one concept would never end."""


@dataclass(frozen=True, slots=True)
class Query:
    """A line of queries.jsonl."""

    id: str
    family: str
    split: str
    seen: bool
    reference: str
    text: str
    phrasing: int
    target: str
    answers: tuple[str, ...]
    negative: str | None
    unwanted: tuple[str, ...]

    def line(self) -> str:
        """Return the query as JSON, its keys sorted."""
        fields = {name: getattr(self, name) for name in sorted(self.__slots__)}
        return json.dumps(fields, ensure_ascii=False)


def _digest(seed: int, *words: str) -> str:
    return hashlib.sha256("\t".join((str(seed), *words)).encode()).hexdigest()


def _dealt(cases: Iterable[Case], by: Callable[[Case], str], seed: int) -> list[Case]:
    """Return the cases so that the groups `by` take turns; within a group their order stays."""
    place: Counter[str] = Counter()
    keyed: list[tuple[int, str, Case]] = []
    for case in cases:
        group = by(case)
        keyed.append((place[group], _digest(seed, group, case.target, case.kind), case))
        place[group] += 1
    return [case for _, _, case in sorted(keyed, key=lambda item: item[:2])]


def _dealt_evenly(cases: Iterable[Case], seed: int) -> list[Case]:
    """Return the cases of a family and split in the order in which they are taken.

    Targets' roots take turns, and within one of them the vendors of the reference; chance decides the rest. Cases over
    `PER_TARGET` of one target are left out.
    """
    shuffled = sorted(cases, key=lambda case: _digest(seed, case.name))
    by_vendor = _dealt(shuffled, lambda case: f"{case.root} {case.vendor}", seed)
    taken: Counter[str] = Counter()
    kept = []
    for case in _dealt(by_vendor, lambda case: case.root, seed):
        taken[case.target] += 1
        if taken[case.target] <= PER_TARGET:
            kept.append(case)
    return kept


def shares(available: dict[str, int], total: int) -> dict[str, int]:
    """Return how many of each to take: alike for all, but that those who have fewer give them all."""
    left, given = total, dict[str, int]()
    waiting = sorted(available, key=lambda name: (available[name], name))
    for done, name in enumerate(waiting):
        given[name] = min(available[name], left // (len(waiting) - done))
        left -= given[name]
    return given


def choose(cases: Iterable[Case], totals: dict[str, int], *, seed: int = SEED) -> list[Case]:
    """Return the chosen cases of all splits, `totals` of each or as many as there are."""
    pools: dict[str, dict[str, list[Case]]] = {split: defaultdict(list) for split in totals}
    for case in cases:
        pools[case.split][case.kind].append(case)
    chosen = []
    for split, kinds in pools.items():
        dealt = {kind: _dealt_evenly(pool, seed) for kind, pool in kinds.items()}
        counts = shares({kind: len(pool) for kind, pool in dealt.items()}, totals[split])
        chosen += [case for kind, pool in dealt.items() for case in pool[: counts[kind]]]
    return chosen


def _queries_of(case: Case) -> Iterator[Query]:
    for phrasing, text in enumerate(case.texts):
        yield Query(
            f"{case.name}#{phrasing}", case.family, case.split, case.seen, case.reference, text, phrasing,
            case.target, tuple(sorted(case.answers)), case.negative, tuple(sorted(case.unwanted)),
        )  # fmt: skip


def build_queries(gallery: Gallery, tables: Tables, *, seed: int = SEED) -> list[Query]:
    """Return all queries, sorted by id."""
    steps = list(edits(gallery, tables))
    chosen = choose(positive_cases(steps, gallery, tables), CASES, seed=seed)
    chosen += choose(negative_cases(steps, gallery, tables), NEGATIVE_CASES, seed=seed)
    return sorted((query for case in chosen for query in _queries_of(case)), key=lambda query: query.id)
