"""Writes what lens-tiny's training starts from: lens-base's trunk at half the side, thinned, and a fitted head.

    python models/lens-tiny/recipe/start.py --checkpoint lens-base.pt --pictures DIR --out start.safetensors

A trunk from scratch needs tens of epochs; this one is lens-base's own and only has to learn to see 112 pixels. It comes
from the checkpoint that lens-base's recipe leaves. The inner channels of the widest blocks that matter least are set to
zero, where they stay in training, for relu6 has no slope there; `pocketlens quantize` cuts them out. The head is a
ridge regression from pooled features at 112 pixels to lens-base's vectors of the same pictures.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from pocketlens.encoder import ImageEncoder
from pocketlens.model import Model, PictureSpec, find_model
from pocketlens.picture import decode, preprocess

TRUNK = "tf_efficientnet_lite0"
SIDE, WIDTH = 112, 1_152
MEAN, STD = 127.0, 128.0
"""EfficientNet-Lite's own, in levels; see lens-base's recipe, features.py."""

KEPT = {"blocks.5.1": 1_056, "blocks.5.2": 1_056, "blocks.5.3": 1_056, "blocks.6.0": 672}
"""Of the 1,152 inner channels of each block: as many as fit into 4 MB in int8."""

PICTURES, RANKING, PENALTY, SEED, BATCH = 6_000, 640, 1e-2, 0, 64

Vectors = NDArray[np.float32]


def trunk_of(weights: dict[str, Tensor]) -> Any:
    """Return lens-base's trunk, in eval mode, from its open_clip checkpoint."""
    trunk = timm.create_model(TRUNK, pretrained=False, num_classes=0).eval()
    prefix = "visual.trunk."
    trunk.load_state_dict({name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)})
    return trunk


def pixels_of(paths: list[Path], spec: PictureSpec) -> Tensor:
    """Return normalised pixels float32 (n, 3, side, side)."""
    pixels = torch.from_numpy(np.stack([preprocess(decode(path), spec) for path in paths]))
    return (pixels.permute(0, 3, 1, 2).float() - MEAN) / STD  # (n, s, s, 3) -> (n, 3, s, s)


def batches(paths: list[Path]) -> Iterator[list[Path]]:
    """Yield `BATCH` paths at a time."""
    for start in range(0, len(paths), BATCH):
        yield paths[start : start + BATCH]


def thin(trunk: Any, paths: list[Path], spec: PictureSpec) -> None:
    """Set to zero, in place, the inner channels of the wide blocks that change their output least.

    What a channel does is the variance of its activation, over pictures and places, times its squared weights in the
    projection behind it.
    """
    sums: dict[str, list[Tensor]] = {name: [torch.zeros(3, WIDTH)] for name in KEPT}

    def note(name: str) -> Any:
        def hook(_: Any, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].double()  # (n, c, h, w)
            sums[name][0] = sums[name][0] + torch.stack(
                [x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), torch.full((WIDTH,), float(x[:, 0].numel()))]
            )

        return hook

    hooks = [trunk.get_submodule(f"{name}.conv_pwl").register_forward_pre_hook(note(name)) for name in KEPT]
    with torch.inference_mode():
        for some in batches(paths):
            trunk.forward_features(pixels_of(some, spec))
    for hook in hooks:
        hook.remove()
    for name, kept in KEPT.items():
        total, squares, count = sums[name][0]
        variance = squares / count - (total / count).square()
        block = trunk.get_submodule(name)
        matters = variance * block.conv_pwl.weight.double().square().sum((0, 2, 3))
        _silence(block, matters.argsort(descending=True)[kept:])


def _silence(block: Any, channels: Tensor) -> None:
    with torch.no_grad():
        for convolution, norm in ((block.conv_pw, block.bn1), (block.conv_dw, block.bn2)):
            for weights in (convolution.weight, norm.weight, norm.bias, norm.running_mean):
                weights[channels] = 0


def seen(trunk: Any, heavy: ImageEncoder, paths: list[Path]) -> tuple[Vectors, Vectors]:
    """Return pooled features float32 (n, 1280) of the light trunk, and unit vectors float32 (n, 384) of lens-base."""
    light = replace(heavy.spec, side=SIDE)
    features, vectors = [], []
    with torch.inference_mode():
        for some in batches(paths):
            maps = trunk.forward_features(pixels_of(some, light))
            features.append(trunk.forward_head(maps, pre_logits=True).numpy())
            vectors.append(heavy.encode(some))
    return np.concatenate(features), np.concatenate(vectors)


def ridge(features: Vectors, vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Return weights float32 (384, 1280) and bias float32 (384,) of the ridge regression from features to vectors."""
    mean, target = features.mean(0, dtype=np.float64), vectors.mean(0, dtype=np.float64)
    centred = features - mean
    covariance = centred.T @ centred / len(features)
    covariance += PENALTY * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    weight = np.linalg.solve(covariance, centred.T @ (vectors - target) / len(features)).T
    return weight.astype(np.float32), (target - weight @ mean).astype(np.float32)


def checkpoint(trunk: Any, weight: Vectors, bias: Vectors) -> dict[str, Tensor]:
    """Return the weights of an open_clip model with this trunk and head, under open_clip's names."""
    state = {name: tensor for name, tensor in trunk.state_dict().items() if not name.startswith("classifier")}
    state |= {"classifier.weight": torch.from_numpy(weight), "classifier.bias": torch.from_numpy(bias)}
    return {f"visual.trunk.{name}": tensor.contiguous() for name, tensor in state.items()}


def main() -> None:
    """Read the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="lens-base.pt of lens-base's recipe")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--heavy", default="lens-base", help="the gallery model (default lens-base)")
    parser.add_argument("--threads", type=int, default=1, help="of torch and ONNX Runtime (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    paths = sorted(arguments.pictures.rglob("*.webp"))
    some = random.Random(SEED).sample(paths, min(PICTURES, len(paths)))
    heavy = ImageEncoder(Model.open(find_model(arguments.heavy)), threads=arguments.threads)
    trunk = trunk_of(torch.load(arguments.checkpoint, map_location="cpu", weights_only=True))
    thin(trunk, some[:RANKING], replace(heavy.spec, side=SIDE))
    state = checkpoint(trunk, *ridge(*seen(trunk, heavy, some)))
    arguments.out.write_bytes(safetensors.torch.save(state))


if __name__ == "__main__":
    main()
