"""The kit that remembers: the same answers as the kit below it, which is asked once; and every method over it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pocketlens._types import Float32s
from pocketlens.compose import METHODS
from pocketlens.concepts import Concepts
from pocketlens.encoder import TextEncoder
from pocketlens.lens import open_lens
from pocketlens_bench.evaluate import evaluate
from pocketlens_bench.evaluate_kit import CachedKit, has_part, open_kit
from pocketlens_bench.protocols import PROTOCOLS, read_task
from tests.bench.protocols.conftest import Folders

DIM, TOKENS = 4, 2


def seeded(*words: object) -> np.random.Generator:
    return np.random.default_rng(list(repr(words).encode()))


def unit(vectors: np.ndarray) -> Float32s:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)


class Asked:
    """A kit of made-up vectors that counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: Counter[object] = Counter()
        self.mean = np.zeros(DIM, dtype=np.float32)
        self.covariance = np.eye(DIM, dtype=np.float32)
        names = unit(seeded("names").standard_normal((5, DIM)))
        self.concepts = Concepts(tuple("abcde"), names, names.mean(axis=0), np.eye(2, DIM, dtype=np.float32))

    def encode_texts(self, texts: list[str]) -> Float32s:
        self.asked.update(texts)
        return unit(np.stack([seeded(text).standard_normal(DIM) for text in texts]))

    def encode_prompts(self, prompts: list[str], pseudo_tokens: Float32s) -> Float32s:
        self.asked.update((prompt, pseudo_tokens.tobytes()) for prompt in prompts)
        return unit(np.stack([seeded(prompt, pseudo_tokens.tolist()).standard_normal(DIM) for prompt in prompts]))

    def invert(self, recipe: str, vector: Float32s) -> Float32s:
        self.asked[recipe, vector.tobytes()] += 1
        return seeded(recipe, vector.tolist()).standard_normal((TOKENS, 3)).astype(np.float32)

    def invert_features(self, recipe: str, features: Float32s) -> Float32s:
        tokens = [seeded(recipe, each.tolist()).standard_normal((TOKENS, 3)) for each in features]
        return np.array(tokens, dtype=np.float32).reshape(-1, TOKENS, 3)

    def nearest(self, vector: Float32s, count: int) -> Float32s:
        raise AssertionError("the rows at hand are searched")


def test_the_answers_are_those_of_the_kit_below_which_is_asked_once() -> None:
    below, plain = Asked(), Asked()
    kit = CachedKit(below, np.eye(3, DIM, dtype=np.float32))
    for texts in (["one", "three", "one"], ["three"], ["fifteen", "one"]):
        assert np.array_equal(kit.encode_texts(texts), plain.encode_texts(texts))
    vectors = unit(seeded("queries").standard_normal((2, DIM)))
    for vector in (*vectors, *vectors):
        for recipe in ("lincir", "searle"):
            tokens = kit.invert(recipe, vector)
            assert np.array_equal(tokens, plain.invert(recipe, vector))
            for prompts in (["a $", "the $ that"], ["the $ that", "a $", "a $"]):
                assert np.array_equal(kit.encode_prompts(prompts, tokens), plain.encode_prompts(prompts, tokens))
    assert set(below.asked.values()) == {1}
    assert set(below.asked) == set(plain.asked)


def test_neighbours_are_exact_and_in_order(rng: np.random.Generator) -> None:
    rows = unit(rng.standard_normal((400, DIM)))
    rows[[7, 300]] = rows[7]
    kit = CachedKit(Asked(), rows)
    for query in (rows[7], rows[3], unit(rng.standard_normal(DIM))):
        order = np.argsort(-(rows @ query), kind="stable")
        for count in (5, 150, 3, 1_000):
            assert np.array_equal(kit.nearest(query, count), rows[order[:count]])


def test_parts_are_known_by_asking_for_them(coloured: Folders) -> None:
    assert has_part(Asked(), "concepts")
    assert has_part(Asked(), "inversion/lincir")
    assert has_part(Asked(), "inversion/isa")
    _, bundle = coloured("emojicir")
    with open_lens(bundle) as lens:
        kit = open_kit(bundle, lens)
        assert not has_part(kit, "concepts")
        assert not has_part(kit, "inversion/lincir")
        assert not has_part(kit, "inversion/isa")


class Full(Asked):
    """A kit with every part: the bundle's own text tower, made-up names and networks."""

    def __init__(self, encoder: TextEncoder, mean: Float32s, covariance: Float32s) -> None:
        super().__init__()
        self.mean, self.covariance = mean, covariance
        self._encoder = encoder

    def encode_texts(self, texts: list[str]) -> Float32s:
        return self._encoder.encode(texts)


@pytest.mark.parametrize("protocol", ["emojicir", "genecis"])
def test_every_method_can_be_evaluated(protocol: str, coloured: Folders) -> None:
    data, bundle = coloured(protocol)
    with open_lens(bundle, threads=1) as lens:
        kit = Full(lens.text_encoder(), lens.gallery.mean, lens.gallery.covariance)
        where: list[Path] = [data / "pictures", data]
        results = evaluate(read_task(PROTOCOLS[protocol], data), lens, kit, pictures=where)
    assert [summary.run.method for summary in results.summaries] == list(METHODS)
    assert not results.skipped
    assert all(not summary.run.failed for summary in results.summaries)
    expected = {"emojicir": 3 * len(METHODS), "genecis": 0}
    assert len(results.negative) == expected[protocol]
