"""Recipes over a tiny tower: what their losses are, worked out apart from them, and their parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketlens._types import Float32s
from pocketlens.compose.method import Value
from pocketlens.encoder import TextEncoder
from pocketlens.errors import BadQuery
from pocketlens.model import Model
from pocketlens.text import Tokenizer
from pocketlens_export.fit.data import Data
from pocketlens_export.fit.inversion import Phrases, invert_pictures
from pocketlens_export.fit.keywords import clean_caption, lexicon_tagger, mask_keywords
from pocketlens_export.fit.lincir import LINCIR, LinCir
from pocketlens_export.fit.memory import remember_in
from pocketlens_export.fit.pic2word import PIC2WORD, Pic2Word
from pocketlens_export.fit.prompts import PLAIN, Prompts
from pocketlens_export.fit.recipe import Recipe, Setup, check_values
from pocketlens_export.fit.recipes import RECIPES, TASKS
from pocketlens_export.fit.tower import TextTower

TEXTS = [
    f"{a} {b} {c}" for a in ("a red", "the blue", "green") for b in ("dog", "cat", "boat") for c in ("on street", "")
]
MakeSetup = Callable[..., Setup]


@pytest.fixture
def make_setup(exported: Path, tmp_path: Path) -> MakeSetup:
    """A function: a recipe's values as text to a setup over a tiny BERT."""

    def make(recipe: Recipe, **given: str) -> Setup:
        model = Model.open(exported / "tiny-bert")
        spec = model.manifest.text
        assert spec is not None and spec.tokenizer is not None
        values: dict[str, Value] = check_values(recipe, {"hidden": "16", **given})
        tower = TextTower(model, device=torch.device("cpu"))
        tokens = values["tokens"]
        assert isinstance(tokens, int)
        prompts = Prompts(tower, Tokenizer(model.file(spec.tokenizer), spec), tokens=tokens)
        pictures = TextEncoder(model).encode([text.replace("on street", "in the street") for text in TEXTS])
        data = Data(tuple(TEXTS[:-2]), tuple(TEXTS[-2:]), pictures[:-4], pictures[-4:], {})
        memory = remember_in(tmp_path / "arrays", salt="")
        return Setup(prompts, data, tower.dim, spec.token_dim, values, 0, lambda *stage: None, memory)

    return make


def encode(exported: Path, ids: Sequence[Sequence[int]], tokens: Float32s | None = None) -> Float32s:
    """Return embeddings by onnxruntime, each row alone."""
    encoder = TextEncoder(Model.open(exported / "tiny-bert"))
    rows = []
    for number, row in enumerate(ids):
        given = None if tokens is None else tokens[number : number + 1]
        rows.append(encoder.encode_ids(np.array([row], dtype=np.int64), given)[0])
    return np.stack(rows)


@pytest.mark.parametrize("tokens", [1, 2])
def test_prompts_take_a_pictures_tokens_at_every_place(exported: Path, make_setup: MakeSetup, tokens: int) -> None:
    setup = make_setup(LINCIR, tokens=str(tokens))
    prompts = ["a photo of $", "$ and $ on the street", "the cat"]
    rows = setup.prompts.rows(prompts)
    rng = np.random.default_rng(0)
    own = (0.1 * rng.standard_normal((3, tokens, setup.token_dim))).astype(np.float32)
    with torch.no_grad():
        found = setup.prompts.encode(rows.ids, torch.from_numpy(own)).numpy()
    plain = TextEncoder(Model.open(exported / "tiny-bert")).tokenizer
    for number, prompt in enumerate(prompts):
        ids = plain.prompt_ids(prompt.split("$"), tokens)
        repeated = np.tile(own[number], (2, 1))[np.newaxis]
        expected = encode(exported, [ids], repeated)[0]
        np.testing.assert_allclose(found[number], expected, atol=1e-5)
        assert rows.lengths[number] == len(ids)


def test_texts_are_encoded_as_the_runtime_does(exported: Path, make_setup: MakeSetup) -> None:
    texts = ["a red dog", "", "it costs 5 $", "the " * 100]
    found = make_setup(LINCIR).prompts.encode_texts(texts, progress=lambda *stage: None)
    np.testing.assert_allclose(found, TextEncoder(Model.open(exported / "tiny-bert")).encode(texts), atol=1e-5)


def test_lincirs_loss_apart_from_it(exported: Path, make_setup: MakeSetup) -> None:
    setup = make_setup(LINCIR, noise="0.8", tagger="lexicon")
    task = LinCir(setup)
    task.network.eval()
    rows = np.array([0, 5, 7])
    torch.manual_seed(11)
    found = float(task.loss(rows).detach())

    torch.manual_seed(11)
    amounts, normal = torch.rand(3, 1).numpy(), torch.randn(3, setup.dim).numpy()
    tokenizer = TextEncoder(Model.open(exported / "tiny-bert")).tokenizer
    texts = [clean_caption(TEXTS[row]) for row in rows]
    targets = encode(exported, tokenizer.ids(texts))
    noisy = targets + amounts * normal * 0.8 / np.sqrt(setup.dim)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    with torch.no_grad():
        tokens = task.network.of_texts(torch.from_numpy(noisy.astype(np.float32))).numpy()
    masked = [mask_keywords(text, lexicon_tagger(), seed=0) for text in texts]
    ids = [tokenizer.prompt_ids(text.split("$"), 1) for text in masked]
    composed = encode(exported, ids, np.tile(tokens, (1, 3, 1)))
    assert found == pytest.approx(float(((composed - targets) ** 2).sum(axis=1).mean()), rel=1e-4)


@pytest.mark.parametrize("shift", ["none", "mean"])
def test_pic2words_loss_apart_from_it(exported: Path, make_setup: MakeSetup, shift: str) -> None:
    setup = make_setup(PIC2WORD, scale="20", shift=shift)
    task = Pic2Word(setup)
    task.network.eval()
    rows = np.array([1, 2, 6, 9])
    found = float(task.loss(rows).detach())

    pictures = setup.data.pictures[rows]
    given = pictures
    if shift == "mean":
        texts = encode(exported, TextEncoder(Model.open(exported / "tiny-bert")).tokenizer.ids(setup.data.texts))
        given = pictures - (setup.data.pictures.mean(axis=0) - texts.mean(axis=0))
        given = given / np.linalg.norm(given, axis=1, keepdims=True)
    with torch.no_grad():
        tokens = task.network.of_texts(torch.from_numpy(given)).numpy()
    ids = setup.prompts.rows([PLAIN]).ids[0].tolist()
    logits = 20 * pictures @ encode(exported, [ids] * 4, tokens).T
    both = [np.log(np.exp(each).sum(axis=1)) - np.diag(each) for each in (logits, logits.T)]
    assert found == pytest.approx(float(np.mean(both)), rel=1e-4)


def test_inversion_finds_tokens_that_mean_the_picture(make_setup: MakeSetup) -> None:
    recipe = RECIPES["searle"]
    setup = make_setup(recipe)
    texts = list(setup.data.texts)
    rows = setup.prompts.rows([mask_keywords(text, lexicon_tagger(), seed=0) for text in texts])
    pictures = setup.data.pictures[:6]
    phrases = Phrases(rows, setup.encode(texts), pictures)
    found = {
        steps: invert_pictures(setup, pictures, phrases, steps=steps, batch=4) for steps in (1, 40)
    }  # two batches, the second smaller
    ids = np.repeat(setup.prompts.rows([PLAIN]).ids, 6, axis=0)
    with torch.no_grad():
        cosine = {
            steps: (setup.prompts.encode(ids, torch.from_numpy(tokens)).numpy() * pictures).sum(axis=1).mean()
            for steps, tokens in found.items()
        }
    assert found[40].shape == (6, 1, setup.token_dim)
    assert 1 - cosine[40] < 0.7 * (1 - cosine[1])
    assert np.array_equal(found[40], invert_pictures(setup, pictures, phrases, steps=40, batch=4))


def test_phrases_are_those_nearest_to_a_picture(make_setup: MakeSetup) -> None:
    setup = make_setup(RECIPES["searle"])
    texts = [f"text {number}" for number in range(40)]
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((40, setup.dim)).astype(np.float32)
    phrases = Phrases(setup.prompts.rows(texts), targets, targets[:3])
    for number in range(3):
        expected = np.argsort(-(targets @ targets[number]))[:15]
        assert set(phrases.nearest[number].tolist()) == set(expected.tolist())


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_learns_and_measures(make_setup: MakeSetup, name: str) -> None:
    recipe = RECIPES[name]
    few = {"inversion_steps": "3", "pictures": "8"} if name == "searle" else {}
    task = TASKS[name](make_setup(recipe, dropout="0", **few))
    optimiser = torch.optim.AdamW(task.network.parameters(), 3e-3)
    rows = np.arange(len(task.lengths))
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        torch.manual_seed(0)  # the same noise each time
        loss = task.loss(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    task.network.eval()
    with torch.no_grad():
        assert task.held_out_loss() == task.held_out_loss() > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nois": "1"}, r"lincir: there is no parameter 'nois' \(did you mean noise\?\); known: hidden, tokens"),
        ({"noise": "loud"}, "noise is 'loud', expected a number from 0 to 10"),
        ({"noise": "-1"}, "expected a number from 0 to 10"),
        ({"noise": "nan"}, "expected a number from 0 to 10"),
        ({"tokens": "1.5"}, "tokens is 1.5, expected an integer from 1 to 16"),
        ({"decay": "linear"}, "decay is 'linear', expected one of constant, cosine"),
    ],
)
def test_wrong_values(given: dict[str, str], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        check_values(LINCIR, given)


def test_values_default_and_keep_their_kinds() -> None:
    values = check_values(LINCIR, {"tokens": "2", "noise": "1"})
    assert values["tokens"] == 2 and type(values["tokens"]) is int
    assert type(values["noise"]) is float
    assert values["decay"] == "constant"
    assert set(values) == set(LINCIR.parameters)


def test_defaults_lie_in_their_ranges() -> None:
    for recipe in RECIPES.values():
        for name, parameter in recipe.parameters.items():
            given = check_values(recipe, {name: str(parameter.default)})
            assert given[name] == parameter.default and type(given[name]) is type(parameter.default)
            assert parameter.whole == isinstance(parameter.default, int)


def test_a_shift_needs_both_kinds(make_setup: MakeSetup) -> None:
    import dataclasses

    setup = make_setup(LINCIR, shift="mean")
    empty = dataclasses.replace(setup, data=dataclasses.replace(setup.data, pictures=setup.data.pictures[:0]))
    with pytest.raises(BadQuery, match="needs both texts and pictures"):
        LinCir(empty)


def test_memory_makes_an_array_once_and_again_when_its_file_is_spoilt(tmp_path: Path) -> None:
    calls = []

    def make() -> Float32s:
        calls.append(1)
        return np.arange(3, dtype=np.float32)

    memory = remember_in(tmp_path / "arrays", salt="a")
    assert memory(["x", "y"], make).tolist() == memory(["x", "y"], make).tolist() == [0, 1, 2]
    assert len(calls) == 1
    memory(["xy"], make)
    remember_in(tmp_path / "arrays", salt="b")(["x", "y"], make)
    assert len(calls) == 3
    for file in (tmp_path / "arrays").iterdir():
        file.write_bytes(file.read_bytes()[:-4])
    assert memory(["x", "y"], make).tolist() == [0, 1, 2]
    assert len(calls) == 4
