from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketlens.compose.method import Composed
from pocketlens.contents import Contents
from pocketlens.errors import BadQuery
from pocketlens.gallery import Gallery
from pocketlens.items import Item
from pocketlens.local import NO_ROW, NOTHING, Addition, Local
from tests.galleries import gallery_of, item_of

DIM = 8
ROWS = 12
SHARED = {12: 3, 13: 3, 14: 5}  # copies by number: they share another item's row


def vectors(count: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


SHIPPED = vectors(ROWS, 0)
ADDED = vectors(40, 1).astype(np.float16)


@pytest.fixture(scope="module", params=[True, False], ids=["rescored", "codes alone"])
def gallery(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    items = [item_of(row) for row in range(ROWS)] + [item_of(row, id=str(id)) for id, row in SHARED.items()]
    opened = gallery_of(tmp_path_factory.mktemp("g"), SHIPPED, items, rescore=request.param)
    yield opened
    opened.close()


def local_of(added: dict[str, int], removed: list[str]) -> Local:
    """Return additions by id, each with the vector of a number, and removals."""
    additions = {
        id: Addition(Item(id, NO_ROW, id, 1, 1, f"{number:064x}", {}, "light"), "c" * 64, ADDED[number])
        for id, number in sorted(added.items())
    }
    return Local(additions, frozenset(removed))


def oracle(gallery: Gallery, added: dict[str, int], removed: list[str]) -> dict[str, np.ndarray]:
    """Return the vector of every item by id, in plain Python."""
    row_of = {str(row): row for row in range(ROWS)} | {str(id): row for id, row in SHARED.items()}
    stored = gallery.index.vectors()
    kept = {id: stored[row] for id, row in row_of.items() if id not in removed and id not in added}
    return kept | {id: ADDED[number].astype(np.float32) for id, number in added.items()}


CHANGES = st.tuples(
    st.dictionaries(st.sampled_from([str(id) for id in range(25)]), st.integers(0, 39), max_size=8),
    st.lists(st.sampled_from([str(id) for id in range(15)]), max_size=15, unique=True),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, seed=st.integers(2, 1_000), k=st.integers(1, 30))
def test_the_answer_is_that_of_plain_python(
    gallery: Gallery, changes: tuple[dict[str, int], list[str]], seed: int, k: int
) -> None:
    added, removed = changes
    removed = [id for id in removed if id not in added]
    contents, expected = Contents(gallery, local_of(added, removed)), oracle(gallery, added, removed)
    assert contents.count == len(expected)
    assert {item.id for item in contents.read_all()} == set(expected)
    query = vectors(1, seed)[0]
    found = contents.nearest(query, k=k)
    ids = [item.id for row in found.rows for item in contents.of_row(int(row))]
    assert len(ids) == len(set(ids))
    exact = {id: float(np.clip(vector @ query, -1, 1)) for id, vector in expected.items()}
    if gallery.manifest.rescore:
        best = sorted(exact.values(), reverse=True)
        shown = [exact[id] for id in ids]
        np.testing.assert_allclose(shown, best[: len(shown)], atol=1e-6)
        assert len(shown) >= min(k, len(exact))
    for row, cosine in zip(found.rows, found.cosines, strict=True):
        for item in contents.of_row(int(row)):
            assert abs(exact[item.id] - cosine) < (1e-5 if gallery.manifest.rescore else 0.02)
    assert (np.diff(found.cosines) <= 0).all()


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, seed=st.integers(2, 1_000))
def test_fused_scores_are_those_of_plain_python(
    gallery: Gallery, changes: tuple[dict[str, int], list[str]], seed: int
) -> None:
    added, removed = changes
    removed = [id for id in removed if id not in added]
    contents, expected = Contents(gallery, local_of(added, removed)), oracle(gallery, added, removed)
    composed = Composed(vectors(2, seed), lambda scores: scores.values[0] * scores.values[1])
    found = contents.fused(composed, k=30)
    scores = {id: float((composed.vectors[0] @ v) * (composed.vectors[1] @ v)) for id, v in expected.items()}
    shown = {
        item.id: float(s) for row, s in zip(found.rows, found.scores, strict=True) for item in contents.of_row(int(row))
    }
    assert set(shown) == set(scores)
    for id, score in scores.items():
        assert abs(shown[id] - score) < 1e-5
    assert (np.diff(found.scores) <= 0).all()


def test_without_changes_it_is_the_gallery(gallery: Gallery) -> None:
    contents = Contents(gallery)
    found, matches = contents.nearest(SHIPPED[2], k=5), gallery.index.search(SHIPPED[2:3], k=5)
    np.testing.assert_array_equal(found.rows, matches.rows[0])
    np.testing.assert_array_equal(found.cosines, matches.scores[0])
    assert contents.local == NOTHING
    assert contents.count == 15


def test_one_of_two_that_share_a_row_may_go(gallery: Gallery) -> None:
    contents = Contents(gallery, local_of({}, ["12", "3"]))
    assert [item.id for item in contents.of_row(3)] == ["13"]
    assert contents.nearest(SHIPPED[3], k=1).rows.tolist() == [3]
    gone = Contents(gallery, local_of({}, ["12", "3", "13"]))
    assert gone.of_row(3) == []
    assert 3 not in gone.nearest(SHIPPED[3], k=100).rows


def test_when_all_are_removed_nothing_is_found(gallery: Gallery) -> None:
    contents = Contents(gallery, local_of({}, [str(id) for id in range(15)]))
    assert contents.count == 0
    assert len(contents.nearest(SHIPPED[0], k=10).rows) == 0
    composed = Composed(vectors(2, 5), lambda scores: scores.values[0])
    assert len(contents.fused(composed, k=10).rows) == 0
    only = Contents(gallery, local_of({"new": 0}, [str(id) for id in range(15)]))
    assert [only.of_row(int(row))[0].id for row in only.nearest(SHIPPED[0], k=10).rows] == ["new"]


def test_items_are_found_by_id_and_removed_ones_are_not(gallery: Gallery) -> None:
    contents = Contents(gallery, local_of({"5": 1, "new": 2}, ["1"]))
    assert contents.find("5").sha256 == f"{1:064x}"
    assert contents.find("new").row >= ROWS
    assert contents.find("2").row == 2
    with pytest.raises(BadQuery, match="the item '1' was removed"):
        contents.find("1")
    with pytest.raises(BadQuery, match="no item has the id 'nobody'"):
        contents.find("nobody")
    assert set(contents.find_all(["1", "2", "5", "new", "nobody"])) == {"2", "5", "new"}
    rows = np.array([contents.find("2").row, contents.find("new").row])
    np.testing.assert_array_equal(contents.vectors(rows)[1], ADDED[2].astype(np.float32))


@pytest.mark.parametrize("k", [0, 1_001, True, "3"])
@pytest.mark.parametrize("removed", [[], ["1"]])
def test_a_wrong_k_is_a_bad_query(gallery: Gallery, removed: list[str], k: int) -> None:
    with pytest.raises(BadQuery, match="k is"):
        Contents(gallery, local_of({}, removed)).nearest(SHIPPED[0], k=k)
