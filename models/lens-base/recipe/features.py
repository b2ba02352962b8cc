"""Runs the frozen trunk over pictures and caches what it gives, the clean view first and seeded distortions after.

Its pooled features, which the projector starts from, and the maps of its early stages, which the late ones learn on.
The trunk runs in ONNX Runtime, which is five times as fast as torch on a processor for its depthwise convolutions.
Depends on trunk.py for the network and on pictures.py for decoding.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from pictures import Picture, decode
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor, nn

LOG = logging.getLogger("lens-base")
SIZE = 224
MEAN, STD = 127.0 / 255.0, 128.0 / 255.0
"""EfficientNet-Lite's own, (pixel - 127) / 128: tensorflow/tpu, efficientnet/lite, MEAN_RGB and STDDEV_RGB."""

Pixels = NDArray[np.float32]


class _Features(nn.Module):
    """The trunk without its classifier."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> Tensor:
        """Return pooled features float32 (n, 1280) of normalised pixels float32 (n, 3, 224, 224)."""
        maps = self.trunk.forward_features(pixels)  # type: ignore[operator]
        pooled: Tensor = self.trunk.forward_head(maps, pre_logits=True)  # type: ignore[operator]
        return pooled


def open_network(network: nn.Module, threads: int) -> ort.InferenceSession:
    """Return an ONNX Runtime session of a network over `pixels`, float32 (n, 3, 224, 224)."""
    example = torch.zeros(2, 3, SIZE, SIZE)
    program = torch.onnx.export(
        network.eval(),
        (example,),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({0: torch.export.Dim("n")},),
        input_names=["pixels"],
        output_names=["output"],
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def on_colour(image: Image.Image, colour: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Return an RGBA picture laid on a plain colour, as RGB."""
    ground = Image.new("RGB", image.size, colour)
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def squash(image: Image.Image) -> Image.Image:
    """Return RGB resized to 224 x 224 without keeping the aspect ratio (open_clip `squash`)."""
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def shortest(image: Image.Image) -> Image.Image:
    """Return RGB with its short side resized to 224 and the centre cropped (open_clip `shortest`)."""
    return ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BICUBIC)


def pad(image: Image.Image, colour: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Return RGB with its long side resized to 224, padded to a square (open_clip `longest`)."""
    return ImageOps.pad(image, (SIZE, SIZE), Image.Resampling.BICUBIC, color=colour)


def distort(image: Image.Image, rng: np.random.Generator, grounds: Sequence[Image.Image]) -> Image.Image:
    """Return a seeded distortion: rotated, mirrored, scaled and moved on a white, plain or photographic ground."""
    choice = rng.random()
    colour = tuple(int(c) for c in rng.integers(0, 256, 3)) if choice > 0.6 else (255, 255, 255)
    ground = Image.new("RGB", (SIZE, SIZE), colour)
    if choice > 0.75 and grounds:
        ground = random_crop(grounds[int(rng.integers(len(grounds)))], rng)
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    image = image.rotate(float(rng.uniform(-15, 15)), Image.Resampling.BICUBIC, expand=True)
    side = SIZE * rng.uniform(0.45, 1.15)
    stretch = rng.uniform(0.85, 1.18)
    scale = side / max(image.size)
    size = (max(8, int(image.width * scale * stretch)), max(8, int(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    left = int(rng.uniform(*sorted((0, SIZE - size[0]))))
    top = int(rng.uniform(*sorted((0, SIZE - size[1]))))
    ground.paste(image.convert("RGB"), (left, top), image.getchannel("A"))
    return _recolour(ground, rng)


def _recolour(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return RGB with brightness, contrast and saturation changed, sometimes blurred or grey."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(0.7, 1.3)))
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
    if rng.random() < 0.05:
        image = ImageOps.grayscale(image).convert("RGB")
    return image


def random_crop(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a square part of an RGB photo, between a tenth and all of its short side, as 224 x 224."""
    side = int(min(photo.size) * rng.uniform(0.1, 1.0))
    left = int(rng.integers(photo.width - side + 1))
    top = int(rng.integers(photo.height - side + 1))
    return photo.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


def to_pixels(image: Image.Image) -> Pixels:
    """Return normalised pixels float32 (3, 224, 224) of an RGB picture of 224 x 224."""
    values = np.asarray(image, dtype=np.float32) / 255.0
    return ((values - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)  # (h, w, 3) -> (3, h, w)


def encode(
    session: ort.InferenceSession, path: Path, count: int, load: Callable[[int], Pixels], batch: int = 16
) -> None:
    """Write what the network gives to a NumPy file, float16 (count, ...); `load(i)` gives the pixels of picture i."""
    shape = session.run(None, {"pixels": np.zeros((1, 3, SIZE, SIZE), np.float32)})[0].shape[1:]
    unfinished = path.with_suffix(".tmp")
    values = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float16, shape=(count, *shape))  # type: ignore[no-untyped-call,unused-ignore]
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        for first in range(0, count, batch):
            last = min(first + batch, count)
            pixels = np.stack(list(pool.map(load, range(first, last))))
            values[first:last] = session.run(None, {"pixels": pixels})[0]
            if last % (batch * 200) == 0:
                left = (time.monotonic() - start) / last * (count - last)
                LOG.info("%s: %d of %d pictures, %.0f s left", path.name, last, count, left)
    values.flush()
    unfinished.replace(path)


def loader(
    paths: Sequence[Path], view: int, grounds: Sequence[Image.Image], fit: Callable[[Image.Image], Image.Image] = squash
) -> Callable[[int], Pixels]:
    """Return a loader of one view of each picture: 0 is clean, any other number seeds a distortion."""

    def load(index: int) -> Pixels:
        image = decode(paths[index])
        if view == 0:
            return to_pixels(fit(on_colour(image)))
        return to_pixels(distort(image, np.random.default_rng((index, view)), grounds))

    return load


def _cached(
    network: nn.Module, name: str, pictures: Sequence[Picture], views: int, grounds: Sequence[Path], folder: Path
) -> list[Path]:
    """Return a NumPy file for each view, written if `folder` lacks it: `name` and a digest of what it was made of."""
    made_of = "\n".join(picture.name for picture in pictures) + f"{SIZE} {MEAN} {STD} {len(grounds)}"
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    paths = [folder / f"{name}-{digest}-{view}.npy" for view in range(views)]
    if not all(path.is_file() for path in paths):
        session = open_network(network, torch.get_num_threads())
        photos = [Image.open(path).convert("RGB") for path in grounds]
        for photo in photos:
            photo.thumbnail((1200, 1200))
        files = [picture.path for picture in pictures]
        for view, path in enumerate(paths):
            if not path.is_file():
                encode(session, path, len(files), loader(files, view, photos))
    return paths


def cached_features(
    trunk: nn.Module, pictures: Sequence[Picture], views: int, grounds: Sequence[Path], folder: Path
) -> Tensor:
    """Return features float16 (n, views, 1280), kept in `folder`.

    Args:
        grounds: photographs that distorted views may be laid on.
    """
    paths = _cached(_Features(trunk), "features", pictures, views, grounds, folder)
    return torch.from_numpy(np.stack([np.load(path) for path in paths], axis=1))  # views of (n, d) -> (n, views, d)


class Maps:
    """The early maps of pictures in several views, which stay in files: float16 (n, 112, 14, 14) each."""

    def __init__(self, views: Sequence[NDArray[np.float16]]) -> None:
        self.views = views

    def __len__(self) -> int:
        return len(self.views[0])

    def draw(self, rows: Sequence[int] | NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Return float32 (len(rows), 112, 14, 14), of each picture a view by chance."""
        return _channels_last(np.stack([self.views[int(rng.integers(len(self.views)))][row] for row in rows]))

    def clean(self, batch: int = 256) -> Iterator[Tensor]:
        """Yield the first views in order, float32 (at most `batch`, 112, 14, 14)."""
        for start in range(0, len(self), batch):
            yield _channels_last(np.array(self.views[0][start : start + batch]))


def _channels_last(maps: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(maps).float().to(memory_format=torch.channels_last)


def cached_maps(
    early: nn.Module, pictures: Sequence[Picture], views: int, grounds: Sequence[Path], folder: Path
) -> Maps:
    """Return the early maps of pictures, kept in `folder`; arguments as for `cached_features`."""
    paths = _cached(early, "maps", pictures, views, grounds, folder)
    return Maps([np.load(path, mmap_mode="r") for path in paths])
