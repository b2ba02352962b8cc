from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pocketlens.errors import BadQuery, Busy, CorruptFile, FormatError
from pocketlens.items import Item
from pocketlens.local import FILES, NAME, Addition, Base, Local, Store, create_store, signature

BASE = Base("a" * 64, "colours@" + "0" * 64, 4)


def addition(id: str, *, value: float = 1.0, width: int = 40) -> Addition:
    vector = np.array([value, 0, 0, 0.5], dtype=np.float16)
    item = Item(id, -1, id, width, 30, "b" * 64, {"tag": ["beach", "Straße"], "year": 2020}, "colours")
    return Addition(item, "c" * 64, vector)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_store(tmp_path, BASE)
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with closing(Store(folder, BASE)) as opened:
        yield opened


def put(store: Store, *additions: Addition) -> None:
    with store.transaction():
        for each in additions:
            store.put(each)


def seen(folder: Path) -> Local:
    with closing(Store(folder, BASE)) as opened:
        return opened.read()


def edit(folder: Path, *statements: str) -> None:
    """Change the database behind the store's back, as a rotten page would."""
    with closing(sqlite3.connect(folder / NAME)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_what_was_put_is_read_back_as_it_was(folder: Path, store: Store) -> None:
    put(store, addition("b.png", value=0.25), addition("a b/ü.png"))
    local = seen(folder)
    assert list(local.additions) == ["a b/ü.png", "b.png"]
    assert local.additions["b.png"].item == addition("b.png").item
    assert (local.additions["b.png"].item.encoder, local.additions["b.png"].graph_sha256) == ("colours", "c" * 64)
    np.testing.assert_array_equal(local.additions["b.png"].vector, np.array([0.25, 0, 0, 0.5], dtype=np.float16))
    assert local.removed == frozenset()


def test_an_id_is_added_or_removed_and_never_both(folder: Path, store: Store) -> None:
    with store.transaction():
        store.remove("a")
        store.remove("b")
        store.put(addition("b"))
        store.put(addition("c"))
        store.remove("c")
        store.put(addition("d"))
        store.drop("d")
    local = seen(folder)
    assert [set(local.additions), set(local.removed)] == [{"b"}, {"a", "c"}]


def test_a_second_item_of_an_id_replaces_the_first(folder: Path, store: Store) -> None:
    put(store, addition("a", width=40))
    put(store, addition("a", width=80))
    assert seen(folder).additions["a"].item.width == 80


def test_a_transaction_that_fails_leaves_nothing(folder: Path, store: Store) -> None:
    put(store, addition("a"))
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.put(addition("b"))
        store.remove("a")
        raise ZeroDivisionError
    assert (set(seen(folder).additions), seen(folder).removed) == ({"a"}, frozenset())


def test_the_version_changes_when_another_connection_commits(folder: Path, store: Store) -> None:
    before = store.version()
    assert store.version() == before
    with closing(Store(folder, BASE)) as other:
        put(other, addition("a"))
    assert store.version() != before
    assert set(store.read().additions) == {"a"}


def test_reading_again_reads_what_changed(folder: Path, store: Store) -> None:
    put(store, addition("a"), addition("b"))
    first = store.read()
    with closing(Store(folder, BASE)) as other, other.transaction():
        other.put(addition("a", width=80))
        other.remove("b")
    second = store.read()
    assert second.additions["a"].item.width == 80
    assert [set(second.additions), set(second.removed)] == [{"a"}, {"b"}]
    assert first.additions["a"].item.width == 40  # a state that was handed out stays what it was


def test_transactions_wait_for_one_another_and_give_up_in_time(folder: Path, store: Store) -> None:
    with closing(Store(folder, BASE, patience=0.05)) as other, store.transaction():
        store.put(addition("a"))
        with pytest.raises(Busy, match=r"local\.sqlite is being changed by another process"), other.transaction():
            pass
    assert set(seen(folder).additions) == {"a"}


def test_a_commit_is_on_the_disk_when_it_returns(store: Store) -> None:
    pragmas = [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]  # 2 is FULL: the journal is fsynced before COMMIT returns


def test_what_a_killed_process_committed_is_there(folder: Path) -> None:
    code = f"""
import os
from pathlib import Path
from tests.runtime.test_local import BASE, Store, addition, put
store = Store(Path({str(folder)!r}), BASE)
put(store, addition("kept"))
with store.transaction():
    store.put(addition("not committed"))
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert set(seen(folder).additions) == {"kept"}


@pytest.mark.parametrize("column", ["uri", "width", "height", "sha256", "attributes", "encoder", "graph_sha256"])
def test_a_changed_value_of_a_row_is_found_and_named(folder: Path, store: Store, column: str) -> None:
    put(store, addition("a"), addition("b"))
    edit(folder, f"UPDATE items SET {column} = {column} || '1' WHERE id = 'b'")
    with pytest.raises(CorruptFile, match="found damaged item 'b'"):
        seen(folder)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE items SET vector = zeroblob(8) WHERE id = 'a'", "damaged item 'a'"),
        ("UPDATE items SET vector = NULL WHERE id = 'a'", "damaged item 'a'"),
        ("UPDATE items SET checksum = zeroblob(32) WHERE id = 'a'", "damaged item 'a'"),
        ("UPDATE items SET checksum = NULL WHERE id = 'a'", "damaged item 'a'"),
        ("UPDATE items SET id = 'c' WHERE id = 'a'", "damaged item 'c'"),
        ("UPDATE removed SET id = 'c'", "a damaged removal of 'c'"),
        ("UPDATE removed SET checksum = NULL", "a damaged removal of 'gone'"),
        ("DELETE FROM items WHERE id = 'a'", "some are lost, or came back"),
        ("DELETE FROM removed", "some are lost, or came back"),
        ("UPDATE base SET seal = zeroblob(32)", "some are lost, or came back"),
        ("UPDATE base SET seal = NULL", "some are lost, or came back"),
        ("DELETE FROM base", "0 rows in the table base"),
        ("INSERT INTO base SELECT * FROM base", "2 rows in the table base"),
        ("DROP TABLE removed", "tables 'base', 'items', or other columns"),
        ("CREATE TRIGGER t AFTER DELETE ON items BEGIN DELETE FROM base; END", "or other columns"),
    ],
)
def test_damage_is_found(folder: Path, store: Store, statement: str, message: str) -> None:
    with store.transaction():
        store.put(addition("a"))
        store.put(addition("b"))
        store.remove("gone")
    edit(folder, statement)
    with pytest.raises(CorruptFile, match=f"{NAME} is damaged: found .*{message}"):
        seen(folder)


def test_a_row_that_came_back_is_found(folder: Path, store: Store) -> None:
    put(store, addition("a"))
    edit(folder, "CREATE TABLE old AS SELECT * FROM items")
    edit(folder, "ALTER TABLE old RENAME TO aside")
    with store.transaction():
        store.drop("a")
    edit(folder, "INSERT INTO items SELECT * FROM aside", "DROP TABLE aside")
    with pytest.raises(CorruptFile, match="some are lost, or came back"):
        seen(folder)


def test_a_damaged_item_can_be_dropped_and_the_rest_is_kept(folder: Path, store: Store) -> None:
    put(store, addition("a"), addition("b"))
    edit(folder, "UPDATE items SET width = 1 WHERE id = 'b'")
    with store.transaction():
        store.drop("b")
    assert set(seen(folder).additions) == {"a"}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (Base("d" * 64, BASE.space, 4), f"belongs to the gallery {'a' * 16}… .* but the bundle's is {'d' * 16}…"),
        (Base(BASE.gallery, "other@1", 4), "in space colours@0+ .4-d., but the bundle's is .* in space other@1"),
        (Base(BASE.gallery, BASE.space, 8), r"\(4-d\), but the bundle's is .* \(8-d\)"),
    ],
)
def test_a_store_of_another_gallery_is_refused(folder: Path, base: Base, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Store(folder, base)


def test_another_version_is_refused(folder: Path) -> None:
    edit(folder, "UPDATE base SET version = 2")
    with pytest.raises(FormatError, match=re.escape("version 2; this pocketlens reads 'pocketlens-local', 1")):
        Store(folder, BASE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: b"", "or other columns"),
        (lambda content: content[:-5000], "malformed"),
        (lambda content: b"\0" * len(content), "not a database"),
        (lambda content: content[:4096] + b"\xff" * (len(content) - 4096), "found "),
    ],
    ids=["empty", "truncated", "zeros", "rubbish"],
)
def test_a_file_that_is_no_store_is_damaged(folder: Path, spoil: Callable[[bytes], bytes], message: str) -> None:
    (folder / NAME).write_bytes(spoil((folder / NAME).read_bytes()))
    with pytest.raises(CorruptFile, match=message):
        seen(folder)


def test_every_byte_of_a_store_can_be_changed_without_a_wrong_answer(folder: Path, store: Store) -> None:
    put(store, addition("a"), addition("b"))
    with store.transaction():
        store.remove("gone")
    store.close()
    sound, path = seen(folder), folder / NAME
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    used = np.flatnonzero(np.frombuffer(content, dtype=np.uint8))  # a change of a free page's zeros changes nothing
    for position in rng.choice(used, size=300, replace=False):
        changed = bytearray(content)
        changed[position] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            local = seen(folder)
        except FormatError:
            continue
        assert local.removed == sound.removed
        assert {id: one.item for id, one in local.additions.items()} == {
            id: one.item for id, one in sound.additions.items()
        }
        for id, one in local.additions.items():
            np.testing.assert_array_equal(one.vector, sound.additions[id].vector)


def test_a_store_that_was_closed_says_so(folder: Path) -> None:
    store = Store(folder, BASE)
    store.close()
    with pytest.raises(BadQuery, match="closed"):
        store.read()


def test_without_a_file_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="unable to open"):
        Store(tmp_path, BASE)
    assert not (tmp_path / NAME).exists()


def test_a_store_in_a_folder_that_cannot_be_written_is_read(folder: Path) -> None:
    with closing(Store(folder, BASE)) as store:
        put(store, addition("a"))
    (folder / NAME).chmod(0o444)
    folder.chmod(0o555)
    code = f"""
import os
from pathlib import Path
from tests.runtime.test_local import BASE, Store
if os.getuid() == 0:
    os.setuid(65534)
store = Store(Path({str(folder)!r}), BASE)
print(*store.read().additions, store.version() >= 0)
"""
    for parent in folder.parents[:3]:  # pytest's folders are private
        parent.chmod(0o755)
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    finally:
        folder.chmod(0o755)
    assert (done.stdout, done.returncode) == ("a True\n", 0), done.stderr


def test_a_signature_is_read_while_others_remove_the_log(tmp_path: Path) -> None:
    (tmp_path / FILES[0]).write_bytes(b"store")
    log, over = tmp_path / FILES[1], threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            log.write_bytes(b"log")
            log.unlink()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        lengths = {len(signature(tmp_path)) for _ in range(20_000)}
    finally:
        over.set()
        other.join()
    assert lengths <= {1, 2}
