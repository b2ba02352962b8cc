from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketlens_export.gallery.progress import Heartbeat, Lines, Progress, Watch, bar_of, duration, shares_of


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("pocketlens_export.gallery.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_rate_is_that_of_the_last_minute(clock: Clock) -> None:
    shown: list[Progress] = []
    watch = Watch(shows=[shown.append])
    watch.begin("encoding", done=1_000, total=3_000)
    for _ in range(100):  # 10 a second for 100 seconds
        clock.now += 1
        for _ in range(10):
            watch.step(True)
    assert (shown[-1].done, shown[-1].total, shown[-1].skipped) == (1_991, 3_000, 0)
    assert shown[-1].per_second == pytest.approx(10, rel=0.02)  # what an earlier run had done does not count
    assert shown[-1].left_s == pytest.approx(100.9, rel=0.03)
    for _ in range(120):  # then one a second, of which half are skipped
        clock.now += 1
        watch.step(watch._done % 2 == 0)
    assert shown[-1].per_second == pytest.approx(1, rel=0.05)
    assert shown[-1].skipped == 60
    watch.end()
    assert watch.seconds == {"encoding": pytest.approx(220)}


def test_every_entry_is_told_of(clock: Clock) -> None:
    seen: list[tuple[int, int]] = []
    watch = Watch(on_entry=lambda done, total: seen.append((done, total)))
    watch.begin("encoding", done=2, total=4)
    watch.step(True)
    watch.step(False)
    assert seen == [(3, 4), (4, 4)]


def test_a_bar_says_how_much_is_left() -> None:
    progress = Progress("encoding", 12_288, 40_000, 97, 143.21, 193.6)
    assert bar_of(progress) == "encoding ███████░░░░░░░░░░░░░░░░░ 12,288/40,000 · 143/s · 3 min left · 97 skipped"
    assert bar_of(Progress("listing", 1_234, None, 0, 50.0, None)) == "listing 1,234 found"
    assert bar_of(Progress("encoding", 0, 0, 0, 0.0, None)).startswith("encoding ████████████████████████ 0/0")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5_940, "99 min"), (12_000, "3 h 20 min")]
)
def test_times_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_for_machines_come_every_two_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(as_json=True)
    for _ in range(50):
        clock.now += 0.1
        lines(Progress("encoding", 1, 2, 0, 0.123, None))
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(found) == 2
    assert found[0] == {"event": "progress", "stage": "encoding", "done": 1, "total": 2, "skipped": 0,
                        "per_second": 0.1, "left_s": None}  # fmt: skip


def test_a_heartbeat_is_replaced_every_five_seconds(clock: Clock, tmp_path: Path) -> None:
    beat = Heartbeat(tmp_path / "beat.json")
    for done in range(9):
        beat(Progress("encoding", done, 9, 0, 1.0, 1.0))
        clock.now += 1
    assert json.loads((tmp_path / "beat.json").read_text())["done"] == 5
    Heartbeat(tmp_path / "absent" / "beat.json")(Progress("encoding", 0, 9, 0, 1.0, 1.0))  # is no reason to stop


def test_the_slowest_stage_comes_first() -> None:
    lines = shares_of({"decoding": 0.31, "encoding": 0.98, "writing": 0.001})
    assert [line.split()[0] for line in lines] == ["encoding", "decoding", "writing"]
    assert lines[0].endswith("98% busy") and "█" * 24 in lines[0]
