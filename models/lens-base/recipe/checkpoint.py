"""Writes lens-base as a plain open_clip model, `lens-base.json` and `lens-base.pt`, and reads it back to prove it.

The configuration is the template beside this file with the place of the installed MiniLM package filled in. The check
opens the two files through open_clip alone and compares both towers with the recipe's own vectors.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.model import CustomTextCLIP
from PIL import Image
from texts import FOLDER, TextTower
from timm.layers.mlp import Mlp
from torch import Tensor, nn

NAME = "lens-base"
TEMPLATE = Path(__file__).with_name("lens-base.template.json")


def configuration() -> dict[str, Any]:
    """Return the template with MiniLM's folder filled in."""
    config: dict[str, Any] = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    text = config["model_cfg"]["text_cfg"]
    text["hf_model_name"] = text["hf_tokenizer_name"] = str(FOLDER)
    return config


def assemble(trunk: nn.Module, projector: Mlp, text: TextTower | None = None) -> CustomTextCLIP:
    """Return the open_clip model made of the trunk without its classifier, the projector and MiniLM, or `text`."""
    model = CustomTextCLIP(**configuration()["model_cfg"]).eval()
    weights = {name: tensor for name, tensor in trunk.state_dict().items() if not name.startswith("classifier.")}
    model.visual.trunk.load_state_dict(weights)
    model.visual.head.mlp.load_state_dict(projector.state_dict())
    if text is not None:
        model.text.transformer.load_state_dict(text.transformer.state_dict())
    return model


def write(model: CustomTextCLIP, folder: Path) -> tuple[Path, Path]:
    """Write the configuration and the checkpoint into `folder`, each by an atomic rename, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = folder / f"{NAME}.json", folder / f"{NAME}.pt"
    config.with_suffix(".tmp").write_text(json.dumps(configuration(), indent=2) + "\n", encoding="utf-8")
    torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights.with_suffix(".tmp2"))
    weights.with_suffix(".tmp2").replace(weights)
    config.with_suffix(".tmp").replace(config)
    return config, weights


def read(config: Path, weights: Path) -> tuple[nn.Module, Any, Any]:
    """Return model, picture transform and tokenizer, opened through open_clip's public functions only."""
    whole = json.loads(config.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        registered = Path(folder) / f"{NAME}.json"
        registered.write_text(json.dumps(whole["model_cfg"]), encoding="utf-8")
        open_clip.add_model_config(registered)
        preprocess = whole["preprocess_cfg"]
        model, _, transform = open_clip.create_model_and_transforms(
            NAME,
            pretrained=str(weights),
            image_mean=preprocess["mean"],
            image_std=preprocess["std"],
            image_interpolation=preprocess["interpolation"],
            image_resize_mode=preprocess["resize_mode"],
        )
        return model.eval(), transform, open_clip.get_tokenizer(NAME)


def agreement(
    opened: tuple[nn.Module, Any, Any],
    images: list[Image.Image],
    image_vectors: NDArray[np.float32],
    texts: list[str],
    text_vectors: NDArray[np.float32],
) -> dict[str, float]:
    """Return the least cosine, per tower, between the opened model's embeddings and the recipe's unit vectors.

    Args:
        images: RGB pictures as the recipe flattened them, before any resizing.
        image_vectors: float32 (n, 384), unit length.
        text_vectors: float32 (m, 384), unit length.
    """
    model, transform, tokenize = opened
    with torch.inference_mode():
        pixels = torch.stack([transform(image) for image in images])
        seen: Tensor = model.encode_image(pixels, normalize=True)  # type: ignore[operator]
        said: Tensor = model.encode_text(tokenize(texts), normalize=True)  # type: ignore[operator]
    return {
        "least_image_cosine": float((seen.numpy() * image_vectors).sum(1).min()),
        "least_text_cosine": float((said.numpy() * text_vectors).sum(1).min()),
    }
