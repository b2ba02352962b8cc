from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pocketlens_bench.asymmetric_study import tower_config
from pocketlens_bench.backbones_timing import at_side, picture_times, step_seconds
from pocketlens_export.architecture import local_architecture
from pocketlens_export.distill.student import build_clip
from pocketlens_export.towers import image_tower
from pocketlens_quantize.session import open_session


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "light.json"
    made = tower_config(6, trunk="test_efficientnet")
    made["model_cfg"]["vision_cfg"]["image_size"] = made["preprocess_cfg"]["size"] = 64
    path.write_text(json.dumps(made))
    return path


@pytest.fixture
def graph(tmp_path: Path, config: Path) -> Path:
    """The exported tower of `config`."""
    clip = build_clip(local_architecture(config, needs_text=False), dim=6, seed=0, start=None)
    path = tmp_path / "image.onnx"
    torch.onnx.export(
        image_tower(clip), (torch.zeros((2, 64, 64, 3), dtype=torch.uint8),), str(path), input_names=["pixels"],
        output_names=["embedding"], dynamic_shapes=({0: "n"},), dynamo=True, external_data=False, opset_version=20,
    )  # fmt: skip
    return path


def test_a_graph_at_another_side_is_the_same_tower(graph: Path, config: Path) -> None:
    clip = build_clip(local_architecture(config, needs_text=False), dim=6, seed=0, start=None)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = image_tower(clip)(torch.from_numpy(pixels)).numpy()
    session = open_session(at_side(onnx.load(str(graph)), 96))
    assert session.get_inputs()[0].shape[1:] == [96, 96, 3]
    np.testing.assert_allclose(session.run(["embedding"], {"pixels": pixels})[0], expected, atol=1e-5)


def test_every_tower_is_timed_at_every_side(graph: Path) -> None:
    times = picture_times({"one": graph, "other": graph}, (None, 32))
    assert {side: sorted(found) for side, found in times.items()} == {"own": ["one", "other"], "32": ["one", "other"]}
    assert all(value > 0 for found in times.values() for values in found.values() for value in values)


def test_a_training_step_takes_time(config: Path) -> None:
    assert step_seconds({"light": config}, dim=6, batch=4, threads=1)["light"] > 0
