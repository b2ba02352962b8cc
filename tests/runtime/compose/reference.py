"""Every method a second time: float64, row by row, straight from the papers' formulas. Slow and plain."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from pocketlens.compose import Negative, Query, Text
from tests.runtime.compose.kit import ArrayKit

Vector = np.ndarray
Values = Mapping[str, float | str]


def n(vector: Vector) -> Vector:
    return vector / math.sqrt(sum(x * x for x in vector))


def texts_vector(vectors: Vector, texts: tuple[Text, ...]) -> Vector:
    return n(np.sum([text.weight * n(v.astype(np.float64)) for text, v in zip(texts, vectors, strict=True)], axis=0))


def best_below(a: float, b: float, r: float, harris: float) -> float:
    """Return BASIC's score of the best of many rows that match no better in either respect; 0 without any."""
    if a == 0 or b == 0:
        return 0.0
    shares = np.geomspace(1e-5, 1, 6_000)
    x, y = np.concatenate([a * shares, np.full(6_000, a)]), np.concatenate([np.full(6_000, b), b * shares])
    harmony = (x * y - harris * (x + y) ** 2) / (x * y)
    return float((x ** (2 / (1 + r)) * y ** (2 * r / (1 + r)) * harmony).max())


class Reference:
    """Scores of one query over a kit's gallery, by method name."""

    def __init__(self, query: Query, kit: ArrayKit, values: Values, negative: Negative | None = None) -> None:
        self.query, self.kit, self.values, self.negative = query, kit, values, negative
        self.rows = kit.rows.astype(np.float64)
        self.mu = self.rows.mean(axis=0)
        assert query.image is not None
        self.v = n(query.image.astype(np.float64))
        self.t = texts_vector(kit.encode_texts([text.text for text in query.texts]), query.texts)
        self.r = sum(text.weight for text in query.texts) / query.image_weight

    def score(self, name: str) -> Vector:
        recipe = name.removeprefix("pdv-")
        if recipe in ("pic2word", "searle", "lincir", "isa"):
            vector = self.walked(*self.sentences(recipe)) if name != recipe else self.beyond(self.sentences(recipe)[1])
            return self.by_vectors([vector], lambda s, _: s[0])
        return np.asarray(getattr(self, name.replace("-", "_"))())

    def by_vectors(self, vectors: list[Vector], fuse, centred: bool = False) -> Vector:  # type: ignore[no-untyped-def]
        """Return fuse(the vectors' scores with a row, the row) for every row, after what is not wanted."""
        strength, level = float(self.values["negative_strength"]), self.values["negative_level"]
        if self.negative is not None and level == "vector":
            mu_t = self.kit.concepts.vectors.astype(np.float64).mean(axis=0)
            pairs = list(zip(self.negative.weights, self.negative.vectors.astype(np.float64), strict=True))
            away = strength * sum(weight * (vector - mu_t) for weight, vector in pairs)
            vectors = [np.linalg.norm(q) * n(n(q) - away) for q in vectors]
        result = []
        for g in self.rows:
            loss = 0.0
            if self.negative is not None and level == "score":
                for weight, vector in zip(self.negative.weights, self.negative.vectors.astype(np.float64), strict=True):
                    z = (vector @ g - vector @ self.mu) / self.deviation(vector)
                    loss += strength * weight * max(0.0, z - float(self.values["negative_floor"]))
            origin = self.mu if centred else 0.0
            result.append(fuse([q @ (g - origin) - self.deviation(q) * loss for q in vectors], vectors))
        return np.array(result)

    def deviation(self, vector: Vector) -> float:
        return float(np.std(self.rows @ vector))

    def image(self) -> Vector:
        return self.by_vectors([self.v], lambda s, _: s[0])

    def text(self) -> Vector:
        return self.by_vectors([self.t], lambda s, _: s[0])

    def sum(self) -> Vector:
        return self.by_vectors([n(self.v + self.r * self.t)], lambda s, _: s[0])

    def share(self) -> float:
        a = float(self.values["text_share"])
        return 1 / (1 + math.exp(-(math.log(a / (1 - a)) + math.log(self.r))))

    def slerp(self) -> Vector:
        theta, a = math.acos(self.v @ self.t), self.share()
        q = math.sin((1 - a) * theta) / math.sin(theta) * self.v + math.sin(a * theta) / math.sin(theta) * self.t
        return self.by_vectors([n(q)], lambda s, _: s[0])

    def multiplied(self, s: list[float]) -> float:
        return float(max(0, s[0]) ** (2 / (1 + self.r)) * max(0, s[1]) ** (2 * self.r / (1 + self.r)))

    def product(self) -> Vector:
        return self.by_vectors([self.v, self.t], lambda s, _: self.multiplied(s))

    def centred_product(self) -> Vector:
        vectors = [self.v - self.mu, self.t - self.mu_t()]
        return self.by_vectors(vectors, lambda s, _: self.multiplied(s), centred=True)

    def mu_t(self) -> Vector:
        return np.asarray(self.kit.concepts.vectors.astype(np.float64).mean(axis=0))

    def basic(self) -> Vector:
        subspace = self.kit.concepts.subspace.astype(np.float64)
        projection = sum(np.outer(axis, axis) for axis in subspace)
        start = projection @ (self.v - self.mu)
        centred = sorted((g - self.mu for g in self.rows), key=lambda g: -(start @ g))
        joined = [(1.0, start)] + [(start @ g, g) for g in centred[: int(self.values["expansion"])]]
        total = sum(math.exp(0.1 * similarity) for similarity, _ in joined)
        image = projection @ sum(math.exp(0.1 * similarity) / total * g for similarity, g in joined)

        def fuse(s: list[float], vectors: list[Vector]) -> float:
            least = [float(self.values["floor"]) * self.deviation(q) for q in vectors]
            a, b = (max(0.0, (score + low) / low) for score, low in zip(s, least, strict=True))
            return best_below(a, b, self.r, float(self.values["harris"]))

        return self.by_vectors([image, self.t - self.mu_t()], fuse, centred=True)

    def weicom(self) -> Vector:
        def fuse(s: list[float], vectors: list[Vector]) -> float:
            z = [(score - q @ self.mu) / self.deviation(q) for score, q in zip(s, vectors, strict=True)]
            a, b = (0.5 * (1 + math.erf(x / math.sqrt(2))) for x in z)
            return (1 - self.share()) * a + self.share() * b - 1

        return self.by_vectors([self.v, self.t], fuse)

    def weimocir(self) -> Vector:
        a, b = self.share(), float(self.values["caption_share"])
        q = n((1 - a) * self.v + a * self.t)
        names = self.kit.concepts.vectors.astype(np.float64)
        captions = []
        for g in self.rows:
            nearest = sorted(names, key=lambda c: -(c @ g))[:3]
            captions.append(sum(q @ c for c in nearest) / 3)
        return (1 - b) * self.by_vectors([q], lambda s, _: s[0]) + b * np.array(captions)

    def names(self) -> list[tuple[str, float]]:
        kappa = int(self.values["neighbours"])
        near = sorted(self.rows, key=lambda g: -(self.v @ g))
        proxies = near[:kappa] if self.v @ near[0] >= 0.98 else [self.v, *near[: kappa - 1]]
        counts: Counter[str] = Counter()
        sums: dict[str, float] = defaultdict(float)
        for proxy in proxies:
            shown = proxy - (self.mu if self.values["centred"] == "yes" else 0)
            similar = [
                (c @ shown, name) for name, c in zip(self.kit.concepts.names, self.kit.concepts.vectors, strict=True)
            ]
            for similarity, name in sorted(similar, reverse=True)[: int(self.values["names_per_picture"])]:
                counts[name] += 1
                sums[name] += similarity
        kept = sorted(counts, key=lambda name: (-counts[name], -sums[name]))[: int(self.values["names_kept"])]
        return [(name, counts[name] / max(counts.values())) for name in kept]

    def freedom(self) -> Vector:
        names, encode = self.names(), self.kit.encode_texts
        by_text = [
            n(sum(weight * encode([f"{name} {text.text}"])[0].astype(np.float64) for name, weight in names))
            for text in self.query.texts
        ]
        return self.by_vectors([self.beyond(texts_vector(np.array(by_text), self.query.texts))], lambda s, _: s[0])

    def sentences(self, recipe: str) -> tuple[Vector, Vector]:
        ends = {"that": "a photo of $ that ", "comma": "a photo of $ , ", "with": "a photo of $ with ", "plain": "$ "}
        template = str(self.values["template"])
        tokens = self.kit.invert(recipe, self.v.astype(np.float32)) if recipe != "isa" else self.isa_tokens()
        plain = self.kit.encode_prompts(["$" if template == "plain" else "a photo of $"], tokens)[0]
        texts = [text.text.replace("$", " ") for text in self.query.texts]
        edited = [self.kit.encode_prompts([ends[template] + text], tokens)[0] for text in texts]
        return plain.astype(np.float64), texts_vector(np.array(edited), self.query.texts)

    def isa_tokens(self) -> np.ndarray:
        each = [self.kit.invert_features("isa", seen.values[np.newaxis])[0] for seen in self.query.features]
        total = sum(seen.weight for seen in self.query.features)
        weighted = [seen.weight / total * tokens for seen, tokens in zip(self.query.features, each, strict=True)]
        return np.asarray(np.sum(weighted, axis=0))

    def pdv_names(self) -> Vector:
        plain = "a photo of " + ", ".join(name for name, _ in self.names())
        edited = self.kit.encode_texts([f"{plain} that {text.text}" for text in self.query.texts])
        start = self.kit.encode_texts([plain])[0].astype(np.float64)
        return self.by_vectors([self.walked(start, texts_vector(edited, self.query.texts))], lambda s, _: s[0])

    def walked(self, start: Vector, end: Vector) -> Vector:
        by_text = start + self.r * float(self.values["text_strength"]) * (end - start)
        by_image = self.v + self.r * float(self.values["image_strength"]) * (end - start)
        b = float(self.values["balance"])
        return n(
            {"text": by_text, "image": by_image, "fused": (1 - b) * by_image + b * by_text}[
                str(self.values["direction"])
            ]
        )

    def beyond(self, q: Vector) -> Vector:
        more_text, more_image = max(0, self.r - 1), max(0, 1 / self.r - 1)
        return n(q + more_text * self.t + more_image * self.v)
