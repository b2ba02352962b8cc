"""Searches with a filter against exhaustive ones in NumPy, over galleries with duplicates, additions and removals."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pocketlens
from pocketlens.collection import Collection
from pocketlens.compose.method import Composed, Scores
from pocketlens.errors import BadQuery
from pocketlens.filter import parse_filter
from pocketlens.gallery import Gallery
from pocketlens.index import IndexSpec
from pocketlens.items import Item
from pocketlens.local import Addition, Store
from tests.colours import unit
from tests.filters import FILTERS, TYPES, allows, random_item
from tests.galleries import bundle_of

ROWS, SHIPPED, DIM = 240, 300, 16  # rows 0 to 59 have two items each
ADDED = 40


@dataclass(frozen=True)
class World:
    """A bundle, and what is in it: every item with its vector, in the order in which equal scores come."""

    bundle: Path
    items: list[Item]
    vectors: np.ndarray

    def expected(self, query: np.ndarray, filter: Any, k: int) -> list[tuple[str, float]]:
        """Return id and cosine of the k nearest allowed items, by one float64 product each."""
        scores = self.vectors.astype(np.float64) @ query.astype(np.float64)
        allowed = [place for place, item in enumerate(self.items) if filter is None or allows(filter, item)]
        best = sorted(allowed, key=lambda place: -scores[place])[:k]
        return [(self.items[place].id, scores[place]) for place in best]


def _partitioned(rows: int) -> IndexSpec:
    return IndexSpec("partitions", rows, partitions=12, probes=1, recall=0.1)  # finds little


def make_world(folder: Path, *, rescore: bool, changed: bool) -> World:
    """Make a bundle; when it is changed, with items added, replaced and removed, of shared rows too."""
    generator, rng = random.Random(3), np.random.default_rng(3)
    vectors = unit(rng.standard_normal((ROWS, DIM)) + 0.5)
    items = [random_item(number, number % ROWS, generator) for number in range(SHIPPED)]
    bundle = bundle_of(folder, vectors, items, rescore=rescore, types=TYPES)
    gallery = Gallery.open(bundle / "gallery")
    stored = vectors.astype(np.float16).astype(np.float32) if rescore else gallery.index.vectors()
    rows = {item.id: item.row for item in gallery.items.read_all()}  # partitions have an order of their own
    gallery.close()
    there = {item.id: (item, stored[item.row]) for item in sorted(items, key=lambda item: (rows[item.id], item.id))}
    if changed:
        gone = [items[number].id for number in (0, ROWS, 1, 100, 101, 7, ROWS + 8)]  # row 0 whole, others in part
        replaced = [items[number].id for number in (2, 110, 111)]
        halves = unit(rng.standard_normal((ADDED, DIM)) + 0.5).astype(np.float16)
        new = [random_item(1_000 + number, -1, generator) for number in range(ADDED)]
        new[:3] = [replace(item, id=id) for item, id in zip(new, replaced, strict=False)]
        additions = [Addition(item, "c" * 64, half) for item, half in zip(new, halves, strict=True)]
        _change(bundle, additions, gone)
        for id in [*gone, *replaced]:
            del there[id]
        there |= {one.item.id: (one.item, one.vector.astype(np.float32)) for one in sorted(additions, key=_id)}
    return World(bundle, [item for item, _ in there.values()], np.array([vector for _, vector in there.values()]))


def _id(addition: Addition) -> str:
    return addition.item.id


def _change(bundle: Path, additions: list[Addition], gone: list[str]) -> None:
    collection = Collection(bundle)

    def write(gallery: Gallery, store: Store) -> None:
        for addition in additions:
            store.put(addition)
        for id in gone:
            store.remove(id)

    collection.change(write)
    collection.close()


@pytest.fixture(scope="module", params=["shipped", "changed", "changed, without originals", "changed, by partitions"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    if "partitions" in request.param:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pocketlens.segment_writer.spec_for", _partitioned)
            patch.setattr("pocketlens.segment_writer.tune_probes", lambda index, vectors, probes: index.spec)
            return make_world(folder, rescore=True, changed=True)
    return make_world(folder, rescore="without" not in request.param, changed="changed" in request.param)


@pytest.fixture(scope="module")
def lens(world: World) -> Iterator[pocketlens.Lens]:
    with pocketlens.open(world.bundle) as opened:
        yield opened


def test_a_thousand_filters_give_what_an_exhaustive_search_gives(world: World, lens: pocketlens.Lens) -> None:
    shares = set()
    examples = 1_000 if lens.gallery.index.spec.kind == "partitions" else 150
    rescored = lens.gallery.index.originals is not None

    @settings(max_examples=examples, deadline=None, database=None)
    @given(filter=FILTERS, seed=st.integers(0, 2**32 - 1), k=st.sampled_from([1, 3, 10, 20, 1_000]))
    def check(filter: dict[str, Any], seed: int, k: int) -> None:
        query = unit(np.random.default_rng(seed).standard_normal(DIM) + 0.5)
        hits = lens.search_vector(query, where=filter, k=k)
        expected = world.expected(query, filter, k)
        assert all(allows(filter, world.items[place]) for place in _places(world, hits))
        assert len(hits) == len(expected) == len({hit.id for hit in hits})
        if rescored:
            exact = dict(world.expected(query, filter, len(world.items)))
            for hit, (id, score) in zip(hits, expected, strict=True):
                assert hit.id == id or exact[hit.id] == pytest.approx(score, abs=1e-7)  # equal in float32
        np.testing.assert_allclose([hit.cosine for hit in hits], [score for _, score in expected],
                                   atol=1e-5 if rescored else 0.03)  # fmt: skip
        shares.add(sum(allows(filter, item) for item in world.items))

    check()
    assert {0, len(world.items)} <= shares and len(shares) > 15  # from none to all


def _places(world: World, hits: list[pocketlens.Hit]) -> list[int]:
    place = {item.id: number for number, item in enumerate(world.items)}
    return [place[hit.id] for hit in hits]


def test_every_allowed_item_of_a_shared_row_is_found_and_no_other(world: World, lens: pocketlens.Lens) -> None:
    query = unit(np.ones(DIM))
    for year in (2018, 2019, 2020, 2021):
        filter = {"year": year, "tag": {"exists": True}}
        found = lens.search_vector(query, where=filter, k=1_000)
        assert sorted(hit.id for hit in found) == sorted(item.id for item in world.items if allows(filter, item))
        assert {hit.attributes["year"] for hit in found} == {year}


def test_more_like_this_takes_a_filter_that_its_own_item_need_not_pass(world: World, lens: pocketlens.Lens) -> None:
    for place in (5, 70, len(world.items) - 1):
        filters: list[dict[str, Any]] = [{"year": 2020}, {"not": {"mood": {"exists": True}}}, {"year": {"in": []}}]
        for filter in filters:
            id = world.items[place].id
            hits = lens.similar(id, where=filter, k=5)
            expected = [one for one, _ in world.expected(world.vectors[place], filter, 1_000) if one != id][:5]
            if lens.gallery.index.originals is not None:
                assert [hit.id for hit in hits] == expected
            assert len(hits) == len(expected)


def test_several_threads_filter_at_once(world: World) -> None:
    queries = unit(np.random.default_rng(9).standard_normal((40, DIM)) + 0.5)
    filters: list[dict[str, Any]] = [{"year": 2020}, {"tag": "sea"}, {"mood": {"contains": "a"}}, {"score": {"gt": 0}}]
    with pocketlens.open(world.bundle) as lens, ThreadPoolExecutor(8) as pool:
        calls = [(query, filter) for query in queries for filter in filters]
        found = list(pool.map(lambda call: [h.id for h in lens.search_vector(call[0], where=call[1], k=9)], calls))
        assert found == [[hit.id for hit in lens.search_vector(query, where=filter, k=9)] for query, filter in calls]


def test_what_filters_leave_out_leaves_z_alone(lens: pocketlens.Lens) -> None:
    query = unit(np.arange(DIM) + 1.0)
    free = {hit.id: hit for hit in lens.search_vector(query, k=1_000)}
    some = lens.search_vector(query, where={"folder": {"starts": "a"}}, k=20)
    assert 0 < len(some) <= 20
    assert [hit.z for hit in some] == pytest.approx([free[hit.id].z for hit in some], abs=1e-3)


def test_min_z_and_diverse_work_on_what_a_filter_leaves(world: World, lens: pocketlens.Lens) -> None:
    query, filter = unit(np.ones(DIM)), {"width": {"gte": 20}}
    plain = lens.search_vector(query, where=filter, k=1_000)
    least = plain[9].z
    clear = lens.search_vector(query, where=filter, k=1_000, min_z=least)
    assert [hit.id for hit in clear] == [hit.id for hit in plain if hit.z >= least]
    diverse = lens.search_vector(query, where=filter, k=1_000, diverse=True)
    assert {hit.id for hit in diverse} < {hit.id for hit in plain}
    assert lens.search_vector(query, where={"width": 11}, diverse=True, min_z=1, min_margin=0.1) == []


def _product(scores: Scores) -> np.ndarray:
    return np.asarray(scores.values[0] * scores.values[1], dtype=np.float32)


@pytest.mark.parametrize("filter", [{"year": {"gte": 2019}}, {"tag": "sea", "width": 10}, {"year": 3}, {}], ids=str)
def test_a_fused_search_is_exhaustive_over_what_is_allowed(
    world: World, filter: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketlens.fusion.EXHAUSTIVE_ROWS", 10)  # as if the gallery were large: candidates miss some
    monkeypatch.setattr("pocketlens.fusion.CANDIDATES", 10)
    composed = Composed(unit(np.random.default_rng(5).standard_normal((2, DIM)) + 0.5), _product)
    collection = Collection(world.bundle)
    contents = collection.now()
    narrowed = contents.where(parse_filter(filter, contents.gallery.manifest.attributes))
    found = narrowed.fused(composed, k=1_000)
    ids = [item.id for row in found.rows for item in narrowed.of_row(int(row))]
    products = world.vectors @ composed.vectors.T
    expected = [item.id for item, _ in sorted(
        ((item, product) for item, product in zip(world.items, products.prod(axis=1), strict=True)
         if allows(filter, item)), key=lambda pair: -pair[1])]  # fmt: skip
    assert ids == expected
    assert narrowed.count == len(expected)
    collection.close()


def test_contents_are_narrowed_and_stay_what_they_were(world: World) -> None:
    collection = Collection(world.bundle)
    contents = collection.now()
    schema = contents.gallery.manifest.attributes
    before = [item.id for item in contents.read_all()]
    filter = {"mood": {"exists": True}}
    narrowed = contents.where(parse_filter(filter, schema))
    assert [item.id for item in narrowed.read_all()] == [item.id for item in world.items if allows(filter, item)]
    twice = narrowed.where(parse_filter({"width": 10}, schema))
    both = {**filter, "width": 10}
    assert [item.id for item in twice.read_all()] == [item.id for item in world.items if allows(both, item)]
    assert [item.id for item in contents.read_all()] == before == [item.id for item in world.items]
    assert contents.count == len(before)
    collection.close()


@pytest.mark.parametrize("where", [{"nope": 1}, {"year": "2020"}, "year=2020", [], {"year": {"near": 1}}], ids=str)
def test_a_wrong_filter_is_a_bad_query_everywhere(lens: pocketlens.Lens, where: Any) -> None:
    query = unit(np.ones(DIM))
    calls: list[Callable[[], Any]] = [
        lambda: lens.search_vector(query, where=where),
        lambda: lens.similar("0.png", where=where),
        lambda: lens.search(text="x", where=where),  # before a tower is missed
        lambda: lens.search(text="x", negative="y", where=where),
    ]
    for call in calls:
        with pytest.raises(BadQuery, match="where"):
            call()
