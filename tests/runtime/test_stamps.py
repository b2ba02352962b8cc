from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketlens import stamps
from pocketlens.errors import CorruptFile, FormatError
from pocketlens.files import sha256_of
from pocketlens.inspect import verify
from pocketlens.lens import open_lens
from pocketlens.stamps import check_file_once

SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of b"abc", FIPS 180-2
OLD_NS = time.time_ns() - 10_000_000_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stamps are."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run" / "pocketlens"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be an hour later, so that what was just written is long settled."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3_600_000_000_000)


def abc(tmp_path: Path, content: bytes = b"abc") -> Path:
    (tmp_path / "a").write_bytes(content)
    return tmp_path / "a"


def count(folder: Path) -> int:
    return len(list(folder.iterdir()))


def hashed(monkeypatch: pytest.MonkeyPatch, path: Path, sha256: str = SHA256) -> bool:
    """Check a file; return whether it was read for that."""
    read: list[Path] = []

    def look(path: Path) -> str:
        read.append(path)
        return sha256_of(path)

    with monkeypatch.context() as patched:
        patched.setattr("pocketlens.files.sha256_of", look)
        check_file_once(path, sha256=sha256, size_bytes=3)
    return read == [path]


@pytest.mark.usefixtures("later")
def test_a_file_is_hashed_once(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = abc(tmp_path)
    assert [hashed(monkeypatch, path) for _ in range(3)] == [True, False, False]
    assert count(folder) == 1


def test_a_file_of_the_last_two_seconds_is_hashed_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = abc(tmp_path)
    assert [hashed(monkeypatch, path) for _ in range(2)] == [True, True]
    os.utime(path, ns=(OLD_NS, OLD_NS))  # its content may be older, but somebody touched it just now
    assert [hashed(monkeypatch, path) for _ in range(2)] == [True, True]
    assert count(folder) == 0


@pytest.mark.usefixtures("later")
def test_a_time_in_the_future_is_never_trusted(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = abc(tmp_path)
    os.utime(path, ns=(OLD_NS, time.time_ns() + 10**12))
    assert [hashed(monkeypatch, path) for _ in range(2)] == [True, True]


def _overwrite(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"abd")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a careless copy tool does


def _replace(path: Path) -> None:
    path.with_name("b").write_bytes(b"abd")
    path.with_name("b").replace(path)


@pytest.mark.usefixtures("later", "folder")
@pytest.mark.parametrize("change", [_overwrite, _replace, lambda path: path.write_bytes(b"abcd")])
def test_any_change_of_the_file_is_noticed(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = abc(tmp_path)
    for _ in range(2):
        check_file_once(path, sha256=SHA256, size_bytes=3)
    time.sleep(0.02)  # a kernel's clock ticks every 10 ms or faster; younger changes are what two seconds are for
    change(path)
    with pytest.raises(CorruptFile):
        check_file_once(path, sha256=SHA256, size_bytes=3)


@pytest.mark.usefixtures("later", "folder")
def test_a_stamp_is_for_what_was_recorded(tmp_path: Path) -> None:
    path = abc(tmp_path)
    check_file_once(path, sha256=SHA256, size_bytes=3)
    with pytest.raises(CorruptFile):
        check_file_once(path, sha256="0" * 64, size_bytes=3)


@pytest.mark.usefixtures("later", "folder")
def test_another_boot_trusts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = abc(tmp_path)
    hashed(monkeypatch, path)
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr(stamps, "_BOOT", tmp_path / "boot")
    assert hashed(monkeypatch, path)
    monkeypatch.setattr(stamps, "_BOOT", tmp_path / "none")  # a system that does not tell
    assert [hashed(monkeypatch, path) for _ in range(2)] == [True, True]


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("spoil", ["open to others", "link", "file"])
def test_a_place_that_others_can_write_is_not_used(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    if spoil == "open to others":
        folder.mkdir()
        folder.chmod(0o770)
    elif spoil == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.touch()
    assert [hashed(monkeypatch, abc(tmp_path)) for _ in range(2)] == [True, True]


@pytest.mark.usefixtures("later")
def test_stamps_do_not_pile_up(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_MOST", 3)
    for number in range(10):
        (tmp_path / str(number)).write_bytes(b"abc")
        check_file_once(tmp_path / str(number), sha256=SHA256, size_bytes=3)
        assert not folder.exists() or count(folder) <= 3


@pytest.mark.usefixtures("later", "folder")
def test_what_is_missing_or_no_file_is_said_as_ever(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="found nothing"):
        check_file_once(tmp_path / "a", sha256=SHA256, size_bytes=3)
    with pytest.raises(FormatError, match="no file"):
        check_file_once(tmp_path, sha256=SHA256, size_bytes=3)


def test_a_second_open_reads_no_file_for_its_hash_and_verify_reads_all(
    own_bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a process of its own, two seconds after the bundle was written."""
    newest = max(path.stat().st_ctime_ns for path in own_bundle.rglob("*"))
    time.sleep(max(0.0, 2.1 - (time.time_ns() - newest) / 1e9))
    code = """
import sys
from pathlib import Path
from pocketlens import files
read, sha256_of = [], files.sha256_of
files.sha256_of = lambda path: read.append(path.name) or sha256_of(path)
from pocketlens.inspect import verify
from pocketlens.lens import open_lens
if sys.argv[2] == "open":
    with open_lens(Path(sys.argv[1])) as lens:
        lens.search(text="red")
else:
    verify(Path(sys.argv[1]))
print(*sorted(read))
"""

    def read(what: str) -> set[str]:
        command = [sys.executable, "-c", code, str(own_bundle), what]
        return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())

    gallery = {"index.usearch", "items.sqlite", "rescore.f16", "stats.npz"}
    assert gallery | {"text.onnx", "tokenizer.json"} <= read("open")
    assert read("open") & (gallery | {"text.onnx", "tokenizer.json"}) == set()
    assert gallery | {"text.onnx", "image.onnx"} <= read("verify")
    assert verify(own_bundle)
    with open_lens(own_bundle) as lens:
        assert lens.search(text="red", k=1)
