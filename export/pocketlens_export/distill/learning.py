"""A light image tower in training: views in, the heavy tower's stored vectors as what it must answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketlens._types import Int64s
from pocketlens_export.architecture import Preprocessing
from pocketlens_export.distill.recipes import Distillation, Values, total_loss
from pocketlens_export.distill.reinforced import ReinforcedSet
from pocketlens_export.distill.same import Others
from pocketlens_export.split import Split

HELD_OUT = 1_024  # validation pictures that the held-out loss is taken over, at most
_BLOCK = 16  # channels that a vector kernel takes together, at most


class Student(nn.Module):
    """A light image tower as it is trained: uint8 (n, side, side, 3) RGB -> unit embedding float32 (n, dim).

    Its weights lie with channels last in memory, in which such convolutions train up to 5 times as fast on a CPU.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, visual: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.visual = visual.to(memory_format=torch.channels_last)
        self._as_planes = _keep_planes(visual)
        for name, levels in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(levels).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return unit embeddings."""
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std  # (n, s, s, 3) -> (n, 3, s, s)
        x = x.contiguous() if self._as_planes else x
        return functional.normalize(self.visual(x).float(), dim=-1)


def _keep_planes(visual: nn.Module) -> bool:
    """Lay out weights of strided 1x1 convolutions of few channels as planes, in place; return whether there are any.

    FastViT and MobileOne begin with one. torch 2.15 writes past the end of its buffers when it computes the gradient of
    such weights on a CPU with channels last, be it the weights that lie so or the pixels.
    """
    fragile = [
        module
        for module in visual.modules()
        if isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels < _BLOCK
    ]
    for module in fragile:
        module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)
    return bool(fragile)


class Learning:
    """The task of the training loop. A row is a picture, of which every step draws a view.

    Args:
        student: on the device of the training.
        views: what to train on.
        split: which pictures are trained on, and by which the held-out loss is taken.
        chosen: the loss.
        values: of its recipe's parameters.
        others: what targets are drawn to, where pictures show the same thing.
        batch: pictures of a step; the held-out loss is taken over as many, for relational losses depend on it.
    """

    def __init__(
        self,
        student: Student,
        views: ReinforcedSet,
        split: Split,
        chosen: Distillation,
        values: Values,
        *,
        batch: int,
        others: Others | None = None,
    ) -> None:
        self.network = student
        self.lengths = np.ones(len(split.train), dtype=np.int64)
        self._views, self._split, self._chosen, self._values, self._batch = views, split, chosen, values, batch
        self._others = others
        self._device = next(student.parameters()).device

    def loss(self, rows: Int64s) -> Tensor:
        """Return the loss of a batch of training pictures, a view drawn of each."""
        views = torch.randint(self._views.views, (len(rows),)).numpy()
        return self._loss(self._split.train[rows], views)

    def held_out_loss(self) -> float:
        """Return the loss of the validation pictures' last views, the mean over batches."""
        rows = self._split.validation[:HELD_OUT]
        parts = np.array_split(rows, max(round(len(rows) / self._batch), 1))
        last = self._views.views - 1
        return float(np.mean([float(self._loss(part, np.full(len(part), last))) for part in parts]))

    def _loss(self, pictures: Int64s, views: Int64s) -> Tensor:
        pixels, teacher = self._views.rows(pictures, views)
        if self._others is not None:
            teacher = self._others.draw(teacher, pictures)
        found = self.network(torch.from_numpy(pixels).to(self._device))
        return total_loss(self._chosen, found, torch.from_numpy(teacher).to(self._device), self._values)
