"""What a tower costs: the time of a training step, and of a picture at sides that the same weights are asked at.

A convolutional tower's weights do not depend on the side, and neither do the ranges of its int8 form, so that a graph
takes pictures of another side once its declared shapes say so. What it then finds is another matter: it is only timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from pocketlens_bench.measure import alternate, median, significant
from pocketlens_export.architecture import local_architecture
from pocketlens_export.distill.learning import Student
from pocketlens_export.distill.recipes import DISTILLATIONS, total_loss
from pocketlens_export.distill.student import build_clip
from pocketlens_quantize.session import open_session

_ROUNDS, _STEPS = 60, 3


def at_side(graph: onnx.ModelProto, side: int) -> onnx.ModelProto:
    """Return an image tower's graph that takes pictures of another side; its weights stay as they are."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    for size in changed.graph.input[0].type.tensor_type.shape.dim[1:3]:  # (n, side, side, 3)
        size.dim_value = side
    for output in changed.graph.output:
        for size in output.type.tensor_type.shape.dim[2:]:  # (n, channels, height, width) of the features
            size.Clear()
    del changed.graph.value_info[:]
    return changed


def picture_times(towers: Mapping[str, Path], sides: tuple[int | None, ...]) -> dict[str, dict[str, list[float]]]:
    """Return milliseconds of one picture on one thread, by side and then by tower, all by turns in this process.

    Args:
        towers: files of image towers, by name.
        sides: of the pictures; None: the tower's own. What cannot take pictures of a side is left out there.
    """
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    for name, path in towers.items():
        graph = onnx.load(str(path))
        own = graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        for side in sides:
            run = _one_picture(at_side(graph, side or own), side or own)
            if run is not None:
                runs[str(side or "own"), name] = run
    elapsed_ms = alternate({"/".join(pair): run for pair, run in runs.items()}, rounds=_ROUNDS)
    found: dict[str, dict[str, list[float]]] = {}
    for (label, name), values in zip(runs, elapsed_ms.values(), strict=True):
        found.setdefault(label, {})[name] = values
    return found


def step_seconds(configs: Mapping[str, Path], *, dim: int, batch: int, threads: int) -> dict[str, float]:
    """Return seconds of a training step by `raml` of each tower, the median of three, all by turns in this process."""
    torch.set_num_threads(threads)
    runs = {name: _one_step(path, dim=dim, batch=batch) for name, path in configs.items()}
    elapsed_ms = alternate(runs, rounds=_STEPS, warm_up=1)
    return {name: significant(median(values) / 1e3, 3) for name, values in elapsed_ms.items()}


def _one_picture(graph: onnx.ModelProto, side: int) -> Callable[[], object] | None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    name = graph.graph.input[0].name
    try:
        session: Any = open_session(graph)
        session.run(["embedding"], {name: pixels})
    except Exception:  # onnxruntime's own exceptions share no public base
        return None
    return lambda: session.run(["embedding"], {name: pixels})


def _one_step(config: Path, *, dim: int, batch: int) -> Callable[[], object]:
    light = local_architecture(config, needs_text=False)
    student = Student(build_clip(light, dim=dim, seed=0, start=None).model.visual, light.preprocessing).train()
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-4)
    side, chosen = light.preprocessing.side, DISTILLATIONS["raml"]
    values = {name: parameter.default for name, parameter in chosen.recipe.parameters.items()}
    pixels = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
    teacher = torch.nn.functional.normalize(torch.randn(batch, dim), dim=-1)

    def step() -> None:
        optimiser.zero_grad()
        total_loss(chosen, student(pixels), teacher, values).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step
