"""Generations of a gallery against a dict in plain Python, which knows what is there and its vectors."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketlens.contents import Contents
from pocketlens.errors import BadQuery, FormatError
from pocketlens.filter import parse_filter
from pocketlens.fusion import top
from pocketlens.gallery import Counts, Gallery, open_manifest
from pocketlens.inspect import verify
from pocketlens.items import Item
from pocketlens_export.gallery.generation import GenerationWriter
from tests.colours import unit
from tests.folders import edit_json, sign
from tests.galleries import gallery_of, item_of

DIM = 8
VECTORS = unit(np.random.default_rng(3).standard_normal((60, DIM)))
QUERIES = unit(np.random.default_rng(4).standard_normal((5, DIM)))
World = dict[str, int]  # number of each item's vector, by id


def items_of(world: World) -> tuple[np.ndarray, list[Item]]:
    """Return vectors and items; those with the same number share a row. Width tells the number."""
    rows = {number: row for row, number in enumerate(dict.fromkeys(world.values()))}
    vectors = np.stack([VECTORS[number] for number in rows]) if rows else np.zeros((0, DIM), dtype=np.float32)
    items = [item_of(rows[n], id=id, width=n + 1, sha256=f"{n:064x}") for id, n in world.items()]
    return vectors, sorted(items, key=lambda item: (item.row, item.id))


def first_of(folder: Path, world: World, *, rescore: bool = True) -> Path:
    folder.mkdir()
    gallery_of(folder, *items_of(world), rescore=rescore).close()
    return folder / "gallery"


def next_of(old: Path, new: Path, changed: World, gone: set[str]) -> Path:
    new.mkdir()
    vectors, items = items_of(changed)
    counts = Counts(len(items) + 2, len(vectors), len(items) - len(vectors), {"damaged": 2})
    with closing(Gallery.open(old)) as gallery:
        numbers = np.array(list(gallery.items.numbers_of(gone).values()), dtype=np.int64)
        with GenerationWriter(new, old, gallery, numbers) as writer:
            for start in range(0, len(vectors), 4):
                writer.add(vectors[start : start + 4])
            writer.finish(reversed(items), counts=counts)
    return new


def check(path: Path, world: World, *, rescore: bool = True) -> None:
    """Compare what a gallery finds with the world."""
    assert verify(path)
    with closing(Gallery.open(path)) as gallery:
        contents = Contents(gallery)
        ids = sorted(world)
        assert contents.count == gallery.items.count == len(world)
        assert {item.id: item.width - 1 for item in contents.read_all()} == world
        assert [contents.find(id).width - 1 for id in ids] == [world[id] for id in ids]
        stored = gallery.index.vectors().astype(np.float64)
        row_of = {item.id: item.row for item in contents.read_all()}
        exact = np.stack([VECTORS[world[id]] for id in ids])
        found = stored[[row_of[id] for id in ids]]
        np.testing.assert_allclose(found, exact, atol=1e-3 if rescore else 0.05)
        for query in QUERIES:
            nearest = contents.nearest(query, k=5)
            rows = np.array(sorted(set(row_of.values())))
            expected = np.sort(stored[rows] @ query)[::-1][:5]
            np.testing.assert_allclose(nearest.cosines, expected, atol=1e-6 if rescore else 5e-3)
            hits = [item.id for row in nearest.rows for item in contents.of_row(int(row))]
            assert len(set(hits)) == len(hits) and set(hits) <= set(world)
            wide = contents.where(parse_filter({"width": {"gt": 30}}, gallery.manifest.attributes))
            allowed = {row_of[id] for id, number in world.items() if number >= 30}
            assert set(wide.nearest(query, k=60).rows) == allowed
        missing = {str(number) for number in range(25)} - set(world)
        assert contents.find_all(missing) == {}
        for id in missing:
            with pytest.raises(BadQuery, match="no item has the id"):
                contents.find(id)


IDS = st.sampled_from([str(number) for number in range(25)])
CHANGES = st.lists(
    st.tuples(st.dictionaries(IDS, st.integers(0, 59), max_size=6), st.sets(IDS, max_size=10)), min_size=1, max_size=4
)


@pytest.mark.parametrize("rescore", [True, False])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=st.dictionaries(IDS, st.integers(0, 59), min_size=1, max_size=12), changes=CHANGES)
def test_generations_are_the_world_they_are_written_of(
    tmp_path_factory: pytest.TempPathFactory, rescore: bool, first: World, changes: list[tuple[World, set[str]]]
) -> None:
    folder, world = tmp_path_factory.mktemp("g"), dict(first)
    path, number = first_of(folder / "1", first, rescore=rescore), 1
    for changed, gone in changes:
        after = {id: n for id, n in world.items() if id not in gone} | changed
        if not after or not (changed or gone & world.keys()):
            with pytest.raises(BadQuery, match="it stays as it is"):
                next_of(path, folder / f"refused {len(list(folder.iterdir()))}", changed, gone)
            continue
        world, number = after, number + 1
        path = next_of(path, folder / f"{number}", changed, gone)
        assert open_manifest(path).generation == number
        check(path, world, rescore=rescore)


def test_an_old_generation_stays_as_it_is_and_its_files_are_shared(tmp_path: Path) -> None:
    first = first_of(tmp_path / "1", {"a": 1, "b": 2, "c": 3})
    second = next_of(first, tmp_path / "2", {"b": 4, "d": 5}, {"a"})
    check(first, {"a": 1, "b": 2, "c": 3})
    check(second, {"b": 4, "c": 3, "d": 5})
    for name in open_manifest(first).files:
        assert (second / name).samefile(first / name)
    manifest = open_manifest(second)
    assert [(segment.generation, segment.gone) for segment in manifest.segments] == [(1, 0), (2, 2)]
    assert (manifest.counts.indexed, manifest.counts.duplicates, manifest.counts.seen) == (3, 0, 5)


def test_z_is_that_of_the_first_generation(tmp_path: Path) -> None:
    first = first_of(tmp_path / "1", {str(n): n for n in range(20)})
    second = next_of(first, tmp_path / "2", {str(n): n for n in range(20, 40)}, set())
    with closing(Gallery.open(first)) as old, closing(Gallery.open(second)) as new:
        np.testing.assert_array_equal(old.mean, new.mean)
        np.testing.assert_array_equal(old.covariance, new.covariance)


def test_a_generation_may_take_away_alone(tmp_path: Path) -> None:
    first = first_of(tmp_path / "1", {"a": 1, "copy": 1, "b": 2})
    second = next_of(first, tmp_path / "2", {}, {"a", "b"})
    check(second, {"copy": 1})
    third = next_of(second, tmp_path / "3", {"b": 9}, set())
    check(third, {"copy": 1, "b": 9})
    assert sorted(path.name for path in (second / "1").iterdir()) == ["gone.i64"]


def _spoil_gone(numbers: list[int]) -> bytes:
    return np.array(numbers, dtype="<i8").tobytes()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0], r"gone\.i64 has 8 bytes, expected 16 for 2 items"),
        ([1, 0], r"gone\.i64 does not rise within the 3 items"),
        ([0, 0], r"gone\.i64 does not rise within the 3 items"),
        ([0, 3], r"gone\.i64 does not rise within the 3 items"),
        ([-1, 0], r"gone\.i64 does not rise within the 3 items"),
    ],
)
def test_what_is_gone_is_checked(tmp_path: Path, numbers: list[int], message: str) -> None:
    path = next_of(first_of(tmp_path / "1", {"a": 1, "b": 2, "c": 3}), tmp_path / "2", {"d": 4}, {"a", "b"})
    (path / "1" / "gone.i64").write_bytes(_spoil_gone(numbers))
    sign(path / "gallery.json")
    with pytest.raises(FormatError, match=message):
        Gallery.open(path)


def test_an_item_is_gone_once(tmp_path: Path) -> None:
    path = next_of(first_of(tmp_path / "1", {"a": 1, "b": 2}), tmp_path / "2", {}, {"a"})
    path = next_of(path, tmp_path / "3", {"c": 3}, {"b"})
    (path / "2" / "gone.i64").write_bytes(_spoil_gone([0]))
    sign(path / "gallery.json")
    with pytest.raises(FormatError, match="an item was taken away twice"):
        Gallery.open(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": 3}, "generation 3 continues 1"),
        ({"previous": {}}, r"segments are of generations \[1, 2\], expected 2 to 2"),
        ({"previous": {"x": "0"}}, "generation 2 continues x"),
        ({"segments__1__generation": 1}, r"segments are of generations \[1, 1\], expected 1 to 2"),
        ({"segments__0__generation": 2}, r"segments are of generations \[2, 2\], expected 1 to 2"),
        ({"segments__1__gone": -1}, "the first segment has no index, or one took away a negative number of items"),
        ({"segments__0__index": None}, "the first segment has no index"),
        ({"segments": []}, r"segments are of generations \[\], expected 1 to 2"),
        ({"segments__1__index__rows": 0}, "segment 1: 0 rows of 8 dimensions"),
        ({"segments__1__index": None}, "files are .* expected "),
    ],
)
def test_a_manifest_whose_generations_do_not_go_together(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = next_of(first_of(tmp_path / "1", {"a": 1, "b": 2}), tmp_path / "2", {"c": 3}, set())
    edit_json(path / "gallery.json", **changes)
    with pytest.raises(FormatError, match=message):
        Gallery.open(path)


def test_verify_finds_an_id_that_is_there_twice(tmp_path: Path) -> None:
    path = next_of(first_of(tmp_path / "1", {"a": 1, "b": 2}), tmp_path / "2", {"a": 3}, set())
    (path / "1" / "gone.i64").write_bytes(_spoil_gone([1]))
    sign(path / "gallery.json")
    with pytest.raises(FormatError, match="different ids is 1, expected 2"):
        verify(path)


def test_what_many_generations_took_away_hides_nothing(tmp_path: Path) -> None:
    """Most rows are gone, the best of all among them."""
    world = {str(n): n for n in range(50)}
    path = first_of(tmp_path / "0", world)
    for step in range(1, 5):
        gone = {str(n) for n in range(12 * (step - 1), 12 * step)}
        path, world = next_of(path, tmp_path / str(step), {}, gone), {i: n for i, n in world.items() if i not in gone}
    check(path, world)
    with closing(Gallery.open(path)) as gallery:
        assert gallery.index.search(VECTORS[:1], k=10).counts.tolist() == [2]
        expected = np.array([48, 49])[top(VECTORS[48:50] @ VECTORS[0], 2)]
        np.testing.assert_array_equal(gallery.index.search(VECTORS[:1], k=10).rows[0, :2], expected)
        assert set(gallery.index.rows) == {48, 49}
        assert len(gallery.sample(10)) == 10
        seen = {tuple(vector) for vector in gallery.sample(50).round(2).tolist()}
        assert len(seen) <= 2
        assert gallery.manifest.counts == Counts(4, 2, 0, {"damaged": 2})
