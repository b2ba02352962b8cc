from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pocketlens.compose import Composed, Negative, Query, Scores, Text, compose, find_method
from pocketlens.compose.method import Value
from pocketlens.concepts import Concepts
from pocketlens.errors import BadQuery
from pocketlens.fusion import fan, search_fused, top
from pocketlens.gallery import Counts, Gallery
from pocketlens.gallery_writer import write_gallery
from pocketlens.items import Item
from pocketlens.model import Space
from pocketlens_bench import clip_shaped
from tests.runtime.compose.kit import ArrayKit

ROWS, QUERIES, DIM = 20_000, 50, 512
TEXTS = clip_shaped.texts(2 * QUERIES + 200)
PICTURES = clip_shaped.pictures(QUERIES, seed=1)
SCORE: dict[str, Value] = {"negative_level": "score", "negative_strength": 1.0, "negative_floor": 1.0}


def open_gallery(folder: Path, vectors: np.ndarray, *, rescore: bool = True) -> Gallery:
    folder.mkdir()
    items = [Item(str(row), row, f"{row}.png", 1, 1, "0" * 64, {}) for row in range(len(vectors))]
    space, counts = Space("s@" + "0" * 64, vectors.shape[1]), Counts(len(vectors), len(vectors), 0, {})
    write_gallery(folder, vectors, items, space=space, model="m", counts=counts, rescore=rescore)
    return Gallery.open(folder)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return open_gallery(tmp_path_factory.mktemp("galleries") / "clip", clip_shaped.pictures(ROWS))


@pytest.fixture(scope="module")
def kit(gallery: Gallery) -> ArrayKit:
    names = TEXTS[2 * QUERIES :]
    subspace = np.linalg.svd(names - names.mean(axis=0), full_matrices=False)[2][:64]
    concepts = Concepts(tuple(map(str, range(len(names)))), names, names.mean(axis=0), subspace.astype(np.float32))
    known = {f"text {number}": vector for number, vector in enumerate(TEXTS)}
    return ArrayKit(gallery.index.vectors(), concepts, known)


def composed(kit: ArrayKit, number: int, name: str, values: Mapping[str, Value], *, unwanted: str = "") -> Composed:
    query = Query(PICTURES[number], (Text(f"text {number}"),))
    vectors = {"text": TEXTS[QUERIES + number], "neighbour": kit.nearest(PICTURES[number], 3)[-1]}
    negative = Negative(vectors[unwanted][np.newaxis], np.ones(1, dtype=np.float32)) if unwanted else None
    return compose(query, negative, kit, find_method(name), values)


@pytest.mark.parametrize(
    ("name", "values", "unwanted"),
    [
        ("product", {}, ""),
        ("centred-product", {}, ""),
        ("weicom", {}, ""),
        ("weicom", {"text_share": 0.9}, ""),
        ("basic", {"expansion": 0}, ""),
        ("basic", {"expansion": 0, "harris": 0.2}, ""),
        ("basic", {"expansion": 0}, "text"),
        ("sum", SCORE, "text"),
        ("product", SCORE, "text"),
        ("weicom", SCORE, "text"),
        ("sum", {**SCORE, "negative_strength": 2}, "neighbour"),  # what is wanted is unwanted too
    ],
)
def test_candidates_have_the_top_ten_of_all_rows(
    gallery: Gallery, kit: ArrayKit, name: str, values: Mapping[str, Value], unwanted: str
) -> None:
    queries = [composed(kit, number, name, values, unwanted=unwanted) for number in range(QUERIES)]
    same = [
        search_fused(gallery, query, k=10, exhaustive=False).rows.tolist()
        == search_fused(gallery, query, k=10, exhaustive=True).rows.tolist()
        for query in queries
    ]
    assert np.mean(same) >= 0.99  # of 50: all; benchmarks/results/fusion.json has 500 on larger galleries


def test_the_product_equals_numpy(gallery: Gallery, kit: ArrayKit) -> None:
    query = composed(kit, 3, "product", {})
    found = search_fused(gallery, query, k=10)
    rows = gallery.index.vectors().astype(np.float64)
    cosines = np.stack([rows @ PICTURES[3].astype(np.float64), rows @ TEXTS[3].astype(np.float64)])
    scores = np.maximum(cosines, 0).prod(axis=0)
    assert found.rows.tolist() == np.argsort(-scores, kind="stable")[:10].tolist()
    np.testing.assert_allclose(found.scores, scores[found.rows], rtol=1e-4)
    np.testing.assert_allclose(found.cosines, cosines.mean(axis=0)[found.rows], atol=1e-5)
    z = (cosines - cosines.mean(axis=1, keepdims=True)) / cosines.std(axis=1, keepdims=True)
    np.testing.assert_allclose(found.z_scores, z.mean(axis=0)[found.rows], atol=2e-2)


def test_what_is_unwanted_counts_for_the_score_but_not_for_cosine_and_z(gallery: Gallery, kit: ArrayKit) -> None:
    query = composed(kit, 5, "sum", SCORE, unwanted="text")
    found = search_fused(gallery, query, k=5)
    wanted = query.vectors[0].astype(np.float64)
    cosines = gallery.index.vectors(found.rows) @ wanted
    np.testing.assert_allclose(found.cosines, cosines, atol=1e-5)
    assert (found.scores <= found.cosines + 1e-6).all()


def test_a_fuse_function_gets_rows_and_statistics(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((50, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery = open_gallery(tmp_path / "g", vectors)
    asked = 3 * rng.standard_normal((2, 8)).astype(np.float32)  # of any length
    seen: list[Scores] = []

    def fuse(scores: Scores) -> np.ndarray:
        seen.append(scores)
        np.testing.assert_allclose(scores.rows(np.array([7, 3])), vectors[[7, 3]], atol=1e-3)
        return np.asarray(scores.values.sum(axis=0))

    found = search_fused(gallery, Composed(asked, fuse), k=60)
    assert sorted(found.rows.tolist()) == list(range(50))
    products = asked.astype(np.float64) @ vectors.T.astype(np.float64)
    np.testing.assert_allclose(seen[0].values, products, atol=2e-2)
    np.testing.assert_allclose(seen[0].means, products.mean(axis=1), atol=1e-2)
    np.testing.assert_allclose(seen[0].deviations, products.std(axis=1), atol=1e-2)
    with pytest.raises(BadQuery, match="k is 0, expected an integer from 1 to 1000"):
        search_fused(gallery, Composed(asked, fuse), k=0)


@pytest.mark.parametrize("exhaustive", [False, True])
def test_without_originals_the_codes_are_scored(tmp_path: Path, kit: ArrayKit, exhaustive: bool) -> None:
    vectors = clip_shaped.pictures(2_000)
    gallery = open_gallery(tmp_path / "g", vectors, rescore=False)
    query = composed(kit, 0, "product", {})
    found = search_fused(gallery, query, k=10, exhaustive=exhaustive)
    scores = np.maximum(query.vectors @ vectors.T, 0).prod(axis=0)
    assert len(set(found.rows.tolist()) & set(np.argsort(-scores)[:10].tolist())) >= 8


def test_equal_scores_stand_in_row_order(tmp_path: Path) -> None:
    gallery = open_gallery(tmp_path / "g", np.tile(np.eye(3, dtype=np.float32), (4, 1)))
    for exhaustive in (False, True):
        query = Composed(np.eye(3, dtype=np.float32)[:2], lambda scores: scores.values.max(axis=0))
        assert search_fused(gallery, query, k=6, exhaustive=exhaustive).rows.tolist() == [0, 1, 3, 4, 6, 7]


def test_top_by_hand() -> None:
    scores = np.array([1, 3, 2, 3, 0, 3], dtype=np.float32)
    assert top(scores, 2).tolist() == [1, 3]
    assert top(scores, 4).tolist() == [1, 3, 5, 2]
    assert top(scores, 9).tolist() == [1, 3, 5, 2, 0, 4]
    assert top(np.full(5, -np.inf, dtype=np.float32), 2).tolist() == [0, 1]


def test_the_fan_by_hand() -> None:
    vectors = np.array([[2, 0], [0, 4], [8, 8]], dtype=np.float32)
    deviations = np.array([2, 4, 8], dtype=np.float32)
    two = fan(vectors[:2], deviations[:2], 0)
    assert two.tolist() == [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]]
    one = fan(vectors[[0, 2]], deviations[[0, 2]], 1)
    assert one.tolist() == [[1, 0], [0.5, -0.5], [0, -1]]
    assert fan(vectors[:1], deviations[:1], 0).tolist() == [[1, 0]]
    assert fan(vectors, deviations, 0).shape == (4, 2)
    assert np.isfinite(fan(vectors[:2], np.zeros(2, dtype=np.float32), 0)).all()
    opposite = fan(np.array([[1, 0], [-2, 0]], dtype=np.float32), np.array([1, 2], dtype=np.float32), 0)
    assert opposite.tolist() == [[1, 0], [0.5, 0], [-0.5, 0], [-1, 0]]  # the sum in the middle has no direction


@pytest.mark.parametrize("name", ["product", "weicom", "image"])
def test_the_querys_own_picture_may_be_unwanted(gallery: Gallery, kit: ArrayKit, name: str) -> None:
    query, method = Query(PICTURES[0], (Text("text 0"),)), find_method(name)
    own = compose(query, None, kit, method).vectors[:1]  # what candidates are looked for with cancels out exactly
    composed = compose(query, Negative(own, np.ones(1, dtype=np.float32)), kit, method, SCORE)
    found = [search_fused(gallery, composed, k=10, exhaustive=exhaustive) for exhaustive in (False, True)]
    assert len(found[0].rows) == len(found[1].rows) == 10
    if name != "image":
        assert found[0].rows.tolist() == found[1].rows.tolist()
