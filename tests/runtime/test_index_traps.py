"""What an index of vectors gets wrong unless somebody sees to it: each trap has a test, here or in its module's.

Not here: vectors without a direction (test_codes, test_gallery), a batch's tail (test_index), the width after opening
(test_partitions), files that are damaged (test_bundle).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlens import index as index_module
from pocketlens.codes import make_rotation, to_codes
from pocketlens.contents import Contents
from pocketlens.errors import BadQuery, FormatError
from pocketlens.index import Index, spec_for
from pocketlens.local import Addition, Local
from pocketlens.tune import recall
from tests.colours import unit
from tests.galleries import gallery_of, item_of

DIM = 32
ROWS = 2_000
KINDS = pytest.mark.parametrize("kind", ["exhaustive", "partitions"])


@pytest.fixture
def vectors(rng: np.random.Generator) -> np.ndarray:
    points = unit(rng.standard_normal((30, DIM)))
    return unit(points[rng.integers(0, 30, ROWS)] + 0.2 * rng.standard_normal((ROWS, DIM)))


@pytest.fixture
def crossover(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "CROSSOVER_ROWS", ROWS if kind == "partitions" else ROWS + 1)


@KINDS
@pytest.mark.usefixtures("crossover")
def test_hundreds_of_copies_hide_no_row(tmp_path: Path, vectors: np.ndarray, kind: str) -> None:
    copied = vectors.copy()
    copied[: int(0.3 * ROWS)] = vectors[0]
    gallery = gallery_of(tmp_path, copied)
    assert gallery.manifest.index.kind == kind
    alone = np.arange(int(0.3 * ROWS), ROWS, 3)
    ids = [item.id for item in gallery.items.read_all()]
    found = gallery.index.search(copied[alone], k=1).rows[:, 0]
    assert [ids[row] for row in found] == [str(row) for row in alone]
    assert len(set(gallery.index.search(copied[:1], k=100).rows[0].tolist())) == 100
    gallery.close()


@KINDS
@pytest.mark.usefixtures("crossover")
def test_a_query_without_a_direction_is_refused_and_harms_no_other(
    tmp_path: Path, vectors: np.ndarray, kind: str
) -> None:
    gallery = gallery_of(tmp_path, vectors)
    before = gallery.index.search(vectors[:5], k=10)
    for bad in (np.zeros(DIM), np.full(DIM, np.nan), np.full(DIM, np.inf)):
        with pytest.raises(BadQuery):
            gallery.index.search(np.stack([vectors[0], bad]).astype(np.float32), k=10)
    np.testing.assert_array_equal(gallery.index.search(vectors[:5], k=10).rows, before.rows)
    gallery.close()


@KINDS
@pytest.mark.usefixtures("crossover")
@pytest.mark.parametrize("gone", [False, True], ids=["replaced", "unlinked"])
def test_a_file_may_be_replaced_while_it_is_mapped(tmp_path: Path, vectors: np.ndarray, kind: str, gone: bool) -> None:
    queries = vectors[::50]
    gallery = gallery_of(tmp_path, vectors)
    expected = gallery.index.search(queries, k=10)
    for name in ("index.usearch", "rescore.f16"):
        path = tmp_path / "gallery" / name
        if gone:
            path.unlink()
        else:
            other = tmp_path / "other"
            other.write_bytes(bytes(100))
            other.replace(path)
    found = gallery.index.search(queries, k=10)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    gallery.close()


@KINDS
@pytest.mark.usefixtures("crossover")
def test_after_half_was_replaced_as_much_is_found_as_in_a_gallery_made_anew(
    tmp_path: Path, vectors: np.ndarray, rng: np.random.Generator, kind: str
) -> None:
    gallery = gallery_of(tmp_path, vectors)
    replaced = rng.permutation(ROWS)[: ROWS // 2]
    new = unit(rng.standard_normal((len(replaced), DIM)) + vectors[replaced])
    live = vectors.copy()
    live[replaced] = new
    additions = {
        str(row): Addition(item_of(int(row)), "0" * 64, vector)
        for row, vector in zip(replaced, new.astype(np.float16), strict=True)
    }
    churned = Contents(gallery, Local(additions, frozenset()))
    queries = unit(rng.standard_normal((100, DIM)))
    truth = np.argsort(-(queries @ live.T), axis=1)[:, :10]
    (tmp_path / "anew").mkdir()
    anew = gallery_of(tmp_path / "anew", live)
    kept, made = (_recall(contents, queries, truth) for contents in (churned, Contents(anew)))
    assert made >= 0.97
    assert kept >= made - 0.01
    gallery.close()
    anew.close()


def test_an_index_without_the_tail_of_its_file_is_refused(tmp_path: Path, vectors: np.ndarray) -> None:
    rotation = make_rotation(DIM)
    spec = spec_for(ROWS)
    Index.build(to_codes(vectors, rotation), rotation, None, spec).save(tmp_path / "codes")
    whole = (tmp_path / "codes").read_bytes()
    for size in (0, 4, 8, ROWS * DIM, len(whole) - 1):
        (tmp_path / "short").write_bytes(whole[:size])
        with pytest.raises(FormatError, match="short is not a USearch index"):
            Index.open(tmp_path / "short", rotation, None, spec)


def _recall(contents: Contents, queries: np.ndarray, truth: np.ndarray) -> float:
    """Return recall@10 of the ids found, which are the rows of `truth` as text."""
    found = [[int(contents.of_row(int(row))[0].id) for row in contents.nearest(query, k=10).rows] for query in queries]
    return recall(np.array(found), truth)
