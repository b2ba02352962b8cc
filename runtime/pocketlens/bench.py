"""Measures a bundle on the device it is on: latency by stage, cold start, memory, and the recall of the same run.

Stages run in turn, round after round, so that a slow moment of a shared machine falls on all of them alike.
"""

from __future__ import annotations

import io
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pocketlens import __version__
from pocketlens._native import ort
from pocketlens._types import Float32s
from pocketlens.graph import default_threads
from pocketlens.lens import Lens, open_lens
from pocketlens.picture import decode, preprocess
from pocketlens.tune import exact_rows, recall

_TEXTS = (
    "a red bicycle", "a dog on a beach", "two people eating at a table", "an old map", "a cat sleeping on a chair",
    "the moon", "a bowl of fruit", "a street at night in the rain", "a yellow flower", "a boat on a lake",
    "a child with a balloon", "mountains covered with snow", "a steam train", "a cup of coffee", "a house",
    "a bird",
)  # fmt: skip
_K = 10
_WARM_UP = 3
_COLD_STARTS = 5
_FIRST_HIT = """
import sys
import pocketlens
pocketlens.open(sys.argv[1], threads=int(sys.argv[2])).search(text=sys.argv[3])
"""
# VmHWM and not ru_maxrss: on Linux the latter starts at the parent's peak, because it outlives exec.
_EPILOGUE = """
import time
now = time.time()
import resource, sys
try:
    with open("/proc/self/status") as status:
        peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
except (OSError, StopIteration):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(now, peak)
"""


def measure(path: Path, *, runs: int = 50, threads: int | None = None) -> dict[str, Any]:
    """Return measured figures of a bundle: machine, latency by stage, recall@10, cold start and peak memory.

    Args:
        path: a bundle with at least one tower.
        runs: runs of every stage after three warm-up rounds.
        threads: of encoders, by default the usable cores, at most 4, and of search, by default one.
    """
    with open_lens(path, threads=threads) as lens:
        manifest = lens.gallery.manifest
        has_text = lens.has_tower("text")
        stages = _stages(lens)
        queries = lens.text_encoder().encode(_TEXTS) if has_text else lens.gallery.sample(16)
        measured: dict[str, Any] = {
            "machine": _machine(threads),
            "rows": manifest.index.rows,
            "dim": manifest.space.dim,
            "index": manifest.index.kind,
            "latency_ms": _time(stages, runs),
            f"recall_at_{_K}": _recall(lens, queries),
        }
    return {**measured, **_cold_start(path, threads)} if has_text else measured


def table(measured: dict[str, Any]) -> str:
    """Return `measure`'s result as text for a terminal."""
    threads = measured["machine"]["threads"]
    lines = [f"{measured['rows']} rows, {measured['dim']}-d, {measured['index']}; encoders on {threads} threads"]
    lines += ["pictures: a JPEG of 1600 x 1200; texts: four words"]
    lines += [f"{'stage':12} {'p50 ms':>9} {'p95 ms':>9}"]
    lines += [f"{name:12} {t['p50']:9.2f} {t['p95']:9.2f}" for name, t in measured["latency_ms"].items()]
    found = measured[f"recall_at_{_K}"]
    against = "exhaustive float32 search of the stored vectors"
    lines += [f"recall@{_K} against {against}: {'not known, none are stored' if found is None else found}"]
    if "cold_start_ms" in measured:
        lines += [f"cold start to first text hit: {measured['cold_start_ms']:.0f} ms"]
        lines += [f"peak memory of that process: {measured['peak_memory_mb']:.0f} MB"]
    return "\n".join(lines)


def _stages(lens: Lens) -> dict[str, Callable[[], object]]:
    stages: dict[str, Callable[[], object]] = {}
    vector = lens.gallery.sample(1)[0]
    if lens.has_tower("image"):
        image_encoder = lens.image_encoder()
        photo = _photo()
        decoded = decode(photo)
        pixels = preprocess(decoded, image_encoder.spec)[np.newaxis]
        stages["decode"] = lambda: decode(photo)
        stages["preprocess"] = lambda: preprocess(decoded, image_encoder.spec)
        stages["encode image"] = lambda: image_encoder.encode_pixels(pixels)
        stages["image query"] = lambda: lens.search(image=photo, k=_K)
    if lens.has_tower("text"):
        text_encoder = lens.text_encoder()
        ids = text_encoder.pad(text_encoder.tokenizer.ids(_TEXTS[:1]))
        stages["tokenize"] = lambda: text_encoder.tokenizer.ids(_TEXTS[:1])
        stages["encode text"] = lambda: text_encoder.encode_ids(ids)
        stages["text query"] = lambda: lens.search(text=_TEXTS[0], k=_K)
    stages["search"] = lambda: lens.search_vector(vector, k=_K)
    return stages


def _time(stages: dict[str, Callable[[], object]], runs: int) -> dict[str, dict[str, float]]:
    elapsed_ms: dict[str, list[float]] = {name: [] for name in stages}
    for round_number in range(_WARM_UP + runs):
        for name, run in stages.items():
            start = time.perf_counter()
            run()
            if round_number >= _WARM_UP:
                elapsed_ms[name].append((time.perf_counter() - start) * 1e3)
    return {
        name: {"p50": round(float(np.percentile(values, 50)), 3), "p95": round(float(np.percentile(values, 95)), 3)}
        for name, values in elapsed_ms.items()
    }


def _recall(lens: Lens, queries: Float32s) -> float | None:
    """Return recall against exhaustive float32 search of the stored float16 vectors; None where none are stored."""
    index = lens.gallery.index
    if index.originals is None:
        return None
    rows = index.rows
    vectors = index.originals if len(rows) == index.spec.rows else index.originals[rows]
    truth = rows[exact_rows(vectors, queries, k=_K)]
    return round(recall(index.search(queries, k=_K).rows, truth), 4)


def run_fresh(code: str, *arguments: str) -> tuple[float, float]:
    """Run Python code in a fresh process; return milliseconds from its start to the code's end, and its peak in MB."""
    start = time.time()
    output = subprocess.run(
        [sys.executable, "-c", code + _EPILOGUE, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    end, peak_bytes = output.split()[-2:]
    return (float(end) - start) * 1e3, int(peak_bytes) / 1e6


def _cold_start(path: Path, threads: int | None) -> dict[str, float]:
    """Return the median time from process start to a first text hit, and that process's peak memory."""
    arguments = (str(path), str(threads or default_threads()), _TEXTS[0])
    found = [run_fresh(_FIRST_HIT, *arguments) for _ in range(1 + _COLD_STARTS)][1:]  # the first compiles to .pyc
    elapsed_ms, peak_mb = np.median(found, axis=0)
    return {"cold_start_ms": round(float(elapsed_ms), 1), "peak_memory_mb": round(float(peak_mb), 1)}


def _machine(threads: int | None) -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": processor(),
        "threads": threads or default_threads(),
        "python": platform.python_version(),
        "pocketlens": __version__,
        "onnxruntime": ort.__version__,
    }


def processor() -> str:
    """Return the processor's name as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor()


def _photo() -> bytes:
    """Return a JPEG of 1600 x 1200 pixels with photo-like detail: smooth shapes and a little grain."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((1600, 1200), Image.Resampling.BICUBIC)).astype(np.float32)
    noisy = np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
