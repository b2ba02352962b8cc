"""A gallery, a vocabulary and towers worked out from arrays, and scores of a composed query over that gallery."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pocketlens.compose import METHODS, Composed, FeatureMap, Negative, Query, Scores, Text, compose
from pocketlens.concepts import Concepts
from pocketlens.errors import MissingPart
from tests.colours import unit

DIM = 6


class ArrayKit:
    """Gives a text the vector that is known for it, or one drawn by its checksum; notes what it is asked."""

    def __init__(
        self,
        rows: np.ndarray,
        concepts: Concepts | None = None,
        known: Mapping[str, Sequence[float] | np.ndarray] | None = None,
        recipes: Sequence[str] = ("pic2word", "searle", "lincir", "isa"),
    ) -> None:
        self.rows = np.asarray(rows, dtype=np.float32)
        self.known = dict(known or {})
        self.recipes = recipes
        self.encoded: list[str] = []
        self.touched: set[str] = set()
        self._concepts = concepts

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self.rows.mean(axis=0))

    @property
    def covariance(self) -> np.ndarray:
        return np.cov(self.rows.astype(np.float64).T, bias=True).astype(np.float32)

    @property
    def concepts(self) -> Concepts:
        if self._concepts is None:
            raise MissingPart("no vocabulary")
        self.touched.add("concepts")
        return self._concepts

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        assert isinstance(texts, list)
        self.encoded += texts
        return np.stack([self._vector(text) for text in texts])

    def encode_prompts(self, prompts: list[str], pseudo_tokens: np.ndarray) -> np.ndarray:
        assert all("$" in prompt for prompt in prompts)
        self.encoded += prompts
        shift = np.zeros(self.rows.shape[1], dtype=np.float32)
        shift[: pseudo_tokens.shape[1]] = pseudo_tokens.sum(axis=0)
        return np.stack([self._vector(p) if p in self.known else unit(self._vector(p) + shift) for p in prompts])

    def invert(self, recipe: str, vector: np.ndarray) -> np.ndarray:
        if recipe not in self.recipes:
            raise MissingPart(f"no network {recipe}")
        self.touched.add(f"inversion/{recipe}")
        return np.stack([vector[:2], vector[1:3] * len(recipe)])

    def invert_features(self, recipe: str, features: np.ndarray) -> np.ndarray:
        if recipe not in self.recipes:
            raise MissingPart(f"no network {recipe}")
        self.touched.add(f"inversion/{recipe}")
        means = features.mean(axis=(2, 3))  # (n, c)
        return np.stack([means[:, :2], means[:, 1:3] * len(recipe)], axis=1)  # (n, 2, 2)

    def nearest(self, vector: np.ndarray, count: int) -> np.ndarray:
        return self.rows[np.argsort(-(self.rows @ vector), kind="stable")[:count]]

    def _vector(self, text: str) -> np.ndarray:
        if text in self.known:
            return np.asarray(self.known[text], dtype=np.float32)
        seed = zlib.crc32(text.encode())
        return unit(np.random.default_rng(seed).standard_normal(self.rows.shape[1:]) + 0.3)


def vocabulary(vectors: np.ndarray, names: Sequence[str] | None = None, subspace: np.ndarray | None = None) -> Concepts:
    vectors = np.asarray(vectors, dtype=np.float32)
    names = tuple(names or [f"thing {i}" for i in range(len(vectors))])
    whole = np.eye(vectors.shape[1], dtype=np.float32)
    return Concepts(names, vectors, vectors.mean(axis=0), whole if subspace is None else subspace.astype(np.float32))


def random_kit(seed: int, *, rows: int = 40, names: int = 30) -> ArrayKit:
    """Return a kit whose pictures, and whose names, lie in a cone each, as those of real towers do."""
    rng = np.random.default_rng(seed)
    gap = rng.standard_normal((2, DIM))
    subspace, _ = np.linalg.qr(rng.standard_normal((DIM, 4)))
    concepts = vocabulary(unit(rng.standard_normal((names, DIM)) + gap[0]), subspace=subspace.T)
    return ArrayKit(unit(rng.standard_normal((rows, DIM)) + gap[1]), concepts)


def random_query(seed: int, *texts: Text, image_weight: float = 1.0) -> Query:
    """Return a query of two pictures, the second three times as heavy as the first."""
    gap = np.random.default_rng(seed).standard_normal((2, DIM))  # the first numbers that random_kit draws
    image = unit(np.random.default_rng(seed + 1_000).standard_normal(DIM) + gap[1])
    maps = np.random.default_rng(seed + 3_000).standard_normal((2, 3, 2, 2)).astype(np.float32)
    features = (FeatureMap(maps[0], image_weight / 4), FeatureMap(maps[1], image_weight * 3 / 4))
    return Query(image, texts or (Text("at night"),), image_weight, features)


def random_negative(seed: int, count: int = 2) -> Negative:
    rng = np.random.default_rng(seed + 2_000)
    return Negative(unit(rng.standard_normal((count, DIM))), rng.uniform(0.2, 1, count).astype(np.float32))


def scores_over(composed: Composed, kit: ArrayKit, rows: np.ndarray | None = None) -> Scores:
    """Return the scores of a composed query with some rows (by default all); statistics are always the gallery's."""
    chosen = kit.rows if rows is None else kit.rows[rows]
    vectors = composed.vectors
    variances = np.einsum("pi,ij,pj->p", vectors, kit.covariance, vectors)
    deviations = np.sqrt(np.maximum(variances, 0)).astype(np.float32)
    return Scores(vectors @ chosen.T, vectors @ kit.mean, deviations, lambda wanted: chosen[wanted])


def ranked(
    name: str,
    query: Query,
    kit: ArrayKit,
    values: Mapping[str, float | str] | None = None,
    negative: Negative | None = None,
) -> np.ndarray:
    """Return the score of every row of the gallery, float32 (n,)."""
    composed = compose(query, negative, kit, METHODS[name], values)
    scores = scores_over(composed, kit)
    fused = scores.values[0] if composed.fuse is None else composed.fuse(scores)
    assert fused.dtype == np.float32 and fused.shape == (len(kit.rows),)
    assert composed.vectors.dtype == np.float32 and np.isfinite(fused).all()
    if composed.fuse is None:
        assert composed.vectors.shape == (1, kit.rows.shape[1])
        np.testing.assert_allclose(np.linalg.norm(composed.vectors), 1, atol=1e-6)
    return fused


def reweighted(query: Query, factor: float) -> Query:
    """Return a query all of whose weights are multiplied by `factor`."""
    texts = tuple(replace(text, weight=text.weight * factor) for text in query.texts)
    features = tuple(replace(each, weight=each.weight * factor) for each in query.features)
    return replace(query, texts=texts, image_weight=query.image_weight * factor, features=features)
