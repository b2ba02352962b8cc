"""Threads that search while another process adds, removes and compacts: each answer is of one committed state."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from pocketlens.lens import Lens, open_lens
from tests.conftest import COLOURS
from tests.reliability.changes import QUERIES, Change, State, draw, perform, steps, wrong_hits
from tests.reliability.conftest import ROOT

SEARCHERS = 8
K = 10
WRITER = """
import json, sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
import numpy as np
from pocketlens.lens import open_lens
from tests.reliability.changes import perform
memory = SharedMemory(sys.argv[2])
resource_tracker.unregister(memory._name, "shared_memory")  # it is the test's
counts = np.ndarray(2, dtype=np.int64, buffer=memory.buf)
def done():
    counts[0] += 1
with open_lens(Path(sys.argv[1]), threads=1) as lens:
    for number, change in enumerate(json.load(sys.stdin)):
        perform(lens, change, done)
del counts
memory.close()
"""


def script(count: int, seed: int) -> tuple[list[Change], list[State]]:
    """Return changes, and the states they lead through, the first before any."""
    rng, changes = random.Random(seed), list[Change]()
    states = [{f"{name}.png": colour for name, colour in COLOURS.items()}]
    for number in range(count):
        changes.append(draw(rng, states[-1], ("add", "remove", "add", "compact")[number % 4]))
        states += steps(states[-1], changes[-1])
    return changes, states


def search_on(lens: Lens, states: list[State], counts: np.ndarray, over: threading.Event, seed: int) -> tuple[int, int]:
    """Search until all is over; return how many answers there were, and how many states were seen."""
    rng, answers, seen = random.Random(seed), 0, set()
    while not over.is_set():
        query = QUERIES[rng.randrange(len(QUERIES))]
        before = int(counts[0])  # so many steps were committed for sure
        hits = [(hit.id, hit.cosine) for hit in lens.search_vector(query, k=K)]
        after = min(int(counts[0]) + 1, len(states) - 1)  # and one more may have been
        fitting = [at for at in range(before, after + 1) if wrong_hits(hits, query, states[at], k=K) == []]
        assert fitting, (before, after, wrong_hits(hits, query, states[before], k=K))
        answers += 1
        seen.add(fitting[0])
    return answers, len(seen)


def search_while(lens: Lens, states: list[State], counts: np.ndarray, write: threading.Thread) -> None:
    over = threading.Event()
    with ThreadPoolExecutor(SEARCHERS) as pool:
        running = [pool.submit(search_on, lens, states, counts, over, seed) for seed in range(SEARCHERS)]
        write.start()
        write.join()
        time.sleep(0.1)
        over.set()
        found = [each.result() for each in running]
    assert counts[0] == len(states) - 1
    assert min(answers for answers, _ in found) > 5
    assert max(states_seen for _, states_seen in found) > len(states) / 4


def in_another_process(bundle: Path, count: int, seed: int) -> None:
    import json

    changes, states = script(count, seed)
    memory = SharedMemory(create=True, size=16)
    counts = np.ndarray(2, dtype=np.int64, buffer=memory.buf)
    counts[:] = 0
    failed: list[str] = []

    def write() -> None:
        command = [sys.executable, "-W", "error", "-c", WRITER, str(bundle), memory.name]
        done = subprocess.run(command, cwd=ROOT, input=json.dumps(changes), capture_output=True, text=True)
        failed.append(done.stderr)

    with open_lens(bundle, threads=1) as lens:
        search_while(lens, states, counts, threading.Thread(target=write))
        assert failed == [""]
        assert wrong_hits([(h.id, h.cosine) for h in lens.search_vector(QUERIES[0])], QUERIES[0], states[-1], k=K) == []
    del counts
    memory.close()
    memory.unlink()


def test_eight_threads_search_while_another_process_writes(plain_bundle: Path) -> None:
    in_another_process(plain_bundle, 24, seed=1)


def test_eight_threads_search_while_a_ninth_writes_through_the_same_lens(plain_bundle: Path) -> None:
    changes, states = script(24, seed=2)
    counts = np.zeros(1, dtype=np.int64)

    def done() -> None:
        counts[0] += 1

    with open_lens(plain_bundle, threads=1) as lens:
        errors: list[BaseException] = []

        def write() -> None:
            try:
                for change in changes:
                    perform(lens, change, done)
            except BaseException as error:
                errors.append(error)

        search_while(lens, states, counts, threading.Thread(target=write))
        assert errors == []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3, 8))
def test_eight_threads_search_for_long(plain_bundle: Path, seed: int) -> None:
    in_another_process(plain_bundle, 200, seed)
