"""Models whose vectors can be worked out by hand: a matrix times a picture's mean colour, and a constant entry.

`colours` (tests/colours.py) is the heavy one: (red, green, blue, 0.2) at length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image

from pocketlens.model import Model, Space
from tests.bench.protocols.files import COLOURS
from tests.colours import SPACE, write_colours
from tests.folders import reshape, rewrite

OTHER = Space("shifted@" + "1" * 64, 4)
NARROW = Space("narrow@" + "2" * 64, 3)

Matrix = list[list[float]]

SAME: Matrix = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0.2]]
SHIFTED: Matrix = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0.2, 0, 0, 0]]
BLUE_BLIND: Matrix = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.2]]
RED_ONLY: Matrix = [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.2]]


def write_seeing(folder: Path, matrix: Matrix, *, name: str, space: Space = SPACE, reads: bool = False) -> Path:
    """Write a model folder that sees rows red, green, blue and a constant of a matrix, (4, dim); return it."""
    write_colours(folder, name=name, space=space)
    values = np.asarray(matrix, dtype=np.float32)  # (4, dim)
    graph = onnx.load(str(folder / "image.onnx"))
    for tensor in graph.graph.initializer:
        if tensor.name == "weights":
            tensor.CopyFrom(numpy_helper.from_array(values[:3] / 255, "weights"))
        if tensor.name == "bias":
            tensor.CopyFrom(numpy_helper.from_array(values[3], "bias"))
    onnx.save(graph, str(folder / "image.onnx"))
    reshape(folder / "image.onnx", "embedding", ["n", values.shape[1]])
    manifest = Model.open(folder).manifest
    rewrite(folder, manifest if reads else manifest.only("image"))
    return folder


def without_image(folder: Path) -> Path:
    """Write the model of colours without its image tower; return it."""
    write_colours(folder)
    rewrite(folder, Model.open(folder).manifest.only("text"))
    return folder


def write_shades(folder: Path, *, count: int = 12, names: Sequence[str] = ("red", "green", "blue")) -> Path:
    """Write `count` shades of each colour into a sub-folder of its name; no two files have the same bytes."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for shade in range(count):
            colour = tuple(max(0, value - 3 * shade) for value in COLOURS[name])
            Image.new("RGB", (12, 12), colour).save(folder / name / f"{shade:02}.png")
    return folder
