from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketlens
from pocketlens import BadQuery
from pocketlens._types import Float32s
from pocketlens.duplicates import NEAR
from tests.galleries import bundle_of, item_of

DIM = 16


def _with_copies(rng: np.random.Generator, pictures: int, copies: int) -> Float32s:
    """Return unit vectors, float32 (pictures * copies, DIM), in sets of near-duplicates; the sets are far apart."""
    centres = np.repeat(rng.normal(size=(pictures, DIM)), copies, axis=0)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = centres + rng.normal(scale=0.02, size=centres.shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _diverse_by_hand(vectors: Float32s, query: Float32s, k: int) -> list[str]:
    """Return ids, best first: one at a time over the whole ranking, in float64."""
    wide = vectors.astype(np.float64)
    kept: list[int] = []
    for row in np.argsort(-(wide @ query), kind="stable"):
        if all(wide[row] @ wide[other] < NEAR for other in kept):
            kept.append(int(row))
    return [str(row) for row in kept[:k]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3, 10, 39, 41])
def test_diverse_hits_are_those_of_the_whole_ranking(seed: int, k: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    lens = pocketlens.open(bundle_of(tmp_path, _with_copies(rng, 40, 12)))
    query = rng.normal(size=DIM).astype(np.float32)
    query /= np.linalg.norm(query)
    found = lens.search_vector(query, k=k, diverse=True)
    assert [hit.id for hit in found] == _diverse_by_hand(lens.gallery.index.vectors(), query, k)
    assert len(found) == min(k, 40)
    plain = lens.search_vector(query, k=480)
    assert {hit.id: hit.cosine for hit in found}.items() <= {hit.id: hit.cosine for hit in plain}.items()


def test_diverse_shows_one_of_the_items_that_share_a_row(tmp_path: Path) -> None:
    items = [item_of(0, id="a"), item_of(0, id="b"), item_of(1, id="c")]
    lens = pocketlens.open(bundle_of(tmp_path, np.eye(2, dtype=np.float32), items))
    query = np.array([1, 0.5], dtype=np.float32)
    assert [hit.id for hit in lens.search_vector(query)] == ["a", "b", "c"]
    assert [hit.id for hit in lens.search_vector(query, diverse=True)] == ["a", "c"]


def test_min_z_leaves_out_what_is_below_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lens = pocketlens.open(bundle_of(tmp_path, _with_copies(rng, 200, 1)))
    query = rng.normal(size=DIM).astype(np.float32)
    every = lens.search_vector(query, k=200)
    assert every[0].z > 1.5 > every[-1].z
    for least in (-10, every[3].z, 1.5, 10):
        assert lens.search_vector(query, k=200, min_z=least) == [hit for hit in every if hit.z >= least]
    assert lens.search_vector(query, k=2, min_z=-10) == every[:2]


@pytest.mark.parametrize("rows", [1, 2, 30, 200])
def test_margins_are_over_the_next_forty_nine(rows: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lens = pocketlens.open(bundle_of(tmp_path, _with_copies(rng, rows, 1)))
    query = rng.normal(size=DIM).astype(np.float32)
    ranked = np.sort((lens.gallery.index.vectors().astype(np.float64) @ query) / np.linalg.norm(query))[::-1]
    expected = ranked - (ranked[1:50].mean() if rows > 1 else ranked[0])
    every = lens.search_vector(query, k=200)
    np.testing.assert_allclose([hit.margin for hit in every], expected, atol=1e-5)
    for k in (1, 7, 60):
        assert lens.search_vector(query, k=k) == every[:k]
        assert lens.search_vector(query, k=k, diverse=True)[0].margin == every[0].margin
    for least in (-2, 0, every[-1].margin, 2):
        expected_hits = [hit for hit in every if hit.margin >= least]
        assert lens.search_vector(query, k=200, min_margin=least) == expected_hits
        assert lens.search_vector(query, k=200, min_margin=least, min_z=0) == [h for h in expected_hits if h.z >= 0]


@pytest.mark.parametrize("least", [float("nan"), float("inf"), -float("inf"), "3", True, 10**400, [3]])
def test_a_min_z_that_is_no_number_is_a_bad_query(bundle: Path, least: Any) -> None:
    with pocketlens.open(bundle) as lens:
        searches: list[Callable[[], object]] = [
            lambda: lens.search(text="red", min_z=least),
            lambda: lens.search(text="red", min_margin=least),
            lambda: lens.similar("red.png", min_z=least),
            lambda: lens.search_vector(np.ones(4, dtype=np.float32), min_z=least),
        ]
        for search in searches:
            with pytest.raises(BadQuery, match=r"min_(z|margin) is .*, expected a number from -1e6 to 1e6"):
                search()


def test_min_z_and_diverse_apply_to_fused_searches(bundle: Path, pictures: Path) -> None:
    with pocketlens.open(bundle) as lens:
        query: dict[str, Any] = {"text": "green", "image": pictures / "red.png", "method": "product"}
        every = lens.search(**query)
        assert any(hit.score != hit.cosine for hit in every)
        assert lens.search(**query, min_z=0.5) == [hit for hit in every if hit.z >= 0.5]
        assert [hit.id for hit in lens.search(**query, diverse=True)] == [
            hit.id for hit in every if hit.id != "red.png"  # the better of two copies by id
        ]  # fmt: skip


# more like this


def test_more_like_this_equals_a_search_with_the_stored_vector(tmp_path: Path) -> None:
    lens = pocketlens.open(bundle_of(tmp_path, _with_copies(np.random.default_rng(1), 30, 4)))
    for row in (0, 17, 119):
        vector = lens.gallery.index.vectors(np.array([row]))[0]
        others = [hit for hit in lens.search_vector(vector, k=120) if hit.id != str(row)]
        for k in (1, 10, 200):
            assert list(lens.similar(str(row), k=k)) == others[:k]
        shown = {str(4 * (row // 4) + i) for i in range(4)}
        diverse = lens.similar(str(row), k=5, diverse=True)
        assert len(diverse) == 5
        assert not shown & {hit.id for hit in diverse}


def test_more_like_this_needs_no_encoder_and_finds_copies(bundle: Path) -> None:
    with pocketlens.open(bundle) as lens:
        hits = lens.similar("red.png", k=2)
        assert hits[0].id == "more/red copy.png"
        assert hits[0].cosine == pytest.approx(1, abs=1e-3)
        assert (hits.method, len(hits)) == ("image", 2)
        assert "more/red copy.png" not in [hit.id for hit in lens.similar("red.png", diverse=True)]
        assert len(lens.similar("red.png", k=1_000)) == 4
        assert lens._towers.text_encoder is None
        assert lens._towers.image_encoder is None


def test_codes_alone_give_more_like_this_too(tmp_path: Path) -> None:
    lens = pocketlens.open(bundle_of(tmp_path, _with_copies(np.random.default_rng(2), 20, 3), rescore=False))
    assert {hit.id for hit in lens.similar("4", k=2)} == {"3", "5"}


@pytest.mark.parametrize("id", ["none.png", "", "RED.PNG", "red.png' OR '1'='1", "\x00", "\ud800", "%"])
def test_an_unknown_id_is_a_bad_query(bundle: Path, id: str) -> None:
    with pocketlens.open(bundle) as lens, pytest.raises(BadQuery, match="no item has the id"):
        lens.similar(id)


@pytest.mark.parametrize("id", [None, 3, b"red.png", Path("red.png")])
def test_an_id_that_is_no_string_is_a_bad_query(bundle: Path, id: Any) -> None:
    with pocketlens.open(bundle) as lens, pytest.raises(BadQuery, match="expected a str"):
        lens.similar(id)


def test_a_closed_lens_refuses_more_like_this(bundle: Path) -> None:
    lens = pocketlens.open(bundle)
    lens.close()
    with pytest.raises(BadQuery, match="this lens is closed"):
        lens.similar("red.png")
