"""The picture tower in two parts: early stages that stay as ImageNet left them, and late ones that are trained on.

The early part runs once over every picture; what it gives (112 channels of 14 x 14) is kept. The late part, with three
quarters of the weights, is small enough to train on a processor. Its normalisations are folded into the convolutions,
which is what they compute anyway and takes half the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timm.layers.conv2d_same import conv2d_same
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn.functional import normalize, relu6

EARLY_STAGES = 5
"""Stages of EfficientNet-Lite0 that stay; two are trained on."""

MAPS = (112, 14, 14)
_CHUNK = 64
"""Pictures at a time: more do not fit in a processor's cache and take longer each."""


class Early(nn.Module):
    """The trunk up to its fifth stage: normalised pixels float32 (n, 3, 224, 224) -> maps float32 (n, 112, 14, 14)."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm = trunk.get_submodule("conv_stem"), trunk.get_submodule("bn1")
        self.stages = nn.Sequential(*list(trunk.get_submodule("blocks").children())[:EARLY_STAGES])

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the maps."""
        maps: Tensor = self.stages(self.norm(self.stem(pixels)))
        return maps


class Late(nn.Module):
    """The trunk's last stages and a projector: maps float32 (n, 112, 14, 14) -> unit vectors float32 (n, 384)."""

    def __init__(self, trunk: nn.Module, head: Mlp) -> None:
        super().__init__()
        self.names = list(_pairs(trunk))
        self.layers = nn.ModuleList(_folded(trunk, conv, norm) for conv, norm in self.names)
        self.skips = [bool(getattr(block, "has_skip")) for block in _blocks(trunk)]  # noqa: B009
        self.head = head

    def features(self, maps: Tensor) -> Tensor:
        """Return pooled features float32 (n, 1280)."""
        layers = iter(self.layers)
        for skip in self.skips:
            inner = relu6(next(layers)(maps), inplace=True)
            inner = relu6(next(layers)(inner), inplace=True)
            inner = next(layers)(inner)
            maps = maps + inner if skip else inner
        return relu6(next(layers)(maps), inplace=True).mean((2, 3))  # (n, 1280, 7, 7) -> (n, 1280)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the embeddings."""
        parts = [normalize(self.head(self.features(part)), dim=1) for part in torch.split(maps, _CHUNK)]
        return torch.cat(parts)

    def store(self, trunk: nn.Module, maps: Tensor) -> None:
        """Write the weights into `trunk`, whose normalisations of these layers get the moments that `maps` give them.

        So the trunk computes the same, and can be trained on as one that was trained with them.
        """
        moments = self._moments(maps)
        for (conv, norm), layer in zip(self.names, self.layers, strict=True):
            mean, variance = moments[conv]
            epsilon = float(getattr(trunk.get_submodule(norm), "eps"))  # noqa: B009
            with torch.no_grad():
                trunk.get_parameter(f"{conv}.weight").copy_(layer.get_parameter("weight"))
                trunk.get_parameter(f"{norm}.weight").copy_(torch.sqrt(variance + epsilon))
                trunk.get_parameter(f"{norm}.bias").copy_(layer.get_parameter("bias") + mean)
                trunk.get_buffer(f"{norm}.running_mean").copy_(mean)
                trunk.get_buffer(f"{norm}.running_var").copy_(variance)

    def _moments(self, maps: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return mean and variance of what each convolution gives before its bias, by the convolution's name."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        hooks = []
        for (conv, _), layer in zip(self.names, self.layers, strict=True):

            def note(layer: nn.Module, _: Any, output: Tensor, conv: str = conv) -> None:
                plain = output - layer.get_parameter("bias")[:, None, None]
                found[conv] = plain.mean((0, 2, 3)), plain.var((0, 2, 3))

            hooks.append(layer.register_forward_hook(note))
        with torch.inference_mode():
            self.features(maps)
        for hook in hooks:
            hook.remove()
        return found


class _Conv(nn.Conv2d):
    """A convolution with bias whose stride pads as TensorFlow does: the odd pixel at the end."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of ceil(side / stride)."""
        if self.stride == (1, 1):
            return super().forward(maps)
        stride = (self.stride[0], self.stride[0])
        smaller: Tensor = conv2d_same(maps, self.weight, self.bias, stride, groups=self.groups)
        return smaller


def _blocks(trunk: nn.Module) -> Iterator[nn.Module]:
    for stage in list(trunk.get_submodule("blocks").children())[EARLY_STAGES:]:
        yield from stage.children()


def _pairs(trunk: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of each late convolution and of the normalisation after it, in the order of computation."""
    stages = list(trunk.get_submodule("blocks").children())
    for number in range(EARLY_STAGES, len(stages)):
        for block in range(len(list(stages[number].children()))):
            inside = f"blocks.{number}.{block}"
            yield f"{inside}.conv_pw", f"{inside}.bn1"
            yield f"{inside}.conv_dw", f"{inside}.bn2"
            yield f"{inside}.conv_pwl", f"{inside}.bn3"
    yield "conv_head", "bn2"


def _folded(trunk: nn.Module, conv: str, norm: str) -> _Conv:
    """Return a convolution that computes what `conv` and then `norm`, with its stored moments, compute."""
    old = trunk.get_submodule(conv)
    assert isinstance(old, nn.Conv2d)
    epsilon = float(getattr(trunk.get_submodule(norm), "eps"))  # noqa: B009
    gain = trunk.get_parameter(f"{norm}.weight") / torch.sqrt(trunk.get_buffer(f"{norm}.running_var") + epsilon)
    size = old.kernel_size[0]
    new = _Conv(old.in_channels, old.out_channels, size, old.stride[0], size // 2, groups=old.groups)
    assert new.bias is not None
    with torch.no_grad():
        new.weight.copy_(old.weight * gain[:, None, None, None])
        new.bias.copy_(trunk.get_parameter(f"{norm}.bias") - trunk.get_buffer(f"{norm}.running_mean") * gain)
    return new
