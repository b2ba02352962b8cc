from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pocketlens._types import Float32s
from pocketlens.encoder import TextEncoder
from pocketlens.errors import BadQuery
from pocketlens.model import Model
from pocketlens.text import Tokenizer
from pocketlens_export.fit.prompts import Prompts
from pocketlens_export.fit.recipe import check_values
from pocketlens_export.fit.tower import TextTower
from pocketlens_export.split import split_rows
from pocketlens_export.tokens.folder import measure_learner
from pocketlens_export.tokens.learning import ISA, Learning, describe_words
from pocketlens_export.tokens.maps import Maps
from tests.quantize import towers

PICTURES, VIEWS, CHANNELS, HEAVY_CHANNELS, TOKENS = 40, 2, 6, 5, 3
Make = Callable[..., tuple[Learning, Maps]]


@pytest.fixture(scope="module")
def prompts(light: Model) -> Prompts:
    tower = TextTower(light, device=torch.device("cpu"))
    spec = tower.spec
    assert spec.tokenizer is not None
    return Prompts(tower, Tokenizer(light.file(spec.tokenizer), spec), tokens=TOKENS)


@pytest.fixture
def make(light: Model, prompts: Prompts) -> Make:
    """A function: settings to a task over maps from which the heavy embeddings could be computed."""

    def _make(*, cells: bool = True, **given: str) -> tuple[Learning, Maps]:
        rng = np.random.default_rng(0)
        features = rng.standard_normal((PICTURES, VIEWS, CHANNELS, 2, 2))
        vectors = features.mean(axis=(3, 4)) @ rng.standard_normal((CHANNELS, towers.DIM))
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        local = features.reshape(PICTURES, VIEWS, CHANNELS, 4).transpose(0, 1, 3, 2) @ rng.standard_normal(
            (CHANNELS, HEAVY_CHANNELS)
        )
        maps = Maps(
            features.astype(np.float16), local.astype(np.float16) + 3 if cells else None, vectors.astype(np.float32)
        )
        split = split_rows([hashlib.sha256(bytes([row])).hexdigest() for row in range(PICTURES)])
        words = describe_words(prompts._tower.token_table())
        values = check_values(ISA, {"hidden": "16", "dropout": "0", **given})
        return Learning(prompts, maps, split, words, tokens=TOKENS, values=values, seed=4), maps

    return _make


def contrast(heavy: Float32s, sentences: Float32s, temperature: float) -> float:
    logits = heavy.astype(np.float64) @ sentences.T / temperature
    both = [np.log(np.exp(each).sum(axis=1)) - np.diag(each) for each in (logits, logits.T)]
    return float(np.mean(both))


@pytest.mark.parametrize("cells", [True, False])
def test_the_loss_apart_from_it(make: Make, light: Model, cells: bool) -> None:
    task, maps = make(cells=cells, temperature="0.2", alignment="0.7")
    task.network.eval()
    rows = np.array([0, 3, 11, 12])
    torch.manual_seed(9)
    found = float(task.loss(rows).detach())

    torch.manual_seed(9)
    views = torch.randint(VIEWS, (4,)).numpy()
    split = split_rows([hashlib.sha256(bytes([row])).hexdigest() for row in range(PICTURES)])
    pictures = split.train[rows]
    assert len({*views.tolist()}) == 2
    with torch.no_grad():
        chosen = torch.from_numpy(maps.features[pictures, views].astype(np.float32))
        tokens, shares = (each.numpy().astype(np.float64) for each in task.network.learner.look(chosen))
    encoder = TextEncoder(light)
    sentences = np.concatenate([encoder.encode_prompts(["a photo of $"], each.astype(np.float32)) for each in tokens])
    if maps.cells is None:
        table = np.random.default_rng(0).standard_normal((towers.TOKENS, towers.WIDTH))  # as the tower's are drawn
        drift = ((tokens.mean(axis=(0, 1)) - table.mean(axis=0)) ** 2).sum()
        local = drift / ((table - table.mean(axis=0)) ** 2).sum(axis=1).mean()
    else:
        centred = maps.cells.astype(np.float64) - maps.cells[split.train].astype(np.float64).mean(axis=(0, 1, 2))
        targets = np.einsum("nck,ncd->nkd", shares, centred[pictures, views])
        assert task.network.teller is not None
        weight, bias = (each.detach().numpy() for each in (task.network.teller.weight, task.network.teller.bias))
        told = tokens @ weight.T + bias
        norms = np.linalg.norm(told, axis=-1) * np.linalg.norm(targets, axis=-1)
        local = (1 - (told * targets).sum(axis=-1) / norms).mean()
    expected = contrast(maps.vectors[pictures, views], sentences, 0.2) + 0.7 * local
    assert found == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("cells", [True, False])
def test_it_learns_and_the_held_out_loss_is_of_the_validation_pictures(make: Make, cells: bool) -> None:
    task, _ = make(cells=cells)
    optimiser = torch.optim.AdamW(task.network.parameters(), 3e-3)
    rows = np.arange(len(task.lengths))
    before = [parameter.clone() for parameter in task.network.parameters()]
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        torch.manual_seed(0)
        loss = task.loss(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(before, task.network.parameters(), strict=True))
    task.network.eval()
    with torch.no_grad():
        state = torch.get_rng_state()
        assert task.held_out_loss() == task.held_out_loss() > 0
        assert torch.equal(state, torch.get_rng_state())


def test_maps_are_scaled_by_the_training_pictures_alone(make: Make) -> None:
    task, maps = make()
    train = split_rows([hashlib.sha256(bytes([row])).hexdigest() for row in range(PICTURES)]).train
    values = maps.features[train].astype(np.float64).transpose(2, 0, 1, 3, 4).reshape(CHANNELS, -1)
    np.testing.assert_allclose(task.network.learner.mean.numpy(), values.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(1 / task.network.learner.factor.numpy(), values.std(axis=1), rtol=1e-5)


def test_the_weight_of_the_alignment(make: Make) -> None:
    losses = []
    for weight in ("0", "1", "2"):
        task, _ = make(alignment=weight)
        torch.manual_seed(0)
        losses.append(float(task.loss(np.arange(8)).detach()))
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)
    assert losses[1] > losses[0]


def test_a_seed_gives_the_same_weights(make: Make) -> None:
    first, second = (make()[0].network.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_words_by_hand() -> None:
    words = describe_words(np.array([[3, 0], [-1, 0], [1, 0], [1, 2]], dtype=np.float32))
    assert words.mean.tolist() == [1.0, 0.5]
    assert words.spread == pytest.approx((4.25 + 4.25 + 0.25 + 2.25) / 4)
    assert words.norm == pytest.approx((1 + 5**0.5) / 2)


def test_figures_by_hand() -> None:
    heavy = np.eye(12, dtype=np.float32)
    sentences = np.roll(heavy, 1, axis=1)  # every sentence is nearest to the next picture's vector
    sentences[0] = heavy[0]
    figures: dict[str, Any] = measure_learner(sentences, heavy, heavy)
    # Behind the one wrong answer all others are equal, and equal ones do not come before the own one.
    assert figures == {
        "mean_cosine": pytest.approx(1 / 12), "picture_recall_at_1": pytest.approx(1 / 12),
        "picture_recall_at_10": 1.0, "embedding_recall_at_1": 1.0, "embedding_recall_at_10": 1.0,
        "held_out_pictures": 12.0,
    }  # fmt: skip


def test_recall_at_ten_by_hand() -> None:
    heavy = np.eye(30, dtype=np.float32)
    sentences = np.tile(np.linspace(1, 0, 30, dtype=np.float32), (30, 1))  # answers come in the order of their rows
    figures = measure_learner(sentences, heavy, sentences[:, ::-1].copy())
    assert figures["picture_recall_at_10"] == figures["embedding_recall_at_10"] == pytest.approx(10 / 30)
    assert figures["picture_recall_at_1"] == pytest.approx(1 / 30)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": "0"}, "temperature is '?0"),
        ({"views": "1.5"}, "expected an integer from 1 to 64"),
        ({"tokens": "3"}, "there is no parameter 'tokens'"),
        ({"shift": "mean"}, "there is no parameter 'shift'"),
    ],
)
def test_wrong_values(given: dict[str, str], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        check_values(ISA, given)


def test_defaults_lie_in_their_ranges() -> None:
    values = check_values(ISA, {name: str(each.default) for name, each in ISA.parameters.items()})
    assert values == {name: each.default for name, each in ISA.parameters.items()}
