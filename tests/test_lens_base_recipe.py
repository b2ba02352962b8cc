"""lens-base's recipe: the late part computes what the trunk does, losses are as worked out here, words keep tones."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers.mlp import Mlp

RECIPE = Path(__file__).parents[1] / "models" / "lens-base" / "recipe"
MODULES = ("late", "losses", "words")


@pytest.fixture(scope="module")
def recipe() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(RECIPE))
    yield {name: importlib.import_module(name) for name in MODULES}
    sys.path.remove(str(RECIPE))
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def trunk() -> Any:
    """A seeded trunk whose normalisations have moments and gains of their own."""
    torch.manual_seed(0)
    made = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    made.train()
    with torch.no_grad():
        for _ in range(3):
            made(torch.randn(4, 3, 64, 64))
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


@torch.inference_mode()
def test_early_and_late_part_together_give_the_trunks_features(recipe: dict[str, ModuleType], trunk: Any) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    late = recipe["late"].Late(trunk, Mlp(1280, 8, 4))
    features = late.features(recipe["late"].Early(trunk)(pixels))
    expected = trunk.forward_head(trunk.forward_features(pixels), pre_logits=True)
    assert expected.std() > 0.01
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


def test_a_trained_late_part_is_stored_with_the_moments_of_its_pictures(
    recipe: dict[str, ModuleType], trunk: Any
) -> None:
    pixels = torch.randn(8, 3, 64, 64)
    late, early = recipe["late"].Late(trunk, Mlp(1280, 8, 4)), recipe["late"].Early(trunk)
    with torch.no_grad():
        for parameter in late.layers.parameters():
            parameter.add_(0.05 * parameter.std() * torch.randn_like(parameter))
        maps = early(pixels)
        late.store(trunk, maps)
        stored = trunk.forward_head(trunk.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(stored, late.features(maps), atol=1e-4, rtol=1e-4)
        seen: list[torch.Tensor] = []
        trunk.conv_head.register_forward_hook(lambda _, __, output: seen.append(output))
        trunk(pixels)
    torch.testing.assert_close(trunk.bn2.running_mean, seen[0].mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(trunk.bn2.running_var, seen[0].var((0, 2, 3)), atol=1e-4, rtol=1e-2)


def _log_softmax(rows: Any) -> Any:
    return rows - np.log(np.exp(rows).sum(1, keepdims=True))


def _units(rng: np.random.Generator, count: int) -> Any:
    vectors = rng.standard_normal((count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_pictures_and_texts_of_one_thing_share_their_target(
    recipe: dict[str, ModuleType], rng: np.random.Generator
) -> None:
    seen, said = _units(rng, 3), _units(rng, 3)
    target = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    scores = seen @ said.T / 0.1
    expected = -(target * _log_softmax(scores)).sum(1).mean() - (target * _log_softmax(scores.T)).sum(1).mean()
    loss = recipe["losses"].contrast(torch.tensor(seen), torch.tensor(said), torch.tensor([7, 7, 2]), 0.1)
    assert float(loss) == pytest.approx(expected)


def test_pictures_find_the_others_of_their_thing_and_never_themselves(
    recipe: dict[str, ModuleType], rng: np.random.Generator
) -> None:
    seen = _units(rng, 4)  # the last is alone of its thing
    scores = seen @ seen.T / 0.1
    others = np.array([[1, 2], [0, 2], [0, 1]])
    losses = []
    for row, pair in enumerate(others):
        rest = np.delete(scores[row], row)
        log_sum = np.log(np.exp(rest).sum())
        losses.append(-np.mean([scores[row, other] - log_sum for other in pair]))
    loss = recipe["losses"].same_thing(torch.tensor(seen), torch.tensor([1, 1, 1, 5]), 0.1)
    assert float(loss) == pytest.approx(np.mean(losses))


def test_attributes_count_by_the_share_of_pictures_that_have_them(recipe: dict[str, ModuleType]) -> None:
    seen = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    texts = {"tone": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "hair": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
    told = [{"tone": 0}, {"tone": 0}, {}, {"hair": 1}]
    right, wrong = np.log(1 + np.exp(-2)), np.log(1 + np.exp(2))  # cosines 1 and 0 at temperature 0.5
    expected = (right + wrong) / 2 * 2 / 4 + right * 1 / 4
    assert float(recipe["losses"].attribute_loss(seen, told, texts, 0.5)) == pytest.approx(expected, rel=1e-5)


@dataclass(frozen=True)
class Said:
    """What the recipe knows of a picture."""

    texts: tuple[str, ...]
    source: str = "emoji-google"

    @property
    def caption(self) -> str:
        return self.texts[0]


def test_attributes_are_read_from_an_emojis_name_and_from_no_clip_art(recipe: dict[str, ModuleType]) -> None:
    words = recipe["words"]
    told = words.attributes(Said(("woman: medium-dark skin tone, red hair",)))
    assert told == {"gender": 0, "hair": 0}  # the tone is not where single emoji have it
    assert words.attributes(Said(("boy: medium-light skin tone",))) == {"tone": 1, "gender": 1}
    assert words.attributes(Said(("a man with a beard",), source="openclipart")) == {}
    assert words.attributes(Said(("manual typewriter",))) == {}


def test_a_name_in_other_words_keeps_its_emoji_and_its_tone(
    recipe: dict[str, ModuleType], rng: np.random.Generator
) -> None:
    said = {recipe["words"].say(Said(("firefighter: medium-light skin tone",)), rng) for _ in range(200)}
    assert len(said) > 10
    assert all("firefighter" in text and re.search(r"\bmedium-light(-skinned| skin)", text) for text in said)


def test_tags_are_said_for_a_fifth_of_the_time(recipe: dict[str, ModuleType], rng: np.random.Generator) -> None:
    said = [recipe["words"].say(Said(("dog", "pet", "puppy")), rng) for _ in range(2_000)]
    assert 0.16 < np.mean([text in ("pet", "puppy") for text in said]) < 0.24
    assert {text for text in said if "dog" not in text} == {"pet", "puppy"}
