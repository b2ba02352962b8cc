"""What a composition method is: a record of a formula, what it needs, its parameters, and the function that applies it.

A method turns the encoded parts of a query into one vector, or into several vectors whose scores are fused. It touches
neither files nor graphs: everything it may ask for is in `Kit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from pocketlens._types import Float32s, Int64s
from pocketlens.concepts import Concepts

Value: TypeAlias = float | str
Values: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A strength or a choice of a method.

    Attributes:
        default: a number from `least` to `most`, or one of `choices`.
        about: what it does, in one line.
        least, most: the range of a number.
        choices: the values of a choice; empty for a number.
        whole: the number must be an integer.
    """

    default: Value
    about: str
    least: float = 0.0
    most: float = 1.0
    choices: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A text part of a query; a negative one's weight is given without its sign."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """What the image tower gives of one picture beside its vector: float32 (channels, height, width)."""

    values: Float32s
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Query:
    """The wanted parts of a query, the pictures already encoded and merged.

    Attributes:
        image: unit vector float32 (dim,) of the weighted pictures, or None without one.
        texts: what is asked for in words; may be empty.
        image_weight: sum of the pictures' weights, 0.0 without one.
        features: of each picture; empty unless the method needs them.
    """

    image: Float32s | None
    texts: tuple[Text, ...]
    image_weight: float = 1.0
    features: tuple[FeatureMap, ...] = ()

    @property
    def text_weight(self) -> float:
        """Sum of the texts' weights, 0.0 without one."""
        return sum(text.weight for text in self.texts)


class Kit(Protocol):
    """What a method may ask for. Vectors are unit vectors of the gallery's space unless said otherwise."""

    @property
    def mean(self) -> Float32s:
        """Mean of the gallery's vectors, float32 (dim,), not of unit length."""

    @property
    def covariance(self) -> Float32s:
        """Covariance of the gallery's vectors, float32 (dim, dim)."""

    @property
    def concepts(self) -> Concepts:
        """The model's vocabulary. Raises MissingPart when it has none."""

    def encode_texts(self, texts: list[str]) -> Float32s:
        """Return unit vectors, float32 (n, dim)."""

    def encode_prompts(self, prompts: list[str], pseudo_tokens: Float32s) -> Float32s:
        """Return unit vectors, float32 (n, dim), of prompts whose every `$` stands for pseudo-tokens, (p, token_dim).

        A `$` of the user's own must have been taken out of the prompts before.
        """

    def invert(self, recipe: str, vector: Float32s) -> Float32s:
        """Return pseudo-tokens, float32 (p, token_dim), of a unit vector. Raises MissingPart without that network."""

    def invert_features(self, recipe: str, features: Float32s) -> Float32s:
        """Return pseudo-tokens, float32 (n, p, token_dim), of features, float32 (n, channels, height, width).

        Raises MissingPart without that network, or where the image tower gives no features, and EncoderMismatch where
        it gives others than the network was trained on.
        """

    def nearest(self, vector: Float32s, count: int) -> Float32s:
        """Return the gallery's vectors nearest to a vector, float32 (at most count, dim), best first."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Inner products of a composed query's p vectors with n rows of the gallery.

    Attributes:
        values: float32 (p, n).
        means, deviations: float32 (p,), over the whole gallery, in closed form.
        rows: float32 (n, dim) of the rows at the given positions among the n.
    """

    values: Float32s
    means: Float32s
    deviations: Float32s
    rows: Callable[[Int64s], Float32s]


Fuse: TypeAlias = Callable[[Scores], Float32s]
"""From scores of p vectors to one score a row, float32 (n,); higher is nearer."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A composed query.

    Attributes:
        vectors: float32 (p, dim): what the gallery's rows are compared with. With `fuse` None p is 1, and the vector is
            of unit length; with `fuse` they may have any length.
        fuse: makes one score of p; None: the score is the cosine.
        names: what the picture was taken for, with weights, where a method names it.
        negatives: how many of the vectors, the last ones, stand for what is not wanted.
    """

    vectors: Float32s
    fuse: Fuse | None = None
    names: tuple[tuple[str, float], ...] = ()
    negatives: int = 0


@dataclass(frozen=True, slots=True)
class Method:
    """A way to compose a query.

    Attributes:
        name: how it is asked for.
        about: what it does, in one line.
        formula: in the notation of docs/composition.md.
        source: the paper or code that it comes from.
        needs: of "image", "features" and "text" (parts of the query), "concepts", "inversion/<recipe>".
        text_passes: texts encoded for a query of one text.
        parameters: by name.
        compose: applies it; gets a value for every parameter, already checked.
    """

    name: str
    about: str
    formula: str
    source: str
    needs: tuple[str, ...]
    text_passes: int
    compose: Callable[[Query, Kit, Values], Composed]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
