"""Indexing in processes of its own: how long it takes, and the most memory that it and its children have at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_SAMPLE_S = 0.05
LOOP = """
import sys
from pathlib import Path
import numpy, onnxruntime, open_clip, torch
from PIL import Image

folder, graph, side, interpolation, mode, workers, threads, out = sys.argv[1:]
whole = open_clip.image_transform(int(side), is_train=False, interpolation=interpolation, resize_mode=mode)
transform = [step for step in whole.transforms if "Tensor" not in repr(step) and "Normalize" not in repr(step)]

class Pictures(torch.utils.data.Dataset):
    paths = sorted(Path(folder).iterdir())
    def __len__(self):
        return len(self.paths)
    def __getitem__(self, number):
        image = Image.open(self.paths[number])
        for step in transform:
            image = step(image)
        return torch.from_numpy(numpy.array(image))

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
loader = torch.utils.data.DataLoader(Pictures(), batch_size=64, num_workers=int(workers))
found = [session.run(["embedding"], {"pixels": batch.numpy()})[0] for batch in loader]
numpy.save(out, numpy.concatenate(found))
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a process took: seconds from its start to its end, its peak and its children's in MB, and its last line."""

    seconds: float
    peak_mb: float
    output: str
    errors: str

    def stage_s(self, stage: str) -> float:
        """Return how long a stage of `pocketlens index --json` took, in seconds."""
        summary: dict[str, Any] = json.loads(self.errors.splitlines()[-1])
        return float(summary["seconds"][stage])


def run(command: Sequence[str]) -> Ran:
    """Run a command to its end, sampling the resident memory of it and its children, 20 times a second."""
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _resident(watched))
            time.sleep(_SAMPLE_S)
        took = time.perf_counter() - start
        output, errors = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return Ran(took, peak / 1e6, output, errors)


def index_command(source: str | Path, out: Path, *arguments: object) -> list[str]:
    """Return the command that indexes a source, with counts and times as JSON."""
    script = str(Path(sys.executable).with_name("pocketlens"))
    return [script, "index", str(source), "--out", str(out), "--replace", "--json", *map(str, arguments)]


def loop_command(*arguments: object) -> list[str]:
    """Return the command of a plain loop: open_clip's transform, torch's DataLoader, the same graph."""
    return [sys.executable, "-c", LOOP, *map(str, arguments)]


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_info().rss
    except psutil.NoSuchProcess:  # it has just ended; the next sample counts the others
        return 0
    return total
