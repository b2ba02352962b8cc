"""A disk without room for one more byte: searches go on, a change is refused, and nothing is left behind.

RLIMIT_FSIZE stands for the disk: no file can grow, which is what SQLite meets when it makes the file that connections
share.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens.lens import open_lens
from pocketlens.local import FILES, Base, Store
from tests.reliability.changes import picture

EVERY = np.ones(4, dtype=np.float32)
CODE = """
import json, resource, signal, sys
from pathlib import Path
import numpy as np
import pocketlens
from pocketlens.inspect import verify
EVERY = np.ones(4, dtype=np.float32)
folder, picture = Path(sys.argv[1]), bytes.fromhex(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
found = {"verified": bool(verify(folder))}
with pocketlens.open(folder) as lens:
    found["ids"] = sorted(hit.id for hit in lens.search_vector(EVERY, k=100))
    try:
        lens.add({"new": picture})
    except pocketlens.PocketlensError as error:
        found["error"] = type(error).__name__
    found["after"] = sorted(hit.id for hit in lens.search_vector(EVERY, k=100))
    found["files"] = sorted(path.name for path in folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    found["made"] = lens.add({"new": picture}).added
    found["then"] = sorted(hit.id for hit in lens.search_vector(EVERY, k=100))
sys.__stdout__.write(json.dumps(found))
"""


def on_a_full_disk(bundle: Path) -> dict[str, Any]:
    """Return what a process finds that cannot write: ids before and after it tries to add, and when there is room."""
    command = [sys.executable, "-c", CODE, str(bundle), picture((7, 7, 7)).hex()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def shown(bundle: Path) -> list[str]:
    with open_lens(bundle) as lens:
        return sorted(hit.id for hit in lens.search_vector(EVERY, k=100))


def check(bundle: Path, before: list[str]) -> dict[str, Any]:
    found = on_a_full_disk(bundle)
    assert (found["verified"], found["error"]) == (True, "NotWritten")
    assert found["ids"] == found["after"] == before
    assert (found["made"], found["then"]) == (["new"], sorted([*before, "new"]))
    return found


def test_a_shipped_bundle_is_searched_and_stays_as_it_was(own_bundle: Path) -> None:
    files = sorted(path.name for path in own_bundle.iterdir())
    assert check(own_bundle, shown(own_bundle))["files"] == files


def test_a_bundle_with_additions_is_searched(own_bundle: Path) -> None:
    with open_lens(own_bundle) as lens:
        lens.add({"first": picture((9, 9, 9))})
        lens.remove([lens.search_vector(EVERY, k=1)[0].id])
    before = shown(own_bundle)
    assert "first" in before
    check(own_bundle, before)


def test_what_only_the_journal_holds_is_found(own_bundle: Path, tmp_path: Path) -> None:
    with open_lens(own_bundle) as lens:
        lens.add({"first": picture((9, 9, 9))})
        before = shown(own_bundle)
        base = Base(lens._collection.manifest.gallery, lens.gallery.manifest.space.id, lens.gallery.manifest.space.dim)
    with closing(Store(own_bundle, base)) as store:
        with store.transaction():
            store.remove("red.png")
        crashed = Path(shutil.copytree(own_bundle, tmp_path / "crashed"))  # as if the power went now
    (crashed / FILES[2]).unlink()
    assert (crashed / FILES[1]).stat().st_size > 0
    check(crashed, [id for id in before if id != "red.png"])
