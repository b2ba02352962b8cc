from __future__ import annotations

import io
import math
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from pocketlens_bench.scale_pictures import write_folder, write_tars
from pocketlens_bench.scale_processes import run
from pocketlens_bench.scale_simulation import Assumed, Measured, simulate, sizing

CALM = Assumed(group=100, spread=0.0, hanging=0.0, failures_each_hours=1e12, start_s=36.0)


def test_without_chance_a_simulated_run_takes_what_arithmetic_says() -> None:
    measured = Measured(10.0, 1_000.0, {})  # 10 s a group
    assert simulate(1_000, 1, measured, CALM)[0] == pytest.approx((36 + 100) / 3600)
    assert simulate(1_000, 3, measured, CALM)[0] == pytest.approx((36 + 40) / 3600)  # 10 groups: 4, 3 and 3
    (row,) = sizing(1_000, [3], measured, CALM)
    assert row["hours to assemble"] == pytest.approx(1 / 3600, rel=0.01)
    assert row["of what is ideal"] == pytest.approx(100 / 3 / 76, rel=0.01)


def test_failures_repeat_groups_and_hanging_pictures_take_time() -> None:
    measured = Measured(10.0, 1_000.0, {})
    failing = Assumed(group=100, spread=0.0, hanging=0.0, failures_each_hours=0.05, back_s=60.0, start_s=0.0)
    hours, repeated = simulate(100_000, 10, measured, failing)
    assert repeated > 20
    assert hours > 100_000 / 10 / 10 / 3600 * 1.1
    hanging = Assumed(group=100, spread=0.0, hanging=0.001, deadline_s=30.0, failures_each_hours=1e12, start_s=0.0)
    hours, _ = simulate(1_000_000, 1, measured, hanging)
    assert hours == pytest.approx((100_000 + 1_000 * 30) / 3600, rel=0.05)  # one of two decoders, for a minute each
    spread = Assumed(group=100, spread=0.5, hanging=0.0, failures_each_hours=1e12, start_s=0.0)
    assert math.isclose(simulate(1_000_000, 1, measured, spread)[0], 100_000 / 3600, rel_tol=0.05)


def test_the_pictures_that_are_measured_differ(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "p", 5, (64, 48))
    assert len({path.read_bytes() for path in folder.iterdir()}) == 5
    pattern = write_tars(tmp_path / "t", 2, 3) % 1
    assert pattern == f"{tmp_path}/t/s-{{0000..0001}}.tar"
    found = set()
    for number in range(2):
        with tarfile.open(tmp_path / "t" / f"s-{number:04}.tar") as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                content = file.read()
                assert Image.open(io.BytesIO(content)).size == (96, 72)
                found.add(content)
    assert len(found) == 6


def test_a_process_is_watched_with_its_children() -> None:
    child = "import time; held = bytearray(90 << 20); time.sleep(1.5)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('done')"
    ran = run([sys.executable, "-c", code])
    assert ran.output == "done\n"
    assert 90 < ran.peak_mb < 300
    assert ran.seconds > 1.5
