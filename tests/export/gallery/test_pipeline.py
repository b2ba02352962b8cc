from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketlens.gallery import Counts, Gallery
from tests.command import Run
from tests.export.gallery.made import picture
from tests.export.gallery.test_indexing import colour_of, index, stop_after
from tests.export.gallery.test_resume import same_files


def test_any_number_of_shards_may_have_no_picture(run: Run, colours: Path, tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / "p" / folder).mkdir(parents=True)
    for n in range(72):  # 18 shards, more than are open at once, and as many at the end
        (tmp_path / "p" / "a" / f"{n:02}.txt").touch()
        (tmp_path / "p" / "c" / f"{n:02}.txt").touch()
    for n in range(3):
        (tmp_path / "p" / "b" / f"{n}.jpg").write_bytes(picture(colour_of(n)))
    result = index(run, tmp_path / "p", out=tmp_path / "b", colours=colours, shard=4)
    assert result.code == 0, result.err
    assert Gallery.open(tmp_path / "b" / "gallery").manifest.counts == Counts(147, 3, 0, {"not a picture": 144})


@pytest.mark.parametrize("shard", [1, 4])
def test_a_run_of_tiny_shards_goes_on(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    (tmp_path / "p").mkdir()
    for n in range(60):
        (tmp_path / "p" / f"{n:02}.jpg").write_bytes(picture(colour_of(n)))
    assert index(run, tmp_path / "p", out=tmp_path / "whole", colours=colours, shard=shard, threads=1).code == 0
    with monkeypatch.context() as patched:
        stop_after(patched, 3, KeyboardInterrupt())
        index(run, tmp_path / "p", out=tmp_path / "b", colours=colours, shard=shard, threads=1)
    result = index(run, tmp_path / "p", out=tmp_path / "b", colours=colours, shard=shard, threads=1, json=True)
    assert result.code == 0, result.err
    assert json.loads(result.err.splitlines()[-1])["resumed"] == 3 * shard
    assert same_files(tmp_path / "whole", tmp_path / "b")
