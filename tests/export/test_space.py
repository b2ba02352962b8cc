from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Any

import pytest
import torch
from torch import nn

from pocketlens_export.architecture import Preprocessing
from pocketlens_export.clip import Clip
from pocketlens_export.space import space_id

PLAIN = Preprocessing(32, "shortest", "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def tower() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_the_hash_by_hand() -> None:
    visual = nn.Linear(2, 1)
    visual.weight.data, visual.bias.data = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])
    digest = hashlib.sha256()
    digest.update(b"bias torch.float32 [1]\n" + b"\x00\x00\x40\x40")
    digest.update(b"weight torch.float32 [1, 2]\n" + b"\x00\x00\x80\x3f\x00\x00\x00\x40")
    digest.update(b'{"interpolation":"bilinear","mean":[0.0,0.0,0.0],"mode":"shortest","side":32,"std":[1.0,1.0,1.0]}')
    assert space_id("m", visual, PLAIN) == f"m@{digest.hexdigest()}"


def test_anything_that_moves_an_embedding_makes_another_space() -> None:
    def scale(visual: Any) -> None:
        visual[0].weight.data[0, 0] += 1e-6

    def statistics(visual: Any) -> None:
        visual[1].running_var[0] = 2

    found = {space_id("m", tower(), PLAIN)}
    for change in (scale, statistics):
        visual = tower()
        change(visual)
        found.add(space_id("m", visual, PLAIN))
    for other in (
        dataclasses.replace(PLAIN, side=33),
        dataclasses.replace(PLAIN, mode="squash"),
        dataclasses.replace(PLAIN, interpolation="bicubic"),
        dataclasses.replace(PLAIN, std=(1.0, 1.0, 1.1)),
    ):
        found.add(space_id("m", tower(), other))
    assert len(found) == 7


def test_a_counter_of_batches_is_no_weight() -> None:
    visual: Any = tower()
    before = space_id("m", visual, PLAIN)
    visual[1].num_batches_tracked += 1
    assert space_id("m", visual, PLAIN) == before


@pytest.mark.parametrize("name", ["tiny", "MobileCLIP2-S0"])
def test_an_id_is_a_name_and_a_hash(clip: Clip, name: str) -> None:
    assert re.fullmatch(rf"{name}@[0-9a-f]{{64}}", space_id(name, clip.model.visual, clip.preprocessing))
