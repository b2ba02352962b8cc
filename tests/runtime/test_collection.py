from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pocketlens.additions import remove_items
from pocketlens.collection import Collection, read_local
from pocketlens.compact import compact
from pocketlens.errors import BadQuery, CorruptFile, FormatError
from pocketlens.files import new_folder
from pocketlens.gallery import Gallery
from pocketlens.lens import open_lens
from pocketlens.local import NAME, NOTHING, Store
from pocketlens.model import Model
from pocketlens_export.gallery.build import build_bundle, pack_bundle
from tests.galleries import bundle_of, item_of, towered_bundle_of


def vectors(count: int = 6, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


@pytest.fixture
def folder(tmp_path: Path, colours: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    return towered_bundle_of(tmp_path / "bundle", vectors(), model=colours)


@pytest.fixture
def collection(folder: Path) -> Iterator[Collection]:
    with closing(Collection(folder)) as opened:
        yield opened


def in_another_process(code: str, folder: Path) -> None:
    code = f"""
from pathlib import Path
from pocketlens.additions import remove_items
from pocketlens.collection import Collection
from pocketlens.compact import compact
folder = Path({str(folder)!r})
collection = Collection(folder)
{code}
collection.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def ids(collection: Collection) -> list[str]:
    return [item.id for item in collection.now().read_all()]


def test_without_changes_it_is_the_gallery_and_writes_nothing(folder: Path, collection: Collection) -> None:
    assert ids(collection) == ["0", "1", "2", "3", "4", "5"]
    assert collection.now() is collection.now()
    assert not (folder / NAME).exists()
    assert read_local(folder) == NOTHING


def test_what_another_process_commits_is_seen_at_once(folder: Path, collection: Collection) -> None:
    in_another_process("remove_items(collection, ['1'])", folder)
    assert ids(collection) == ["0", "2", "3", "4", "5"]
    in_another_process("remove_items(collection, ['2'])", folder)
    assert ids(collection) == ["0", "3", "4", "5"]
    assert read_local(folder).removed == {"1", "2"}


def test_a_compacted_bundle_is_followed(folder: Path, collection: Collection) -> None:
    before = collection.now()
    in_another_process("remove_items(collection, ['1']); compact(collection)", folder)
    assert ids(collection) == ["0", "2", "3", "4", "5"]
    assert collection.gallery.manifest.generation == 2
    assert collection.manifest.gallery != ""
    assert [item.id for item in before.read_all()] == ["0", "1", "2", "3", "4", "5"]  # who has the old one keeps it
    remove_items(collection, ["0"])
    in_another_process("compact(collection)", folder)
    assert ids(collection) == ["2", "3", "4", "5"]


def test_additions_to_a_compacted_bundle_go_to_the_new_one(folder: Path, collection: Collection) -> None:
    remove_items(collection, ["0"])
    in_another_process("compact(collection)", folder)
    remove_items(collection, ["1"])  # through what was opened before
    with closing(Collection(folder)) as fresh:
        assert ids(fresh) == ["2", "3", "4", "5"]
        assert fresh.now().local.removed == {"1"}


def test_a_change_that_fails_changes_nothing(folder: Path, collection: Collection) -> None:
    def write(gallery: Gallery, store: Store) -> None:
        store.remove("1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collection.change(write)
    assert len(ids(collection)) == 6


def test_a_change_returns_what_was_made_of_it(collection: Collection) -> None:
    assert collection.change(lambda gallery, store: gallery.manifest.model) == "test"


def test_a_closed_one_says_so(folder: Path) -> None:
    collection = Collection(folder)
    collection.close()
    collection.close()
    with pytest.raises(BadQuery, match="this collection is closed"):
        collection.now()


def test_what_is_no_bundle_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected"):
        Collection(tmp_path)
    with pytest.raises(FormatError, match="nothing"):
        Collection(tmp_path / "nothing")


def test_a_store_of_another_gallery_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = bundle_of(tmp_path / "other", vectors(seed=1))
    with closing(Collection(other)) as opened:
        remove_items(opened, ["1"])
    shutil.copyfile(other / NAME, folder / NAME)
    with closing(Collection(folder)) as opened, pytest.raises(FormatError, match="belongs to the gallery"):
        opened.now()


def test_damage_of_the_store_is_found_when_a_lens_opens(own_bundle: Path) -> None:
    with open_lens(own_bundle) as lens:
        lens.remove(["red.png"])
    content = (own_bundle / NAME).read_bytes()
    (own_bundle / NAME).write_bytes(content.replace(b"red.png", b"rad.png"))
    with pytest.raises(CorruptFile, match=r"local\.sqlite is damaged"):
        open_lens(own_bundle)


def test_a_new_bundle_of_the_same_towers_is_followed(
    own_bundle: Path, colours: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "only.png").write_bytes((pictures / "red.png").read_bytes())
    model = Model.open(colours)
    with open_lens(own_bundle) as lens:
        assert len(lens.search(text="red")) == 5
        build_bundle(tmp_path / "p", own_bundle, model=model, query_model=model, replace=True)
        assert [hit.id for hit in lens.search(text="red")] == ["only.png"]
        lens.remove(["only.png"])
        assert lens.search(text="red") == []


def test_a_new_bundle_of_other_towers_is_never_half_seen(
    own_bundle: Path, colours: Path, pictures: Path, tmp_path: Path
) -> None:
    """The gallery goes on as it was; towers that are not open yet, and changes, are refused with the reason."""
    model = Model.open(colours)
    with open_lens(own_bundle) as lens:
        before = [(hit.id, hit.cosine) for hit in lens.search(text="red")]
        pack_bundle(tmp_path / "new", gallery=own_bundle / "gallery", text=model, image=None)
        own_bundle.rename(tmp_path / "old")
        (tmp_path / "new").rename(own_bundle)
        with open_lens(own_bundle) as other:
            other.remove(["red.png"])
        assert [(hit.id, hit.cosine) for hit in lens.search(text="red")] == before
        for change in (lambda: lens.remove(["red.png"]), lens.image_encoder, lens.compact):
            with pytest.raises(FormatError, match="is another bundle now, with other towers; open it again"):
                change()
    with open_lens(own_bundle) as other:
        assert "red.png" not in [hit.id for hit in other.search(text="red")]


def test_a_bundle_that_is_gone_is_still_answered_from(folder: Path, collection: Collection) -> None:
    shutil.rmtree(folder)
    assert len(ids(collection)) == 6
    with pytest.raises(FormatError, match="does not exist"):
        remove_items(collection, ["1"])


def test_what_a_crash_left_aside_is_put_back_when_it_is_opened(folder: Path) -> None:
    code = f"""
import os
from pathlib import Path
from pocketlens import files, swap
folder = Path({str(folder)!r})
swap.exchange = lambda new, path: False  # a file system that cannot
rename = os.rename
def renamed(source, target):
    if Path(target) == folder:
        os.kill(os.getpid(), 9)
    rename(source, target)
os.rename = renamed
from pocketlens.additions import remove_items
from pocketlens.collection import Collection
from pocketlens.compact import compact
collection = Collection(folder)
remove_items(collection, ["1"])
compact(collection)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not folder.exists()
    with closing(Collection(folder)) as opened:
        assert ids(opened) == ["0", "2", "3", "4", "5"]
        assert compact(opened).items == 5
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_items_that_share_a_row_go_one_by_one(tmp_path: Path) -> None:
    items = [item_of(0), item_of(1), item_of(1, id="copy")]
    (tmp_path / "b").mkdir()
    with closing(Collection(bundle_of(tmp_path / "b", vectors(2), items))) as collection:
        remove_items(collection, ["1"])
        assert ids(collection) == ["0", "copy"]


def test_nothing_of_an_old_gallery_stays_open(own_bundle: Path, pictures: Path) -> None:
    code = """
import json, os, sys
from pathlib import Path
from pocketlens.lens import open_lens

def opened():
    mapped = {line.split()[5] for line in open("/proc/self/maps") if "/gallery/" in line}
    return len(os.listdir("/proc/self/fd")), len(mapped)

counts = []
picture = Path(sys.argv[2]).read_bytes()
with open_lens(Path(sys.argv[1]), threads=1) as lens:
    for number in range(8):
        lens.add({f"{number}": picture})
        lens.search(text="red")
        lens.compact()
        lens.search(text="red")
        counts.append(opened())
print(json.dumps(counts[1:]))
"""
    command = [sys.executable, "-c", code, str(own_bundle), str(pictures / "red.png")]
    counts = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    first, *rest = json.loads(counts)
    assert rest == [first] * 6


def test_who_opens_while_bundles_are_replaced_sees_one_of_them(own_bundle: Path, bundle: Path, tmp_path: Path) -> None:
    with open_lens(own_bundle) as lens:
        lens.remove(["red.png"])
        lens.compact()
    other = Path(shutil.copytree(own_bundle, tmp_path / "other"))
    seen = set[int]()

    def replace() -> None:
        for source in (bundle, other) * 15:
            with new_folder(own_bundle, replace=True) as new:
                shutil.copytree(source, new, dirs_exist_ok=True)

    writer = threading.Thread(target=replace)
    writer.start()
    while writer.is_alive():
        with closing(Collection(own_bundle)) as opened:
            seen.add(opened.now().count)
    writer.join()
    assert seen == {4, 5}
