from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketlens.decoders import SERVER
from pocketlens.listing import Skipped
from pocketlens.model import PictureSpec
from pocketlens.picture import load_pixels
from pocketlens_export.gallery.decoders import DIED, HUNG, Decoders, Decoding
from pocketlens_export.gallery.scan import Loaded
from pocketlens_export.gallery.sources.entry import Entry, Place
from pocketlens_export.gallery.sources.expand import Reading, open_sources
from tests.export.gallery.made import POISON, picture

SPEC = PictureSpec("image.onnx", "float32", opset=18, side=8, mode="shortest", interpolation="bilinear", features=None)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let decoders be started where poisonous pictures work."""
    monkeypatch.setenv("PYTHONPATH", str(POISON))


def decode(entries: list[Entry], *, processes: int = 2, deadline_s: float = 30.0) -> dict[int, Loaded | Skipped]:
    found: dict[int, Loaded | Skipped] = {}
    todo = list(enumerate(entries))
    with Decoders(Decoding(SPEC, processes, SERVER, deadline_s)) as decoders:
        while todo or decoders.outstanding:
            while todo and decoders.has_room:
                decoders.submit(*todo.pop(0))
            for key, outcome in decoders.wait(0.5):
                assert key not in found
                found[key] = outcome
    assert sorted(found) == list(range(len(entries)))
    return found


def write(folder: Path, contents: list[bytes]) -> list[Entry]:
    entries = []
    for number, content in enumerate(contents):
        (folder / f"{number}.jpg").write_bytes(content)
        entries.append(Entry(f"{number}.jpg", "", Place("file", str(folder / f"{number}.jpg"))))
    return entries


def test_processes_give_the_pixels_that_the_device_sees(tmp_path: Path) -> None:
    contents = [picture((n * 6, 90, 255 - n * 6)) for n in range(40)]
    found = decode(write(tmp_path, contents))
    for number, content in enumerate(contents):
        loaded = found[number]
        assert isinstance(loaded, Loaded)
        assert loaded.sha256 == hashlib.sha256(content).hexdigest()
        assert (loaded.size_bytes, loaded.width, loaded.height, loaded.taken) == (len(content), 12, 10, None)
        np.testing.assert_array_equal(loaded.pixels, load_pixels(content, SPEC))


def test_files_archives_and_rows_are_read_alike(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    noise = io.BytesIO()
    Image.effect_noise((900, 700), 90).save(noise, "PNG")  # 600 kB: far more than a pipe holds
    contents = [noise.getvalue(), picture((1, 2, 3)), noise.getvalue() + b"!", b"nothing"]
    parquet.write_table(pa.table({"image": contents}), tmp_path / "t.parquet", row_group_size=2)
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for number, content in enumerate(contents):
            about = tarfile.TarInfo(f"{number}.jpg")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    (tmp_path / "t").mkdir()
    write(tmp_path / "t", contents)
    kinds = []
    for name in ("t", "t.tar", "t.parquet"):
        entries = list(open_sources([tmp_path / name], Reading(SERVER))[0].entries())
        found = decode([entry for entry in entries if isinstance(entry, Entry)], processes=3)
        outcomes = [found[n] for n in range(4)]
        kinds.append([(each.sha256, each.pixels.tolist()) if isinstance(each, Loaded) else each.reason
                      for each in outcomes])  # fmt: skip
    assert kinds[0] == kinds[1] == kinds[2]
    assert kinds[0][3] == "unsupported format" and kinds[0][2] != "damaged"


@pytest.mark.parametrize("processes", [1, 3])
def test_what_hangs_or_kills_is_reported_and_nobody_else_is(tmp_path: Path, processes: int) -> None:
    ends = {3: b"HANG", 4: b"DIES", 5: b"DIES", 11: b"EATS", 20: b"DIES", 29: b"DIES"}
    contents = [picture((n, n, n)) + ends.get(n, b"") for n in range(30)]
    found = decode(write(tmp_path, contents), processes=processes, deadline_s=1.0)
    reasons = {n: each.reason for n, each in found.items() if isinstance(each, Skipped)}
    assert reasons == {3: HUNG, 4: DIED, 5: DIED, 11: "too large", 20: DIED, 29: DIED}
    assert found[4].detail == "twice, alone the second time; signal SIGSEGV"  # type: ignore[union-attr]
    assert found[3].detail == "twice, alone the second time; more than 1 s"  # type: ignore[union-attr]


def test_a_picture_that_kills_once_is_read_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "once").mkdir()
    (tmp_path / "once" / "sitecustomize.py").write_text(f"""
import os, signal
from pathlib import Path
from PIL import Image
real = Image.open
def open(file, *rest, **named):
    mark = Path({str(tmp_path / "mark")!r})
    if file.getvalue().endswith(b"ONCE") and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(file, *rest, **named)
Image.open = open
""")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "once"))
    found = decode(write(tmp_path, [picture((n, 0, 0)) + b"ONCE" * (n == 2) for n in range(6)]))
    assert (tmp_path / "mark").exists()
    assert all(isinstance(each, Loaded) for each in found.values())


def test_a_span_beyond_its_archive_is_truncated(tmp_path: Path) -> None:
    content = picture((9, 9, 9))
    (tmp_path / "a").write_bytes(content)
    spans = [(0, len(content)), (0, len(content) + 1), (10**6, 5), (0, 1 << 40)]
    found = decode([Entry("x", "", Place("span", str(tmp_path / "a"), *span)) for span in spans])
    outcomes = [getattr(found[n], "reason", None) for n in range(4)]
    assert outcomes == [None, "truncated", "truncated", "too large"]


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    code = f"""
import os, signal
from tests.export.gallery.test_decoders import *
decoders = Decoders(Decoding(SPEC, 1, SERVER, 0.2))
decoders.submit(0, Entry("x", "", Place("file", {str(tmp_path / "hangs.jpg")!r})))
while not decoders._processes[0].is_ready:
    list(decoders.wait(1.0))
print(decoders._processes[0]._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "hangs.jpg").write_bytes(picture((0, 0, 0)) + b"HANG")
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    stat = Path(f"/proc/{int(done.stdout)}/stat")
    for _ in range(300):  # its alarm, after 2 * 0.2 + 5 seconds
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        subprocess.run(["sleep", "0.1"], check=True)
    pytest.fail("the decoder is still there")
