"""A cluster of two nodes on this machine, of which one dies while it makes shards: the bundle is the same."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.export.gallery.made import POISON, make_pictures, start_index
from tests.export.gallery.test_resume import same_files


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(POISON))  # of the nodes, as start_index sets the driver's
    started: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield started
    started.shutdown()


@pytest.mark.soak
def test_a_node_that_dies_takes_nothing_with_it(tmp_path: Path, colours: Path, cluster: Any) -> None:
    made = make_pictures(tmp_path / "p", 3_000, hanging=1, dying=1)
    command = (
        made.folder, "--model", colours, "--shard", 50, "--threads", 1, "--decoders", 1, "--deadline", 2,
        "--max-skipped", 10, "--json",
    )  # fmt: skip
    with start_index(*command, "--out", tmp_path / "local") as local:
        out, err = local.communicate()
    assert local.returncode == 0, err
    second = cluster.add_node(num_cpus=1)
    with start_index(*command, "--out", tmp_path / "ray", "--engine", "ray", "--address", cluster.address) as ray:
        shards = tmp_path / ".ray.unfinished" / "shards"
        while ray.poll() is None and (len(list(shards.glob("*.npz"))) < 10 or _actors() < 2):
            time.sleep(0.05)
        assert ray.poll() is None, "it ended before both nodes made shards"
        cluster.remove_node(second, allow_graceful=False)
        found, err = ray.communicate()
    assert ray.returncode == 0, err
    assert found == out
    assert same_files(tmp_path / "local", tmp_path / "ray")


def _actors() -> int:
    """Return how many processes make shards now; Ray names them by their class."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return sum(line.startswith("ray::") and "_Maker" in line for line in listed.splitlines())
