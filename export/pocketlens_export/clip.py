"""open_clip models with their weights: from a registered tag, a local checkpoint, or a seed.

Every model is built as open_clip's CustomTextCLIP, which keeps the text tower in one module; open_clip itself converts
checkpoints of the older layout. Checkpoints are read as safetensors or with torch's weights-only unpickler.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import nn

from pocketlens._types import Float32s, Int64s, Uint8s
from pocketlens.errors import FormatError, Refused
from pocketlens.files import sha256_of
from pocketlens_export.architecture import Architecture, Preprocessing
from pocketlens_export.hub import check_text_model, checkpoint_of_tag
from pocketlens_export.spread import spread_weights

_MAX_BYTES = 1_900_000_000  # of one tower: a protobuf, and so a self-contained ONNX file, ends at 2 GiB


@dataclass(frozen=True, slots=True)
class Weights:
    """Where weights come from: exactly one of the three is set."""

    tag: str | None = None
    path: Path | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """A loaded model in eval mode, float32, on the CPU: the reference that exports are compared with.

    Attributes:
        architecture: what was built.
        model: open_clip's CustomTextCLIP.
        text_cfg: the text configuration as open_clip resolved it.
        source: the tag, "random:SEED" or "sha256:…" of the checkpoint.
    """

    architecture: Architecture
    model: Any
    text_cfg: open_clip.CLIPTextCfg
    source: str

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become the image tower's input."""
        return self.architecture.preprocessing

    def encode_pixels(self, pixels: Uint8s) -> Float32s:
        """Return open_clip's unit embeddings, float32 (n, dim), of uint8 (n, side, side, 3) RGB."""
        with torch.no_grad():
            batches = torch.split(torch.from_numpy(pixels), 8)  # bounds the memory
            found = [
                self.model.encode_image(normalised(batch, self.preprocessing), normalize=True) for batch in batches
            ]
        return _to_numpy(torch.cat(found))

    def encode_ids(self, ids: Int64s) -> Float32s:
        """Return open_clip's unit embeddings, float32 (n, dim), of int64 (n, context_length)."""
        with torch.no_grad():
            return _to_numpy(self.model.encode_text(torch.from_numpy(ids), normalize=True))


def load_clip(architecture: Architecture, weights: Weights, pictures: Uint8s) -> Clip:
    """Build an architecture and give it its weights.

    Args:
        architecture: what to build.
        weights: where the weights come from.
        pictures: uint8 (n, side, side, 3), on which seeded weights fit their normalisation statistics.

    Raises:
        PocketlensError: the weights cannot be had, read or fitted to the architecture.
    """
    if weights.seed is not None:
        model = build_model(architecture, seed=weights.seed)
        inputs = normalised(torch.from_numpy(pictures), architecture.preprocessing)
        spread_weights(model.visual, model.text, inputs, seed=weights.seed)
        source = f"random:{weights.seed}"
    elif weights.tag is not None:
        _check_activation(architecture, weights.tag)
        path = checkpoint_of_tag(architecture.name, weights.tag, architecture.tags[weights.tag])
        model, source = _load(architecture, path), weights.tag
    else:
        assert weights.path is not None
        model, source = _load(architecture, weights.path), f"sha256:{sha256_of(weights.path)}"
    model = model.float().eval()
    _check_size(model)
    return Clip(architecture, model, open_clip.CLIPTextCfg(**architecture.model_cfg["text_cfg"]), source)


def normalised(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Return uint8 (n, side, side, 3) as open_clip's transform would feed it: float32 (n, 3, side, side)."""
    mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
    return (pixels.permute(0, 3, 1, 2).float() / 255.0 - mean) / std


def build_model(architecture: Architecture, *, seed: int) -> Any:
    """Return open_clip's CustomTextCLIP of an architecture with the weights that it begins a training with.

    Raises:
        Refused: it is a CoCa model, or its text tower one that is not supported.
        FormatError: open_clip cannot build it.
    """
    config = {key: value for key, value in architecture.model_cfg.items() if key != "custom_text"}
    if "multimodal_cfg" in config:
        raise Refused(f"{architecture.name} is a CoCa model, whose text tower cannot be exported")
    text_cfg = {**config.pop("text_cfg")}
    vision_cfg = {**config.pop("vision_cfg")}
    if "hf_model_name" in text_cfg:
        check_text_model(text_cfg["hf_model_name"])
        text_cfg["hf_model_pretrained"] = False  # weights come from the checkpoint or the seed
    if "timm_model_name" in vision_cfg:
        vision_cfg["timm_model_pretrained"] = False
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return open_clip.CustomTextCLIP(vision_cfg=vision_cfg, text_cfg=text_cfg, **config)
    except Exception as error:  # open_clip, timm and transformers each raise their own on a bad config
        reason = " ".join(str(error).split())[:300]
        raise FormatError(f"open_clip cannot build {architecture.name}: {type(error).__name__}: {reason}") from error


def _load(architecture: Architecture, path: Path) -> Any:
    if path.suffix in (".npz", ".npy"):
        raise FormatError(f"{path} is a NumPy archive, expected a safetensors file or a torch checkpoint")
    model = build_model(architecture, seed=0)
    try:
        with _quiet():
            found = open_clip.load_checkpoint(model, str(path), strict=False, weights_only=True)
    except Exception as error:  # unpicklers, safetensors and shape mismatches each raise their own
        kind, reason = type(error).__name__, " ".join(str(error).split())[:300]
        raise FormatError(f"{path} is not a checkpoint of {architecture.name}: {kind}: {reason}") from error
    missing, unexpected = list(found.missing_keys), list(found.unexpected_keys)
    if missing or unexpected:
        raise FormatError(
            f"{path} is not a checkpoint of {architecture.name}: "
            f"{len(missing)} weights are missing ({', '.join(missing[:2]) or 'none'}), "
            f"{len(unexpected)} are unknown ({', '.join(unexpected[:2]) or 'none'})"
        )
    return model


def _check_activation(architecture: Architecture, tag: str) -> None:
    expected = bool(architecture.tags[tag].get("quick_gelu", False))
    if bool(architecture.model_cfg.get("quick_gelu", False)) != expected:
        name = architecture.name
        other = f"{name}-quickgelu" if expected else name.removesuffix("-quickgelu")
        raise Refused(f"tag {tag} of {name} was trained with another activation (quick_gelu); use --model {other}")


def _check_size(model: nn.Module) -> None:
    for tower in ("visual", "text"):
        size_bytes = sum(4 * parameter.numel() for parameter in model.get_submodule(tower).parameters())
        if size_bytes > _MAX_BYTES:
            raise Refused(
                f"the {tower} tower has {size_bytes / 1e9:.1f} GB of float32 weights, expected at most "
                f"{_MAX_BYTES / 1e9} GB: more does not fit into one ONNX file"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip's remarks on the root logger (it configures that logger by using it) off standard error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _to_numpy(tensor: torch.Tensor) -> Float32s:
    return np.ascontiguousarray(tensor.numpy(), dtype=np.float32)
