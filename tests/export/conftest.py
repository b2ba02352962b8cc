"""Fixtures of the exporter's tests: tiny models, loaded and exported once. The model hub is never asked."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketlens._types import Uint8s
from pocketlens.picture import preprocess
from pocketlens_export.architecture import Architecture, local_architecture
from pocketlens_export.clip import Clip, Weights, load_clip
from pocketlens_export.folder import Request, export_model, picture_spec
from pocketlens_export.samples import sample_pictures
from tests.export.tiny import clip_config, write_config, write_hugging_face_config

Load = Callable[..., Clip]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)  # tiny models lose more to waiting threads than they gain


def sample_pixels(architecture: Architecture, count: int) -> Uint8s:
    spec = picture_spec(architecture)
    return np.stack([preprocess(picture, spec) for picture in sample_pictures(count)])


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.json, bidirectional.json and tiny-bert.json; read-only."""
    folder = tmp_path_factory.mktemp("configs")
    write_config(folder / "tiny.json", clip_config())
    write_config(folder / "bidirectional.json", clip_config(no_causal_mask=True))
    write_hugging_face_config(folder)
    return folder


@pytest.fixture(scope="session")
def load(configs: Path) -> Load:
    """A function: config name and text_cfg overrides to a tiny model with seeded weights."""

    def _load(name: str, **text_cfg: Any) -> Clip:
        architecture = local_architecture(configs / f"{name}.json")
        changed = {**architecture.model_cfg, "text_cfg": {**architecture.model_cfg["text_cfg"], **text_cfg}}
        architecture = dataclasses.replace(architecture, model_cfg=changed)
        return load_clip(architecture, Weights(seed=0), sample_pixels(architecture, 4))

    return _load


@pytest.fixture(scope="session")
def clip(load: Load) -> Clip:
    """The two-layer CLIP; read-only."""
    return load("tiny")


@pytest.fixture(scope="session")
def bert(load: Load) -> Clip:
    """The model with a Hugging Face text tower; read-only."""
    return load("tiny-bert")


@pytest.fixture(scope="session")
def fastvit(configs: Path) -> Clip:
    """A model whose image tower is a small FastViT, which trains with branches; read-only."""
    return timm_clip(configs, "fastvit_t8")


def timm_clip(configs: Path, name: str, *, side: int = 64) -> Clip:
    """Return a model with a timm trunk and seeded weights; its config is written to NAME.json."""
    config = clip_config()
    config["model_cfg"]["vision_cfg"] = {"timm_model_name": name, "timm_proj": "linear", "image_size": side}
    architecture = local_architecture(write_config(configs / f"{name}.json", config))
    return load_clip(architecture, Weights(seed=0), sample_pixels(architecture, 4))


@pytest.fixture(scope="session")
def exported(configs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model folders tiny, bidirectional and tiny-bert; read-only."""
    out = tmp_path_factory.mktemp("exported")
    for name in ("tiny", "bidirectional", "tiny-bert"):
        architecture = local_architecture(configs / f"{name}.json")
        request = Request(architecture, Weights(seed=0), name, "none", None, None)
        export_model(request, out / name, lambda line: None)
    return out
