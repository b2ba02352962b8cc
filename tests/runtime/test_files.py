from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketlens import files, swap
from pocketlens.errors import CorruptFile, FormatError, NotWritten
from pocketlens.files import check_file, new_folder, read_arrays, sha256_of, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail(*_: object) -> None:
    raise OSError("No space left on device")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_is_that_of_the_whole_content(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_checked_file_passes_only_as_it_was(tmp_path: Path) -> None:
    path, sha256 = tmp_path / "a", hashlib.sha256(b"abc").hexdigest()
    path.write_bytes(b"abc")
    check_file(path, sha256=sha256, size_bytes=3)
    path.write_bytes(b"abcd")
    with pytest.raises(CorruptFile, match=rf"^{path} is damaged: found 4 bytes, expected 3 bytes$"):
        check_file(path, sha256=sha256, size_bytes=3)
    path.write_bytes(b"abd")
    found = hashlib.sha256(b"abd").hexdigest()
    with pytest.raises(CorruptFile, match=rf"^{path} is damaged: found sha256 {found[:16]}…, expected sha256 ba7816bf"):
        check_file(path, sha256=sha256, size_bytes=3)


def test_a_missing_file_and_a_folder_in_its_place_are_format_errors(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"^{tmp_path}/a: found nothing, expected a file of 3 bytes"):
        check_file(tmp_path / "a", sha256="", size_bytes=3)
    (tmp_path / "a").mkdir()
    with pytest.raises(FormatError, match=rf"^{tmp_path}/a: found something that is no file, expected a file of 3"):
        check_file(tmp_path / "a", sha256="", size_bytes=3)


def test_a_written_file_holds_its_content_and_obeys_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    for content in (b"old", b"new and longer", b""):
        write_file(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert names(tmp_path) == ["a", "plain"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_file(tmp_path / "a", b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(NotWritten, match="a cannot be written: No space left"):
        write_file(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_folder_is_not_overwritten_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(NotWritten, match="Is a directory"):
        write_file(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]


def test_a_new_folder_appears_whole_with_its_parents(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "out"
    with new_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_bytes(b"1")
        assert not out.exists()
        assert folder.parent == out.parent  # the same file system, so that the rename is atomic
    assert (out / "sub" / "a").read_bytes() == b"1"
    assert names(out.parent) == ["out"]
    (tmp_path / "plain").mkdir()
    assert out.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_bytes(b"1")
        raise error
    assert names(tmp_path) == []


def test_a_failing_sync_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(NotWritten, match="out cannot be written: No space left"),
        new_folder(tmp_path / "out") as folder,
    ):
        (folder / "a").write_bytes(b"1")
        monkeypatch.setattr(os, "fsync", fail)
    assert names(tmp_path) == []


def test_an_existing_path_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(FormatError, match=f"{name} exists already"), new_folder(tmp_path / name):
            pytest.fail("the block ran")
    assert names(tmp_path) == ["file", "folder"]


OLD, NEW = b'{"format": "pocketlens-bundle", "old": 1}', b'{"format": "pocketlens-bundle", "new": 1}'


def test_replacing_swaps_the_whole_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for content, name in ((OLD, "text.onnx"), (NEW, "image.onnx")):
        with new_folder(out, replace=True) as folder:
            (folder / "bundle.json").write_bytes(content)
            (folder / name).write_bytes(b"")
    assert names(out) == ["bundle.json", "image.onnx"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("steps", [1, 2], ids=["exchange", "step aside"])
@pytest.mark.parametrize("failing", ["move", "sync"])
def test_a_failing_replacement_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, failing: str
) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "bundle.json").write_bytes(OLD)
    if steps == 2:
        monkeypatch.setattr(swap, "exchange", lambda new, path: False)
    rename, exchange, sync = os.rename, swap.exchange, files._sync_directory

    def fail_on_the_new_folder(source: Path, target: Path) -> None:
        if target == out and Path(source).parent == tmp_path:
            fail()
        rename(source, target)

    def fail_once(folder: Path) -> None:
        monkeypatch.setattr(files, "_sync_directory", sync)
        assert (out / "bundle.json").read_bytes() == NEW
        fail()

    with pytest.raises(NotWritten, match="No space left"), new_folder(out, replace=True) as folder:
        (folder / "bundle.json").write_bytes(NEW)
        if failing == "sync":
            monkeypatch.setattr(files, "_sync_tree", lambda folder: None)
            monkeypatch.setattr(files, "_sync_directory", fail_once)
        elif steps == 1:
            monkeypatch.setattr(swap, "exchange", fail)
        else:
            monkeypatch.setattr(os, "rename", fail_on_the_new_folder)
    monkeypatch.setattr(swap, "exchange", exchange)
    assert names(tmp_path) == ["out"]
    assert (out / "bundle.json").read_bytes() == OLD


def test_what_is_replaced_goes_when_the_new_one_cannot_be_lost_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sync, beside = tmp_path / "out", files._sync_directory, list[list[bytes]]()
    with new_folder(out) as folder:
        (folder / "bundle.json").write_bytes(OLD)

    def look(folder: Path) -> None:
        if folder == tmp_path:
            beside.append([path.read_bytes() for path in sorted(tmp_path.rglob("bundle.json"))])
        sync(folder)

    monkeypatch.setattr(files, "_sync_directory", look)
    with new_folder(out, replace=True) as folder:
        (folder / "bundle.json").write_bytes(NEW)
    assert beside == [[OLD, NEW]]
    assert names(tmp_path) == ["out"]


def test_an_os_error_in_the_block_is_typed_and_any_other_goes_through(tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match="out cannot be written: No such file"), new_folder(tmp_path / "out") as folder:
        (folder / "missing" / "a").write_bytes(b"")
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out"):
        raise ZeroDivisionError


def test_a_file_that_a_killed_process_was_writing_is_replaced_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".model.json.ab12_xyz").write_bytes(b'{"format": "pock')
    with new_folder(out, replace=True) as folder:
        (folder / "bundle.json").write_bytes(NEW)
    assert names(out) == ["bundle.json"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("me.jpg", b"precious"),
        ("model.json", b'{"format": "graph-model"}'),  # TensorFlow.js has such a file too
        ("pictures/me.jpg", b"precious"),
        ("inversion/me.jpg", b"precious"),
        ("notes/lincir.md", b"precious"),  # a report only beside its network
    ],
)
def test_only_folders_of_pocketlens_are_replaced(tmp_path: Path, file: str, content: bytes) -> None:
    out = tmp_path / "out"
    (out / file).parent.mkdir(parents=True)
    (out / file).write_bytes(content)
    (out / "bundle.json").write_bytes(OLD)
    with pytest.raises(FormatError, match=f"{file} is no file that pocketlens wrote"), new_folder(out, replace=True):
        pytest.fail("the block ran")
    assert (out / file).read_bytes() == content


def test_what_a_device_added_is_not_replaced_unless_it_goes_with_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "local.sqlite").write_bytes(b"precious")
    with pytest.raises(FormatError, match="holds what was added on this device"), new_folder(out, replace=True):
        pytest.fail("the block ran")
    with new_folder(out, replace=True, dropping=["local.sqlite"]) as folder:
        (folder / "bundle.json").write_bytes(NEW)
    assert names(out) == ["bundle.json"]


def test_a_folder_with_names_networks_and_their_reports_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "inversion").mkdir(parents=True)
    for name in ("concepts.npz", "distill.md", "distill.svg", "inversion/lincir.onnx", "inversion/lincir.md"):
        (out / name).write_bytes(OLD)
    with new_folder(out, replace=True) as folder:
        (folder / "bundle.json").write_bytes(NEW)
    assert names(out) == ["bundle.json"]


def test_an_empty_folder_is_replaced_but_neither_a_file_nor_a_link(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, reason in (("file", "is a file"), ("link", "symbolic link"), ("dangling", "symbolic link")):
        with pytest.raises(FormatError, match=f"{name} is a.*{reason[-4:]}"), new_folder(tmp_path / name, replace=True):
            pytest.fail("the block ran")
    with new_folder(tmp_path / "empty", replace=True) as folder:
        (folder / "bundle.json").write_bytes(OLD)
    assert names(tmp_path / "empty") == ["bundle.json"]


def test_a_folder_that_came_to_exist_meanwhile_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FormatError, match="has come to exist meanwhile"), new_folder(out) as folder:
        (folder / "bundle.json").write_bytes(NEW)
        out.mkdir()
        (out / "user.txt").write_bytes(b"precious")
    assert names(tmp_path) == ["out"]
    assert names(out) == ["user.txt"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(FormatError, match="file/out cannot be written: File exists"),
        new_folder(tmp_path / "file" / "out"),
    ):
        pytest.fail("the block ran")


def test_a_failure_removes_the_parents_that_were_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError), new_folder(tmp_path / "a" / "b" / "out"):
        raise ValueError
    assert names(tmp_path) == []


def test_arrays_come_back_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.eye(2))
    arrays = read_arrays(tmp_path / "a.npz", ["y", "x"])
    assert arrays["x"].tolist() == [0, 1, 2]
    assert arrays["y"].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("content", ["missing", "pickle", "npy", "text", "empty", "cut", "lzma"])
def test_a_file_without_the_arrays_is_a_format_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{}]) if content == "pickle" else np.arange(3))
    whole = path.read_bytes()
    if content == "npy":
        np.save(path.with_suffix(".npy"), np.arange(3))
        path = path.with_suffix(".npy")
    elif content == "lzma":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("x.npy", b"")
    elif content in ("text", "empty", "cut"):
        path.write_bytes({"text": b"hello", "empty": b"", "cut": whole[:-30]}[content])
    with pytest.raises(FormatError, match=r"a\.np[zy] is not an \.npz file with the arrays"):
        read_arrays(path, ["x", "y"] if content == "missing" else ["x"])


EDITS = st.lists(st.tuples(st.sampled_from(["set", "cut", "put"]), st.integers(0, 2_000), st.binary(min_size=1)))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, header=st.booleans(), compressed=st.booleans())
def test_any_bytes_are_arrays_or_a_format_error(
    tmp_path: Path, edits: list[tuple[str, int, bytes]], header: bool, compressed: bool
) -> None:
    def edited(whole: bytes, span: int) -> bytes:
        for kind, place, content in edits:
            at = place % max(min(span, len(whole)), 1)
            put = b"" if kind == "cut" else content
            whole = whole[:at] + put + whole[at + (0 if kind == "put" else len(content)) :]
        return whole

    path, array = tmp_path / "a.npz", io.BytesIO()
    if header:  # of an array whose checksum is right
        np.save(array, np.arange(5.0))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", edited(array.getvalue(), 80))
    else:
        (np.savez_compressed if compressed else np.savez)(path, x=np.arange(5.0))
        path.write_bytes(edited(path.read_bytes(), 2_000))
    with suppress(FormatError):
        read_arrays(path, ["x"])


def test_a_mistake_in_reading_is_no_format_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3))

    def wanted() -> Iterator[str]:
        yield "x"
        raise NameError("a mistake")

    with pytest.raises(NameError, match="a mistake"):
        read_arrays(tmp_path / "a.npz", wanted())  # type: ignore[arg-type]
