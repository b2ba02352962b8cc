from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from pocketlens import swap
from pocketlens.lock import hold


def folder(path: Path, name: str) -> Path:
    path.mkdir()
    (path / name).touch()
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed(code: str) -> None:
    code = f"import os; from pathlib import Path; from pocketlens import swap\n{code}\nos.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9


def test_two_folders_change_places(tmp_path: Path) -> None:
    new, old = folder(tmp_path / "new", "n"), folder(tmp_path / "old", "o")
    assert swap.exchange(new, old)
    assert (names(old), names(new)) == (["n"], ["o"])


def test_an_exchange_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        swap.exchange(tmp_path / "nothing", folder(tmp_path / "old", "o"))
    assert (caught.value.errno, names(tmp_path)) == (errno.ENOENT, ["old"])


def test_a_temporary_folder_goes_with_its_block(tmp_path: Path) -> None:
    with swap.temporary_beside(tmp_path / "out") as temporary:
        (temporary / "a").touch()
        assert temporary.parent == tmp_path
    assert names(tmp_path) == []


def test_only_the_temporary_folders_of_the_dead_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "o[u]t*"
    folder(tmp_path / ".o[u]t*.settings", "precious")
    folder(tmp_path / ".out.pocketlens-12345678", "of another")
    killed(f"with swap.temporary_beside(Path({str(out)!r})) as t: (t / 'a').touch(); os.kill(os.getpid(), 9)")
    assert len(names(tmp_path)) == 3
    with swap.temporary_beside(out) as living:
        swap.remove_leftovers(out)
        assert names(tmp_path) == sorted([".o[u]t*.settings", ".out.pocketlens-12345678", living.name])


def test_what_stood_aside_when_its_process_was_killed_is_put_back(tmp_path: Path) -> None:
    out = folder(tmp_path / "out", "precious")
    swap.restore(out)
    killed(f"""out = Path({str(out)!r})
with swap.temporary_beside(out, aside=True) as aside:
    out.rename(aside / 'out')
    os.kill(os.getpid(), 9)""")
    assert not out.exists()
    swap.restore(out)
    assert (names(tmp_path), names(out)) == (["out"], ["precious"])


def test_what_stands_aside_of_a_living_process_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folder(tmp_path / "out", "precious")
    monkeypatch.setattr("pocketlens.lock.time.sleep", lambda seconds: None)
    with swap.temporary_beside(out, aside=True) as aside, hold(tmp_path):
        out.rename(aside / "out")
        times = iter([0.0, 0.0, 99.0])
        monkeypatch.setattr("pocketlens.lock.time.monotonic", lambda: next(times))
        swap.restore(out)
        assert not out.exists()
        (aside / "out").rename(out)
