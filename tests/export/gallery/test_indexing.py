from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pocketlens.files import write_file
from pocketlens.gallery import Counts, Gallery
from pocketlens.inspect import verify
from pocketlens.lens import open_lens
from pocketlens.lock import hold
from pocketlens_export.gallery import run_folder, shards
from pocketlens_export.gallery.accounting import too_many_lost
from tests.command import Run
from tests.export.gallery.made import make_pictures, picture
from tests.export.gallery.test_resume import same_files


def colour_of(n: int) -> tuple[int, int, int]:
    return (n * 7 % 256, n * 13 % 256, n * 29 % 256)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 pictures."""
    (tmp_path / "p").mkdir()
    for n in range(40):
        (tmp_path / "p" / f"{n:02}.jpg").write_bytes(picture(colour_of(n)))
    return tmp_path / "p"


def index(run: Run, *sources: object, out: Path, colours: Path, **options: Any) -> Any:
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    return run("index", *sources, "--out", out, "--model", colours, *(flag for flag in flags if flag is not True))


def test_every_source_gives_the_same_vectors(run: Run, folder: Path, colours: Path, tmp_path: Path) -> None:
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    with tarfile.open(tmp_path / "s-0.tar", "w") as first, tarfile.open(tmp_path / "s-1.tar", "w") as second:
        for n, content in enumerate(contents):
            about = tarfile.TarInfo(f"{n:02}.jpg")
            about.size = len(content)
            (first if n < 23 else second).addfile(about, io.BytesIO(content))
    parquet.write_table(pa.table({"id": [f"{n:02}" for n in range(40)], "image": contents}), tmp_path / "t.parquet")
    (tmp_path / "l.txt").write_text("\n".join(f"p/{n:02}.jpg" for n in range(40)))
    names = {"folder": folder, "tar": f"{tmp_path}/s-{{0..1}}.tar", "parquet": tmp_path / "t.parquet",
             "list": tmp_path / "l.txt"}  # fmt: skip
    vectors = {}
    for name, source in names.items():
        result = index(run, source, out=tmp_path / name, colours=colours, shard=16)
        assert result.code == 0, result.err
        assert verify(tmp_path / name)
        gallery = Gallery.open(tmp_path / name / "gallery")
        vectors[name] = gallery.index.vectors()
        assert gallery.manifest.counts == Counts(40, 40, 0, {})
        gallery.close()
    for found in vectors.values():
        np.testing.assert_array_equal(found, vectors["folder"])
    with open_lens(tmp_path / "tar") as lens:
        (hit,) = lens.search(image=contents[30], k=1)
        assert (hit.id, hit.uri) == ("s-1/30.jpg", "s-1.tar#30.jpg")


def test_columns_of_the_source_can_be_filtered_by(run: Run, folder: Path, colours: Path, tmp_path: Path) -> None:
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    table = pa.table({"key": [str(n) for n in range(40)], "jpg": contents, "caption": [f"no {n}" for n in range(40)]})
    parquet.write_table(table, tmp_path / "t.parquet")
    result = index(run, tmp_path / "t.parquet", out=tmp_path / "b", colours=colours, keep="caption")
    assert result.code == 0, result.err
    with open_lens(tmp_path / "b") as lens:
        assert [hit.id for hit in lens.search(text="red", where={"caption": "no 7"})] == ["7"]


def test_ids_that_repeat_are_counted_and_the_first_is_kept(
    run: Run, folder: Path, colours: Path, tmp_path: Path
) -> None:
    (tmp_path / "l.txt").write_text("p/00.jpg\np/01.jpg\np/00.jpg\n")
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "p").mkdir()
    (tmp_path / "q" / "p" / "01.jpg").write_bytes(picture((1, 1, 1)))
    result = index(run, tmp_path / "l.txt", tmp_path / "q", out=tmp_path / "b", colours=colours)
    assert result.code == 0
    assert result.out == f"{tmp_path}/b: 2 pictures indexed, 0 duplicates, 2 id repeats; 4 files seen\n"
    assert "skipped p/00.jpg: id repeats: " in result.err
    with open_lens(tmp_path / "b") as lens:
        assert lens.search(image=picture(colour_of(1)), k=1)[0].id == "p/01.jpg"


def test_a_tar_that_ends_early_is_indexed_as_far_as_it_goes(run: Run, colours: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for n in range(30):
            content = picture(colour_of(n))
            about = tarfile.TarInfo(f"{n}.jpg")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[: 10 * 1536 + 700])  # in the midst of the 11th picture, or the 6th header
    result = index(run, tmp_path / "s.tar", out=tmp_path / "b", colours=colours)
    assert result.code == 0, result.err
    assert "skipped s.tar: archive ends early: " in result.err
    counts = Gallery.open(tmp_path / "b" / "gallery").manifest.counts
    assert counts.indexed >= 7 and counts.skipped["archive ends early"] == 1
    assert counts.seen == counts.indexed + counts.duplicates + sum(counts.skipped.values())


def test_too_many_skipped_pictures_are_exit_code_1(run: Run, folder: Path, colours: Path, tmp_path: Path) -> None:
    for n in range(21):
        (folder / f"broken{n}.jpg").write_bytes(picture((0, 0, 0))[:99])
    (folder / "notes.txt").write_text("no picture, and no loss")
    result = index(run, folder, out=tmp_path / "b", colours=colours, skipped=tmp_path / "skipped.jsonl")
    assert result.code == 1
    assert (
        f"21 of 61 pictures (34.4%) were skipped, expected at most 1 % (--max-skipped); {tmp_path}/b was" in result.err
    )
    assert verify(tmp_path / "b")
    lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines if line["reason"] == "truncated"] == sorted(
        f"broken{n}.jpg" for n in range(21)
    )
    assert lines[-1] == {"id": "notes.txt", "reason": "not a picture", "detail": "its suffix is .txt"}
    again = index(run, folder, out=tmp_path / "c", colours=colours, max_skipped=40)
    assert again.code == 0
    assert index(run, folder, out=tmp_path / "d", colours=colours, max_skipped=34).code == 1


@pytest.mark.parametrize(
    ("lost", "indexed", "most", "expected"),
    [(20, 0, None, True), (10, 10, None, False),
     (11, 10, None, True), (21, 2_079, None, False), (21, 2_078, None, True), (1, 99, 0.01, False), (1, 98, 0.01, True),
     (1, 10**6, 0.0, True), (0, 1, 0.0, False)],
)  # fmt: skip
def test_the_threshold_is_a_share_of_the_pictures(lost: int, indexed: int, most: float | None, expected: bool) -> None:
    counts = Counts(indexed + lost + 500, indexed, 0, {"damaged": lost, "not a picture": 500})
    assert too_many_lost(counts, most) is expected


def test_a_report_that_cannot_be_written_stops_before_the_work(
    run: Run, folder: Path, colours: Path, tmp_path: Path
) -> None:
    result = index(run, folder, out=tmp_path / "b", colours=colours, skipped=tmp_path / "absent" / "s.jsonl")
    assert result.code == 1 and "absent/s.jsonl cannot be written: No such file" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


# Runs that stop


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let the next shards but `count` fail to be written."""
    left = [count]

    def write(path: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error
        write_file(path, content)

    monkeypatch.setattr(shards, "write_file", write)


def test_a_stopped_run_says_so_and_goes_on(
    run: Run, folder: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index(run, folder, out=tmp_path / "whole", colours=colours, shard=8).code == 0
    with monkeypatch.context() as patched:
        stop_after(patched, 2, KeyboardInterrupt())
        result = index(run, folder, out=tmp_path / "b", colours=colours, shard=8)
    assert (result.code, result.out) == (130, "")
    unfinished = tmp_path / ".b.unfinished"
    assert result.err.split("\n") == [f"stopped; the same command goes on from here ({unfinished})", "", "stopped", ""]
    beat = json.loads((unfinished / "heartbeat.json").read_text())
    assert {"at", "stage", "done", "total", "skipped", "per_second", "left_s"} == set(beat)
    others = index(run, folder, out=tmp_path / "b", colours=colours, shard=9)
    assert (
        others.code == 1 and "holds an unfinished run with other settings: shard is 8, expected 9; give" in others.err
    )
    result = index(run, folder, out=tmp_path / "b", colours=colours, shard=8, json=True)
    assert json.loads(result.err.splitlines()[-1])["resumed"] == 16
    assert same_files(tmp_path / "whole", tmp_path / "b")
    assert not unfinished.exists()


def parquet_of(path: Path, numbers: Sequence[int]) -> None:
    rows = {"id": [f"{n}.jpg" for n in numbers], "image": [picture((n * 7 % 256, n, 9)) for n in numbers]}
    parquet.write_table(pa.table(rows), path)


def tar_of(path: Path, numbers: Sequence[int]) -> None:
    with tarfile.open(path, "w") as file:
        for n in numbers:
            body = picture((n * 7 % 256, n, 9))
            about = tarfile.TarInfo(f"{n}.jpg")
            about.size = len(body)
            file.addfile(about, io.BytesIO(body))


@pytest.mark.parametrize(("name", "write"), [("a.parquet", parquet_of), ("a.tar", tar_of)])
def test_a_container_that_changed_while_a_run_was_stopped_is_refused(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Any
) -> None:
    write(tmp_path / name, range(40))
    kept, command = (tmp_path / name).read_bytes(), ("index", tmp_path / name, "--model", colours, "--shard", 8)
    before = (tmp_path / name).stat()
    assert run(*command, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patched:
        stop_after(patched, 2, KeyboardInterrupt())
        run(*command, "--out", tmp_path / "b")
    write(tmp_path / name, range(39, -1, -1))  # entries by place are others now
    done = run(*command, "--out", tmp_path / "b")
    assert done.code == 1 and f"{name} changed since it was listed; put it back" in done.err, done.err
    (tmp_path / name).write_bytes(kept)
    os.utime(tmp_path / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(*command, "--out", tmp_path / "b").code == 0
    assert same_files(tmp_path / "whole", tmp_path / "b")


@pytest.mark.parametrize("suffix", ["tar", "parquet", "txt"])
def test_a_source_whose_name_is_no_text_is_refused(run: Run, colours: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad\udcff.{suffix}"
    path.write_bytes(b"")
    done = run("index", path, "--model", colours, "--out", tmp_path / "b")
    assert done.code == 1 and "has a name that is not UTF-8" in done.err, done.err


def test_a_container_that_changes_while_shards_are_made_is_refused(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar_of(tmp_path / "a.tar", range(40))

    def write(path: Path, content: bytes) -> None:
        os.utime(tmp_path / "a.tar", ns=(1, 1))
        write_file(path, content)

    monkeypatch.setattr(shards, "write_file", write)
    done = run("index", tmp_path / "a.tar", "--model", colours, "--out", tmp_path / "b")
    assert done.code == 1 and "a.tar changed since it was listed" in done.err, done.err
    assert not list(tmp_path.glob(".b.unfinished/shards/*.npz"))
    monkeypatch.undo()
    assert run("index", tmp_path / "a.tar", "--model", colours, "--out", tmp_path / "b", "--restart").code == 0


@pytest.mark.parametrize("what", ["model", "sources", "formats", "attributes"])
def test_an_unfinished_run_with_other_settings_is_kept(
    run: Run, folder: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with monkeypatch.context() as patched:
        stop_after(patched, 2, KeyboardInterrupt())
        index(run, folder, out=tmp_path / "b", colours=colours, shard=8)
    (tmp_path / "t.csv").write_text("id,year\n00.jpg,1\n")
    shutil.copytree(folder, tmp_path / "q")
    others: dict[str, list[object]] = {
        "formats": ["--formats", "gif"],
        "attributes": ["--attributes", tmp_path / "t.csv"],
    }
    model = "lens-tiny" if what == "model" else colours
    source = tmp_path / "q" if what == "sources" else folder
    result = run("index", source, "--out", tmp_path / "b", "--model", model, "--shard", 8, *others.get(what, []))
    assert result.code == 1
    assert f".b.unfinished holds an unfinished run with other settings: {what} is " in result.err
    assert len(list((tmp_path / ".b.unfinished" / "shards").glob("*.npz"))) == 2
    assert run("index", source, "--out", tmp_path / "b", "--model", model, "--restart").code == 0
    assert not (tmp_path / ".b.unfinished").exists()


def test_a_damaged_shard_is_named_and_made_again(
    run: Run, folder: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stop_after(patched, 2, KeyboardInterrupt())
        index(run, folder, out=tmp_path / "b", colours=colours, shard=8)
    damaged = next((tmp_path / ".b.unfinished" / "shards").glob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:300])
    result = index(run, folder, out=tmp_path / "b", colours=colours, shard=8)
    assert result.code == 1
    assert f"{damaged} is damaged: " in result.err
    assert "remove it, and the same command makes it again" in result.err
    damaged.unlink()
    assert index(run, folder, out=tmp_path / "b", colours=colours, shard=8).code == 0
    assert verify(tmp_path / "b")


def test_a_folder_of_something_else_is_never_taken_for_a_run(
    run: Run, folder: Path, colours: Path, tmp_path: Path
) -> None:
    (tmp_path / ".b.unfinished").mkdir()
    (tmp_path / ".b.unfinished" / "diary").write_text("dear diary")
    flag_sets: list[dict[str, Any]] = [{}, {"restart": True}]
    for flags in flag_sets:
        result = index(run, folder, out=tmp_path / "b", colours=colours, **flags)
        assert result.code == 1 and ".b.unfinished is no unfinished run; remove it, or choose" in result.err
    assert (tmp_path / ".b.unfinished" / "diary").read_text() == "dear diary"


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize(("limit", "file"), [(12_000, "plan.sqlite"), (36_000, "shards/0000000.npz")])
def test_a_full_disk_loses_nothing(colours: Path, short_path: Path, limit: int, file: str) -> None:
    """A limit on the size of files stands for a full disk."""
    tmp_path = short_path  # a plan has every path, and must be smaller than the shard here
    many = make_pictures(tmp_path / "many", 200, hanging=0, dying=0).folder
    command = [str(Path(sys.executable).with_name("pocketlens")), "index", str(many), "--out", str(tmp_path / "b"),
               "--model", str(colours), "--shard", "256", "--max-skipped", "50"]  # fmt: skip

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=fill)
    assert (full.returncode, full.stderr.count("\n")) == (1, 1), full.stderr
    assert f"{tmp_path}/.b.unfinished/{file} cannot be written: " in full.stderr
    assert not (tmp_path / "b").exists()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert verify(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "many"]


def test_two_processes_do_not_make_the_same_bundle(run: Run, folder: Path, colours: Path, tmp_path: Path) -> None:
    (tmp_path / ".b.unfinished" / "shards").mkdir(parents=True)
    with hold(tmp_path / ".b.unfinished", alone=True):
        result = index(run, folder, out=tmp_path / "b", colours=colours)
    assert result.code == 1 and "another process is making this bundle" in result.err


def test_a_device_that_is_not_there_is_told_with_the_remedy(
    run: Run, folder: Path, colours: Path, tmp_path: Path
) -> None:
    result = index(run, folder, out=tmp_path / "b", colours=colours, device="cuda")
    assert result.code == 1 and "onnxruntime has no CUDA: pip uninstall onnxruntime; pip install" in result.err
    assert not (tmp_path / ".b.unfinished").exists()


def test_a_run_that_dies_after_its_bundle_stands_ends_well_when_it_goes_on(
    run: Run, folder: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(path: Path, made: list[Path]) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "b"
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "_remove", dies)
        with suppress(KeyboardInterrupt):
            index(run, folder, out=out, colours=colours)
    whole = Path(shutil.copytree(out, tmp_path / "whole"))
    assert (tmp_path / ".b.unfinished").is_dir()
    assert index(run, folder, out=out, colours=colours).code == 0
    assert same_files(whole, out)
    assert not (tmp_path / ".b.unfinished").exists()
    assert index(run, folder, out=out, colours=colours).code == 1  # a finished bundle is not replaced unasked
