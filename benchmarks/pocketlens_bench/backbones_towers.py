"""What the files of towers hold, and how their times compare: the parts of `backbones` that only look at towers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from pocketlens.model import Model
from pocketlens_bench.asymmetric_models import Entrant
from pocketlens_bench.backbones_tables import INT8
from pocketlens_bench.backbones_timing import picture_times
from pocketlens_bench.measure import median, ratio


def latencies(entrants: Sequence[Entrant], sides: tuple[int | None, ...]) -> dict[str, Any]:
    """Return, by side and tower, milliseconds of a picture, their share of float32's and of the heavy tower's."""
    heavy = entrants[0].label
    times = picture_times({entrant.label: _file(entrant.model) for entrant in entrants}, sides)
    base = times["own"][heavy]
    return {
        side: {
            name: {
                "ms_p50": median(elapsed_ms),
                "of_float32": ratio(elapsed_ms, by_name[other]) if (other := name.removesuffix(INT8)) != name else None,
                "of_heavy": ratio(elapsed_ms, base),
            }
            for name, elapsed_ms in by_name.items()
            if side == "own" or name != heavy
        }
        for side, by_name in times.items()
    }


def contents(entrant: Entrant) -> dict[str, Any]:
    """Return what the file of a tower holds; folded branches and batch norms are gone from it."""
    manifest = entrant.model.manifest
    graph = onnx.load(str(_file(entrant.model))).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert manifest.image is not None
    told = (
        "reparameterization_max_abs",
        "asymmetric_mean_cosine",
        "mean_pairwise_cosine",
        "image_agreement_at_10_int8_on_float",
    )
    return {
        "precision": manifest.image.precision,
        "bytes": entrant.image_bytes,
        "nodes": len(graph.node),
        "convolutions": kinds["Conv"],
        "batch_norms": kinds["BatchNormalization"],
        "quality": {name: manifest.quality[name] for name in told if name in manifest.quality},
        "plans": _plans(entrant.model.path / "quantization.md"),
    }


def _plans(page: Path) -> list[dict[str, str]]:
    """Return what `pocketlens quantize` tells of the plans that it tried for the image tower, as it tells it."""
    if not page.is_file():
        return []
    lines = page.read_text(encoding="utf-8").splitlines()
    start = max(number for number, line in enumerate(lines) if line.startswith("| plan "))  # the text tower's is above
    table = [line for line in lines[start:] if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [dict(zip((name or "chosen" for name in header), row, strict=True)) for row in rows]


def _file(model: Model) -> Path:
    assert model.manifest.image is not None  # query models have an image tower
    return model.file(model.manifest.image.file)
