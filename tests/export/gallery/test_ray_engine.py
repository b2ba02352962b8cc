from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pocketlens.inspect import verify
from tests.command import Run
from tests.export.gallery.made import make_pictures, start_index
from tests.export.gallery.test_resume import same_files


def test_ray_makes_the_same_bundle_and_goes_on_where_another_engine_stopped(tmp_path: Path, colours: Path) -> None:
    made = make_pictures(tmp_path / "p", 120, hanging=1, dying=1)
    command = (made.folder, "--model", colours, "--shard", 16, "--deadline", 0.7, "--max-skipped", 10, "--json")
    with start_index(*command, "--out", tmp_path / "local") as local:
        out, err = local.communicate()
    assert local.returncode == 0, err
    with start_index(*command, "--out", tmp_path / "ray") as stopped:
        shards = tmp_path / ".ray.unfinished" / "shards"
        while stopped.poll() is None and not any(shards.glob("*.npz")):
            subprocess.run(["sleep", "0.02"], check=True)
        stopped.kill()
        stopped.communicate()
    with start_index(*command, "--out", tmp_path / "ray", "--engine", "ray", "--workers", 1) as ray:
        found, err = ray.communicate()
    assert ray.returncode == 0, err
    assert found == out
    assert json.loads(err.splitlines()[-1])["resumed"] >= 16
    assert json.loads(err.splitlines()[-1])["seconds"].keys() == {"listing", "starting Ray", "encoding", "assembling"}
    assert verify(tmp_path / "ray")
    assert same_files(tmp_path / "local", tmp_path / "ray")


def test_without_ray_the_extra_is_named(tmp_path: Path, colours: Path, pictures: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; from pocketlens.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "index",
        pictures,
        "--model",
        colours,
        "--engine",
        "ray",
        "--out",
        tmp_path / "b",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'pocketlens: --engine ray needs Ray, which is not installed: pip install "pocketlens[ray]"\n'
    )
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_does_not_answer_is_an_error(run: Run, tmp_path: Path, colours: Path, pictures: Path) -> None:
    result = run("index", pictures, "--model", colours, "--out", tmp_path / "b", "--address", "auto")
    assert result.code == 2 and "--address and --workers are for --engine ray" in result.err
    with start_index(
        pictures, "--model", colours, "--out", tmp_path / "b", "--engine", "ray", "--address", "auto"
    ) as ray:
        _, err = ray.communicate()
    assert ray.returncode == 1
    assert "no Ray cluster answers at auto: " in err and err.count("\n") == 1, err
