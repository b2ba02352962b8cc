"""A process that asks a bundle mixed queries and says how its memory grows. `python -m tests.reliability.memory`.

Arguments: the bundle, queries to warm up, queries to count. It answers with the slope of its resident memory in bytes a
query (Theil and Sen's, with the upper end of a 95 % bootstrap interval), and with its open files at start and end.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s
from pocketlens.errors import PocketlensError
from pocketlens.lens import Lens, open_lens
from tests.reliability.changes import QUERIES, picture

EVERY = 100  # queries from one sample to the next
WORDS = ("red", "green", "blue", "white", "a red", "a blue white", "green red", "nothing known")
RESAMPLES = 300
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    bundle, warm_up, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    samples = []
    with open_lens(bundle, threads=1) as lens:
        for number in range(warm_up):
            ask(lens, number)
        files = open_files()
        for number in range(count):
            ask(lens, number)
            if number % EVERY == 0:
                samples.append(resident_bytes())
        told = {"files": [files, open_files()], **slope(np.array(samples, dtype=np.float64) / EVERY)}
    print(json.dumps({**told, "resident_mb": [round(samples[0] / 1e6, 2), round(samples[-1] / 1e6, 2)]}))


def ask(lens: Lens, number: int) -> None:
    """Ask one of many queries of every kind; some are refused."""
    kind, turn = number % 8, number // 8
    word = WORDS[turn % len(WORDS)]
    colour = (turn * 7 % 256, turn * 11 % 256, turn * 13 % 256)
    try:
        if kind == 0:
            lens.search(text=word, k=1 + turn % 20)
        elif kind == 1:
            lens.search(image=picture.__wrapped__(colour), k=5)
        elif kind == 2:
            lens.search_vector(QUERIES[turn % len(QUERIES)] + np.float32(turn % 97), min_z=0.5)
        elif kind == 3:
            lens.search(image=picture.__wrapped__(colour), text=word, method=("sum", "product", "slerp")[turn % 3])
        elif kind == 4:
            lens.similar("red.png", diverse=bool(turn % 2))
        elif kind == 5:
            lens.search(text=word + " " * (turn % 50), negative="blue")
        elif kind == 6:
            lens.search(text="" if turn % 2 else word, k=3 + turn % 3 * 999)
        else:
            lens.search(image=b"\xff\xd8\xff" + bytes([turn % 256]) * 50)
    except PocketlensError:
        assert kind >= 6 or kind == 4, number


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def open_files() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def slope(samples: Float32s | np.ndarray) -> dict[str, float]:
    """Return the median slope of all pairs of samples, and the upper end of its interval by bootstrap over blocks."""
    rng = np.random.default_rng(0)

    def median_slope(places: np.ndarray) -> float:
        first, second = rng.choice(places, (2, 5_000))
        apart = first != second
        return float(np.median((samples[second] - samples[first])[apart] / (second - first)[apart]))

    count = len(samples)
    width = max(count // 20, 1)  # neighbours are alike
    drawn = [
        np.concatenate([np.arange(start, start + width) for start in rng.integers(0, count - width + 1, 20)])
        for _ in range(RESAMPLES)
    ]
    return {
        "bytes_per_query": median_slope(np.arange(count)),
        "upper": float(np.quantile([median_slope(places) for places in drawn], 0.975)),
    }


if __name__ == "__main__":
    main()
