from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pocketlens.errors import Busy, FormatError
from pocketlens.lock import hold


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    return tmp_path / "bundle"


def test_readers_share(folder: Path) -> None:
    with hold(folder), hold(folder, patience=0):
        pass


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_who_is_alone_shares_with_nobody(folder: Path, first: bool, second: bool) -> None:
    with (
        hold(folder, alone=first),
        pytest.raises(Busy, match="bundle is in use by another process"),
        hold(folder, alone=second, patience=0.02),
    ):
        pass
    with hold(folder, alone=second, patience=0):  # free again
        pass


def test_a_lock_ends_with_its_process(folder: Path) -> None:
    code = "import os, sys; from pathlib import Path; from pocketlens.lock import hold\n"
    code += f"with hold(Path({str(folder)!r}), alone=True): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with hold(folder, alone=True, patience=0):
        pass


def test_it_is_the_folder_that_stands_there_when_the_wait_ends(folder: Path) -> None:
    """Who waited for a folder that was replaced meanwhile holds the new one."""
    waited = threading.Event()

    def wait() -> None:
        with hold(folder):
            assert (folder / "new").exists()
            with pytest.raises(Busy), hold(folder, alone=True, patience=0):
                pass
            waited.set()

    thread = threading.Thread(target=wait)
    with hold(folder, alone=True):
        thread.start()
        time.sleep(0.05)
        folder.rename(folder.with_name("old"))
        (folder.parent / "bundle").mkdir()
        (folder / "new").touch()
    thread.join()
    assert waited.is_set()


def test_without_a_folder_there_is_no_lock(tmp_path: Path) -> None:
    with (
        pytest.raises(FormatError, match="nothing does not exist; expected a pocketlens-bundle folder"),
        hold(tmp_path / "nothing"),
    ):
        pass
