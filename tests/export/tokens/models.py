"""A light and a heavy model of one space, small, whose image towers give their last feature maps."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from pocketlens.model import Features, Model
from tests.folders import edit_json, sign
from tests.quantize import towers

CHANNELS, GRID = 4 * towers.CHANNELS, 4  # of the map before the mean


def write_towers(folder: Path, *, seed: int, features: bool = True) -> Path:
    """Write a model folder of both towers, whose image tower has seeded weights, and return it.

    All are of one space, by name. The text tower is the same for all.
    """
    image = towers.image_tower(seed=seed)
    if features:
        image.graph.node.append(helper.make_node("Identity", ["end"], ["features"]))
        shape: list[str | int] = ["n", CHANNELS, GRID, GRID]
        image.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, shape))
        onnx.checker.check_model(image)
    towers.write_model(folder, image=image)
    if features:
        named = {"id": f"seed {seed}@" + f"{seed}" * 64, "channels": CHANNELS, "height": GRID, "width": GRID}
        edit_json(folder / "model.json", name=f"towers-{seed}", image__features=named)
    sign(folder / "model.json")
    return folder


def features_of(model: Model) -> Features:
    image = model.manifest.image
    assert image is not None and image.features is not None
    return image.features
