from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pocketlens.additions import remove_items
from pocketlens.collection import Collection
from pocketlens.compact import Compacted, compact
from pocketlens.errors import BadQuery, Busy, FormatError
from pocketlens.inspect import verify
from pocketlens.items import Item, write_items
from pocketlens.lens import open_lens
from pocketlens.local import FILES
from pocketlens.lock import hold
from pocketlens.model import Model
from tests.folders import files_below
from tests.galleries import item_of, towered_bundle_of
from tests.reliability.changes import picture


def vectors(count: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def test_a_compacted_bundle_is_sound_and_says_what_it_holds(own_bundle: Path) -> None:
    with open_lens(own_bundle, threads=1) as lens:
        lens.add({"new": picture((255, 0, 0)), "blue.png": picture((0, 0, 255))})
        lens.remove(["green.png"])
        before = [(hit.id, hit.cosine) for hit in lens.search(text="red")]
        steps: list[tuple[int, int]] = []
        assert lens.compact(on_progress=lambda *step: steps.append(step)) == Compacted(5, 2, 2, generation=2, before=1)
        after = [(hit.id, hit.cosine) for hit in lens.search(text="red")]
    assert [id for id, _ in before] == [id for id, _ in after]
    np.testing.assert_allclose([cosine for _, cosine in before], [cosine for _, cosine in after], atol=1e-6)
    assert steps[-1][0] == steps[-1][1]
    assert verify(own_bundle)
    assert not {path.name for path in own_bundle.iterdir()} & set(FILES)
    assert [path.name for path in own_bundle.parent.iterdir()] == [own_bundle.name]


def test_statistics_are_those_of_the_new_contents(own_bundle: Path) -> None:
    with open_lens(own_bundle, threads=1) as lens:
        lens.add({f"{number}": picture((number, 255 - number, 30)) for number in range(20)})
        lens.compact()
        stored = lens.gallery.index.vectors()
        np.testing.assert_allclose(lens.gallery.mean, stored.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(lens.gallery.covariance, np.cov(stored.T, bias=True), atol=1e-4)


def test_without_changes_nothing_is_done(own_bundle: Path) -> None:
    before = (own_bundle / "bundle.json").stat().st_ino
    with open_lens(own_bundle) as lens:
        assert lens.compact() == Compacted(5, 0, 0, generation=1, before=1)
    assert (own_bundle / "bundle.json").stat().st_ino == before


def test_copies_share_a_row_again(tmp_path: Path, colours: Path) -> None:
    items = [item_of(0), item_of(1), item_of(1, id="copy"), item_of(2)]
    with closing(Collection(towered_bundle_of(tmp_path, vectors(3), items, model=colours))) as collection:
        remove_items(collection, ["0"])
        assert compact(collection).items == 3
        found = [(item.id, item.row) for item in collection.gallery.items.read_all()]
        assert found == [("1", 0), ("copy", 0), ("2", 1)]
        counts = collection.gallery.manifest.counts
        assert (counts.seen, counts.indexed, counts.duplicates) == (3, 2, 1)
    assert verify(tmp_path / "gallery")


@pytest.mark.parametrize("rescore", [True, False])
def test_compacting_again_and_again_keeps_the_vectors(tmp_path: Path, colours: Path, rescore: bool) -> None:
    shipped = vectors(30)
    with closing(Collection(towered_bundle_of(tmp_path, shipped, model=colours, rescore=rescore))) as collection:
        for number in range(10):
            remove_items(collection, [str(number)])
            compact(collection)
        kept = collection.gallery.index.vectors()
        assert collection.gallery.manifest.generation == 11
        assert collection.gallery.manifest.rescore == rescore
    if rescore:
        np.testing.assert_array_equal(kept, shipped[10:].astype(np.float16))
    else:
        assert ((kept * shipped[10:]).sum(axis=1) > 0.9999).all()


@pytest.mark.parametrize("rescore", [True, False])
def test_a_large_gallery_keeps_what_belongs_together(
    tmp_path: Path, colours: Path, monkeypatch: pytest.MonkeyPatch, rescore: bool
) -> None:
    """Partitions put the rows in an order of their own."""
    monkeypatch.setattr("pocketlens.index.CROSSOVER_ROWS", 100)
    shipped = vectors(200)
    items = [*(item_of(row, width=10 + row) for row in range(200)), item_of(150, id="copy", width=1_000)]
    bundle = towered_bundle_of(tmp_path, shipped, items, model=colours, rescore=rescore)
    of_item = {item.id: shipped[item.row] for item in items}
    with open_lens(bundle, threads=1) as lens:
        for gone in (["3", "199"], ["0"]):
            lens.remove(gone)
            assert lens.compact().gone == len(gone)
            for id in gone:
                del of_item[id]
        lens.add({"new": picture((255, 0, 0))}, image_model=Model.open(colours))
        assert lens.compact().added == 1
        gallery = lens.gallery
        assert (gallery.manifest.index.kind, gallery.manifest.index.rows) == ("partitions", 198)
        there = gallery.items.read_all()
        assert {item.id for item in there} == of_item.keys() | {"new"}
        stored = gallery.index.vectors()
        for item in there:
            if item.id != "new":
                assert stored[item.row] @ of_item[item.id] > 0.999
                hits = lens.search_vector(of_item[item.id], where={"width": item.width}, k=5)
                assert [hit.id for hit in hits] == [item.id]
                assert hits[0].cosine > 0.999
        assert gallery.items.find("copy").row == gallery.items.find("150").row
    assert verify(bundle)


def test_the_last_item_stays(tmp_path: Path, colours: Path) -> None:
    with closing(Collection(towered_bundle_of(tmp_path, vectors(2), model=colours))) as collection:
        remove_items(collection, ["0", "1"])
        assert collection.now().count == 0
        with pytest.raises(BadQuery, match="no item is left, and a gallery needs one; it stays as it is"):
            compact(collection)
        assert collection.now().local.removed == {"0", "1"}
    assert "gallery/index.usearch" in files_below(tmp_path)


def test_a_foreign_file_in_the_bundle_is_not_lost(own_bundle: Path) -> None:
    (own_bundle / "notes.txt").write_text("precious")
    with open_lens(own_bundle) as lens:
        lens.remove(["red.png"])
        with pytest.raises(FormatError, match=r"notes\.txt is no file that pocketlens wrote"):
            lens.compact()
        assert len(lens.search(text="red")) == 4
    assert (own_bundle / "notes.txt").read_text() == "precious"


def test_who_opens_the_bundle_is_waited_for(tmp_path: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    bundle = towered_bundle_of(tmp_path / "b", vectors(3), model=colours)
    with closing(Collection(bundle)) as collection:
        remove_items(collection, ["0"])
        monkeypatch.setattr("pocketlens.files.PATIENCE", 0.05)
        with hold(bundle), pytest.raises(Busy, match="is in use by another process"):
            compact(collection)
        assert [path.name for path in tmp_path.iterdir()] == ["b"]
        assert compact(collection).items == 2


def test_a_link_to_a_bundle_goes_on_showing_there(own_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(own_bundle)
    with open_lens(tmp_path / "current") as lens:
        lens.remove(["red.png"])
        assert lens.compact().items == 4
        assert len(lens.search(text="red")) == 4
    assert (tmp_path / "current").is_symlink()


def test_vectors_that_were_not_written_are_noticed(
    tmp_path: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card may lose what it was given without a word."""
    (tmp_path / "b").mkdir()
    bundle = towered_bundle_of(tmp_path / "b", vectors(3), model=colours)
    with closing(Collection(bundle)) as collection:
        remove_items(collection, ["0"])

        def lose(path: Path, items: Iterable[Item]) -> None:
            write_items(path, items)
            originals = path.with_name("rescore.f16")  # stands there by now
            originals.write_bytes(bytes(originals.stat().st_size))

        monkeypatch.setattr("pocketlens.segment_writer.write_items", lose)
        with pytest.raises(FormatError, match="found other vectors or items, expected what was written"):
            compact(collection)
        monkeypatch.undo()
        assert [item.id for item in collection.now().read_all()] == ["1", "2"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_a_crash_left_of_making_a_store_goes_when_there_is_nothing_to_compact(own_bundle: Path) -> None:
    half = own_bundle / ".local.sqlite.0vax5ynq"
    half.write_bytes(b"SQLite format 3")
    with open_lens(own_bundle) as lens:
        assert lens.compact().added == 0
    assert not half.exists()
