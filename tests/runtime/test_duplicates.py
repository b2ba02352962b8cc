from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlens import BadQuery, duplicates, duplicates_cli, search_cli
from pocketlens._types import Float32s
from pocketlens.contents import Contents
from pocketlens.duplicates import NEAR, Group, distinct, find_duplicates, find_exact
from pocketlens.gallery import Gallery
from pocketlens.items import Item
from tests.galleries import gallery_of, item_of


def _clusters(rng: np.random.Generator, count: int, dim: int = 16) -> Float32s:
    """Return unit vectors, float32 (count, dim): a few directions, each with noise of its own size."""
    centres = rng.normal(size=(max(count // 4, 1), dim))
    noise = rng.normal(size=(count, dim)) * rng.uniform(0, 0.5, (count, 1))
    vectors = centres[rng.integers(0, len(centres), count)] + noise
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _by_hand(vectors: Float32s, items: list[Item], near: float) -> dict[str, set[str]]:
    """Return the ids of each group's copies by the kept item's id: one item at a time, in float64."""
    kept: list[Item] = []
    groups: dict[str, set[str]] = {}
    for item in sorted(items, key=lambda item: (-item.width * item.height, item.id)):
        cosines = [float(vectors[item.row].astype(np.float64) @ vectors[other.row]) for other in kept]
        if item.row in [other.row for other in kept]:
            groups[next(other.id for other in kept if other.row == item.row)].add(item.id)
        elif cosines and max(cosines) >= near:
            groups[kept[int(np.argmax(cosines))].id].add(item.id)
        else:
            kept.append(item)
            groups[item.id] = set()
    return {keep: copies for keep, copies in groups.items() if copies}


def _ids(groups: list[Group]) -> dict[str, set[str]]:
    return {group.keep.id: {copy.item.id for copy in group.copies} for group in groups}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("block", [3, 1_024])
def test_groups_equal_those_found_one_by_one(
    seed: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", block)  # several blocks of few rows
    rng = np.random.default_rng(seed)
    vectors = _clusters(rng, 60)
    items = [item_of(i, width=int(rng.integers(1, 4))) for i in range(60)]
    gallery = gallery_of(tmp_path, vectors, items)
    stored = gallery.index.vectors()
    near = 0.9
    assert np.abs(stored @ stored.T - near).min() > 1e-6  # else rounding decides
    found = find_duplicates(Contents(gallery), near=near)
    assert _ids(found) == _by_hand(stored, items, near)
    assert any(group.copies for group in found)
    for group in found:
        for copy in group.copies:
            expected = float(stored[group.keep.row] @ stored[copy.item.row])
            assert copy.cosine == pytest.approx(expected, abs=1e-5)
            assert copy.cosine >= near
            assert not copy.exact


def test_exact_copies_share_a_row_or_a_hash(tmp_path: Path) -> None:
    vectors = np.eye(4, dtype=np.float32)
    items = [
        item_of(0, id="b", sha256="x"), item_of(0, id="a", sha256="x"), item_of(1, id="c", sha256="y", width=9),
        item_of(1, id="d", sha256="y", width=99), item_of(2, id="e", sha256="z"), item_of(3, id="f", sha256="w"),
    ]  # fmt: skip
    expected = {"a": {"b"}, "d": {"c"}}
    assert _ids(find_exact(items)) == expected
    found = find_duplicates(Contents(gallery_of(tmp_path, vectors, items)))
    assert _ids(found) == expected
    assert all(copy.exact and copy.cosine == 1 for group in found for copy in group.copies)


def test_the_largest_is_kept_and_chains_do_not_add_up(tmp_path: Path) -> None:
    angles = np.radians([0, 12, 24, 36])  # cos 12° is 0.978, cos 24° is 0.914
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    items = [item_of(i, width=width) for i, width in enumerate((10, 20, 10, 10))]
    assert _ids(find_duplicates(Contents(gallery_of(tmp_path, vectors, items)))) == {"1": {"0", "2"}}


def test_progress_rises_to_its_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", 7)
    told: list[tuple[int, int]] = []
    vectors = _clusters(np.random.default_rng(0), 30)
    gallery = gallery_of(tmp_path, vectors, [item_of(i) for i in range(30)])
    find_duplicates(Contents(gallery), on_progress=lambda done, total: told.append((done, total)))
    assert len(told) == 5
    assert told == sorted(told)
    assert told[-1] == (30 * 31 // 2, 30 * 31 // 2)


@pytest.mark.parametrize("near", [0, -0.5, 1.01, float("nan"), "0.9", True, None])
def test_a_nearness_out_of_range_is_a_bad_query(near: Any, tmp_path: Path) -> None:
    gallery: Gallery = gallery_of(tmp_path, np.eye(2, dtype=np.float32), [item_of(0), item_of(1)])
    with pytest.raises(BadQuery, match=r"near is .*, expected a cosine above 0 and at most 1"):
        find_duplicates(Contents(gallery), near=near)


def test_distinct_keeps_the_first_of_each_set() -> None:
    angles = np.radians([0, 12, 24, 90, 5])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert distinct(vectors).tolist() == [0, 2, 3]
    assert distinct(vectors, near=0.9).tolist() == [0, 3]
    assert distinct(vectors, shown=vectors[2:3]).tolist() == [0, 3]
    assert distinct(vectors[:0]).tolist() == []


def test_help_tells_the_default() -> None:
    assert duplicates_cli._NEAR == NEAR
    assert f"cosine {NEAR} or above" in str(
        next(p for p in search_cli.search.params if p.name == "diverse").__dict__["help"]
    )
    assert "Nothing is removed" in (inspect.getdoc(duplicates_cli.duplicates.callback) or "")
