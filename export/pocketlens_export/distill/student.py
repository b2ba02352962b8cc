"""The light tower: built from an open_clip config, begun from a checkpoint, checked against the heavy space."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import open_clip
import safetensors.torch
import torch
from open_clip.factory import load_state_dict
from torch import nn

from pocketlens.errors import EncoderMismatch, FormatError, Refused
from pocketlens_export.architecture import Architecture
from pocketlens_export.clip import Clip, build_model

_PREFIX = "visual."
_NO_TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}  # open_clip wants one


def build_clip(architecture: Architecture, *, dim: int, seed: int, start: Path | None) -> Clip:
    """Return an architecture with seeded weights, or those of a checkpoint; its text part is a stub.

    Args:
        architecture: with a timm image tower.
        dim: that its embeddings must have.
        seed: of the weights.
        start: a checkpoint to take the image tower's weights from.

    Raises:
        Refused: the image tower is not timm's, or cannot be run.
        EncoderMismatch: its embeddings are of other dimensions.
        FormatError: open_clip cannot build it, or the checkpoint is none of it.
    """
    name, vision = architecture.name, architecture.model_cfg["vision_cfg"]
    if not vision.get("timm_model_name"):
        raise Refused(f"{name}: the image tower is open_clip's own, expected one of timm (vision_cfg.timm_model_name)")
    found = architecture.model_cfg.get("embed_dim")
    if found != dim:
        raise EncoderMismatch(f"{name}: the head gives {found} dimensions (embed_dim), the heavy space has {dim}")
    image_only = dataclasses.replace(architecture, model_cfg={**architecture.model_cfg, "text_cfg": _NO_TEXT})
    model = build_model(image_only, seed=seed).float().eval()
    if start is not None:
        _load(model.visual, start, name)
    _check(model.visual, architecture, dim)
    return Clip(image_only, model, open_clip.CLIPTextCfg(**_NO_TEXT), "")


def checkpoint_bytes(visual: nn.Module) -> bytes:
    """Return an image tower's weights as a safetensors file, under the names that they have in a whole model."""
    state = {f"{_PREFIX}{key}": value.detach().cpu().contiguous() for key, value in visual.state_dict().items()}
    return safetensors.torch.save(state)


def _load(visual: nn.Module, path: Path, name: str) -> None:
    """Give a tower the weights of a checkpoint, which may hold a whole model."""
    try:
        state = load_state_dict(str(path), weights_only=True)
        chosen = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
        visual.load_state_dict(chosen)
    except Exception as error:  # unpicklers, safetensors and shape mismatches each raise their own
        reason = " ".join(str(error).split())[:300]
        raise FormatError(f"{path} is no checkpoint with the image tower of {name}: {reason}") from error


def _check(visual: nn.Module, architecture: Architecture, dim: int) -> None:
    side = architecture.preprocessing.side
    try:
        with torch.no_grad():
            shape = tuple(visual(torch.zeros((1, 3, side, side))).shape)
    except Exception as error:  # a head that does not fit its trunk, a map that has shrunk to nothing
        reason = " ".join(str(error).split())[:300]
        raise Refused(
            f"{architecture.name}: the image tower does not run at {side} pixels: {reason}. For trunks with a layer "
            'behind their pooling, such as MobileNetV4, timm_proj must be ""'
        ) from error
    if shape != (1, dim):
        raise EncoderMismatch(f"{architecture.name}: the image tower gives {shape[1:]}, the heavy space has {dim}")
