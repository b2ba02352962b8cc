from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlens.errors import CorruptFile, FormatError, WrongBase
from pocketlens.inspect import verify
from pocketlens.lens import open_lens
from tests.folders import files_below, flip
from tests.reliability.changes import QUERIES, picture
from tests.updates import next_generation, update_of

CHANGED = {"new.png": (1, 2, 3), "copy.png": (1, 2, 3), "blue.png": (9, 9, 200)}


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(bundle, tmp_path / "server"))
    next_generation(folder, CHANGED, ["green.png"])
    return folder


@pytest.fixture
def update(server: Path, tmp_path: Path) -> Path:
    return update_of(server, tmp_path / "2.update", since=1)


def answers(bundle: Path) -> list[Any]:
    """Return all that a bundle answers to some queries."""
    with open_lens(bundle, threads=1) as lens:
        found: list[Any] = [list(lens.search_vector(query, k=20)) for query in QUERIES]
        found += [list(lens.search(text=text, where={"width": {"lt": 20}})) for text in ("red", "blue")]
        found.append(list(lens.search(text="red", image=picture((9, 9, 9)), method="sum")))
        return found


def content(bundle: Path) -> dict[str, bytes]:
    return {name: (bundle / name).read_bytes() for name in files_below(bundle)}


def test_the_device_answers_as_the_server_does(own_bundle: Path, server: Path, update: Path) -> None:
    before = answers(own_bundle)
    with open_lens(own_bundle, threads=1) as lens:
        steps: list[tuple[int, int]] = []
        applied = lens.apply(update, on_progress=lambda *step: steps.append(step))
        assert (applied.before, applied.generation, applied.items) == (1, 2, 6)
        assert [hit.id for hit in lens.search(text="red", k=20)] == [hit.id for hit in answers_red(server)]
    assert steps[-1][0] == steps[-1][1] > 0
    assert answers(own_bundle) == answers(server) != before
    assert content(own_bundle) == content(server)
    assert verify(own_bundle)
    assert not list(own_bundle.parent.glob(".*"))


def answers_red(bundle: Path) -> list[Any]:
    with open_lens(bundle, threads=1) as lens:
        return list(lens.search(text="red", k=20))


def test_applied_again_it_changes_nothing(own_bundle: Path, update: Path) -> None:
    with open_lens(own_bundle, threads=1) as lens:
        lens.apply(update)
        inode = own_bundle.stat().st_ino
        again = lens.apply(update)
        assert (again.before, again.generation, again.items) == (2, 2, 6)
    assert own_bundle.stat().st_ino == inode


def test_updates_follow_one_another_or_span_generations(
    own_bundle: Path, bundle: Path, server: Path, update: Path, tmp_path: Path
) -> None:
    next_generation(server, {"late.png": (200, 100, 0)}, ["new.png", "red.png"])
    whole, last = update_of(server, tmp_path / "13", since=1), update_of(server, tmp_path / "23", since=2)
    with open_lens(own_bundle, threads=1) as lens:
        lens.apply(update)
        assert lens.apply(last).generation == 3
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    with open_lens(other, threads=1) as lens:
        assert lens.apply(whole).before == 1
    assert content(own_bundle) == content(other) == content(server)


def test_a_wrong_base_is_refused_and_both_generations_are_named(
    own_bundle: Path, server: Path, update: Path, tmp_path: Path
) -> None:
    next_generation(server, {"late.png": (200, 100, 0)}, [])
    before = content(own_bundle)
    with open_lens(own_bundle, threads=1) as lens:
        with pytest.raises(
            WrongBase, match=r"leads from generation 2 \(.*\) to 3, but .* holds generation 1 \("
        ) as told:
            lens.apply(update_of(server, tmp_path / "3", since=2))
        assert (told.value.found, told.value.expected) == (1, 2)
    assert content(own_bundle) == before
    with (
        open_lens(server, threads=1) as lens,
        pytest.raises(WrongBase, match=r"from generation 1 .* holds generation 3"),
    ):
        lens.apply(update)


def test_a_compacted_bundle_is_another_gallery(own_bundle: Path, update: Path) -> None:
    with open_lens(own_bundle, threads=1) as lens:
        lens.add({"mine": picture((3, 200, 3))})
        lens.compact()
        with pytest.raises(WrongBase, match=r"from generation 1 .* holds generation 2"):
            lens.apply(update)


def test_another_gallery_of_the_same_number_is_told_apart(own_bundle: Path, tmp_path: Path) -> None:
    for name, colour in (("a", (1, 1, 1)), ("b", (2, 2, 2))):
        shutil.copytree(own_bundle, tmp_path / name)
        next_generation(tmp_path / name, {"x": colour}, [])
    next_generation(tmp_path / "a", {"y": (3, 3, 3)}, [])
    with open_lens(tmp_path / "b", threads=1) as lens:
        with pytest.raises(WrongBase, match="another gallery of that number") as told:
            lens.apply(update_of(tmp_path / "a", tmp_path / "u", since=2))
        assert told.value.found == told.value.expected == 2


def test_what_the_device_changed_survives(own_bundle: Path, update: Path) -> None:
    with open_lens(own_bundle, threads=1) as lens:
        lens.add({"mine": picture((90, 3, 3)), "new.png": picture((4, 250, 4))})
        lens.remove(["blue.png", "white.png", "green.png"])
        lens.apply(update)
        local = lens._collection.now().local
        found = {item.id: item.sha256 for item in lens._collection.now().read_all()}
        assert set(found) == {"mine", "new.png", "copy.png", "red.png", "more/red copy.png"}
        assert list(local.additions) == ["mine", "new.png"]
        assert local.removed == {"blue.png", "white.png"}  # green.png is no longer shipped
        near = lens.search(image=picture((4, 250, 4)), k=1)[0]
        assert (near.id, round(near.cosine, 3)) == ("new.png", 1.0)
        lens.compact()
        assert {item.id: item.sha256 for item in lens._collection.now().read_all()} == found
    assert verify(own_bundle)


def test_a_compacted_gallery_of_generations_is_whole_again(own_bundle: Path, update: Path) -> None:
    with open_lens(own_bundle, threads=1) as lens:
        lens.apply(update)
        before = [[(hit.id, hit.cosine) for hit in lens.search_vector(query, k=20)] for query in QUERIES]
        compacted = lens.compact()
        assert (compacted.items, compacted.generation) == (6, 3)
        assert lens.gallery.manifest.previous == {}
        assert len(lens.gallery.manifest.segments) == 1
        after = [[(hit.id, hit.cosine) for hit in lens.search_vector(query, k=20)] for query in QUERIES]
    for old, new in zip(before, after, strict=True):
        assert {id for id, _ in old} == {id for id, _ in new}
        np.testing.assert_allclose([cosine for _, cosine in old], [cosine for _, cosine in new], atol=1e-6)


def test_a_damaged_update_changes_nothing(own_bundle: Path, update: Path) -> None:
    before = content(own_bundle)
    for at in (0, 30, 500, update.stat().st_size - 1):
        flip(update, at)
        with open_lens(own_bundle, threads=1) as lens, pytest.raises(FormatError, match=r"2\.update"):
            lens.apply(update)
        flip(update, at)
    assert content(own_bundle) == before


def test_a_damaged_bundle_is_not_carried_on(own_bundle: Path, update: Path) -> None:
    with open_lens(own_bundle, threads=1) as lens:
        flip(own_bundle / "gallery" / "rescore.f16", 5)
        with pytest.raises(CorruptFile, match="rescore"):
            lens.apply(update)
    assert not list(own_bundle.parent.glob(".*"))


def test_other_towers_stay(own_bundle: Path, update: Path) -> None:
    """A device may have one tower alone: an update is of the gallery."""
    from pocketlens.bundle import seal_bundle

    shutil.rmtree(own_bundle / "image")
    seal_bundle(own_bundle)
    with open_lens(own_bundle, threads=1) as lens:
        lens.apply(update)
        assert lens.search(text="red", k=1)
    assert not (own_bundle / "image").exists()


def test_another_process_that_has_the_bundle_open_follows(own_bundle: Path, update: Path) -> None:
    with open_lens(own_bundle, threads=1) as reader, open_lens(own_bundle, threads=1) as writer:
        assert len(reader.search(text="red", k=20)) == 5
        writer.apply(update)
        assert len(reader.search(text="red", k=20)) == 6


def test_shared_files_are_not_written_again(own_bundle: Path, update: Path) -> None:
    inodes = {name: (own_bundle / name).stat().st_ino for name in files_below(own_bundle)}
    with open_lens(own_bundle, threads=1) as lens:
        lens.apply(update)
    kept = {name for name, inode in inodes.items() if (own_bundle / name).stat().st_ino == inode}
    assert kept == set(inodes) - {"bundle.json", "gallery/gallery.json"}


def test_a_link_to_a_bundle_goes_on_showing_there(own_bundle: Path, update: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(own_bundle)
    with open_lens(tmp_path / "link", threads=1) as lens:
        lens.apply(update)
    assert (tmp_path / "link").is_symlink()
    with open_lens(own_bundle, threads=1) as lens:
        assert lens.gallery.manifest.generation == 2


def test_where_files_cannot_be_shared_they_are_copied(
    own_bundle: Path, server: Path, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")  # as FAT does

    monkeypatch.setattr("os.link", refuse)
    with open_lens(own_bundle, threads=1) as lens:
        lens.apply(update)
    assert content(own_bundle) == content(server)
