"""What a recipe is: defaults, parameters, what data it needs, and the function that makes a task of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from pocketlens._types import Float32s, Int64s
from pocketlens.compose.method import Method, Parameter, Value, Values
from pocketlens.compose.values import check_values as values_of
from pocketlens.errors import BadQuery
from pocketlens_export.fit.data import Data, Progress
from pocketlens_export.fit.networks import Network
from pocketlens_export.fit.prompts import Prompts

Memory = Callable[[Sequence[object], Callable[[], Float32s]], Float32s]
"""Returns the array that depends on the given things and the tower alone, made unless an earlier run left it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a recipe works with.

    Attributes:
        prompts: the frozen text tower behind its tokenizer.
        data: what to train on.
        dim, token_dim: of the tower.
        values: of the recipe's parameters.
        seed: of everything random.
        progress: told of what takes long.
        memory: keeps what takes long, from one training to the next.
    """

    prompts: Prompts
    data: Data
    dim: int
    token_dim: int
    values: Values
    seed: int
    progress: Progress
    memory: Memory

    def number(self, name: str) -> float:
        """Return a parameter's number."""
        value = self.values[name]
        assert isinstance(value, float | int)
        return float(value)

    def count(self, name: str) -> int:
        """Return a parameter's number as an integer."""
        return round(self.number(name))

    def encode(self, texts: Sequence[str]) -> Float32s:
        """Return unit embeddings of texts, float32 (n, dim), from memory where they are there."""
        return self.memory(["texts", *texts], lambda: self.prompts.encode_texts(texts, progress=self.progress))

    def put(self, array: Float32s | Int64s) -> Tensor:
        """Return an array on the tower's device."""
        return torch.from_numpy(array).to(self.prompts.device)


class Task(Protocol):
    """A network in training."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    def lengths(self) -> Int64s:
        """Tokens of every training row, int64 (count,)."""

    def loss(self, rows: Int64s) -> Tensor:
        """Return the loss of training rows; draws from torch's generator."""

    def held_out_loss(self) -> float:
        """Return the loss of the rows that are never trained on, the network in evaluation mode, always the same."""


@dataclass(frozen=True, slots=True)
class Optimiser:
    """AdamW's parameters beside the rate."""

    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to train an inversion network, told of; what it does is its task's.

    Attributes:
        name, about, source: for people.
        needs: kinds of data that it cannot do without.
        steps, batch: defaults.
        warm_up: steps over which the rate rises.
        optimiser: weight decay, betas and epsilon of AdamW.
        parameters: by name.
        departures: where a default is not its paper's, and why; a line each.
    """

    name: str
    about: str
    source: str
    needs: tuple[Literal["texts", "pictures"], ...]
    steps: int
    batch: int
    warm_up: int
    optimiser: Optimiser
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    departures: Sequence[str] = ()


def common_parameters(*, hidden: int, dropout: float, rate: float) -> dict[str, Parameter]:
    """Return the parameters that all recipes have."""
    return {
        "hidden": Parameter(hidden, "width of the hidden layers; 0: four times the embedding", 0, 16_384, whole=True),
        "tokens": Parameter(1, "pseudo-tokens of a picture", 1, 16, whole=True),
        "dropout": Parameter(dropout, "share of hidden values dropped in training", 0.0, 0.9),
        "rate": Parameter(rate, "learning rate", 1e-7, 1.0),
        "decay": Parameter("constant", "what the rate does after the warm-up", choices=("constant", "cosine")),
        "shift": Parameter("none", "what is taken from a picture's vector first", choices=("none", "mean")),
        "precision": Parameter("float32", "arithmetic of the tower in training", choices=("float32", "bfloat16")),
    }


def check_values(recipe: Recipe, given: Mapping[str, str]) -> dict[str, Value]:
    """Return a value for every parameter of a recipe: those given as text, the others' defaults.

    Raises:
        BadQuery: a parameter is unknown, or its value is not one it can have.
    """
    # A recipe has what is looked at of a method: a name and parameters.
    values = values_of(cast(Method, recipe), {name: _number_or_text(text) for name, text in given.items()})
    return {name: int(value) if recipe.parameters[name].whole else value for name, value in values.items()}


def _number_or_text(text: str) -> Value:
    try:
        return float(text)
    except ValueError:
        return text


def make_network(setup: Setup, *, activation: Literal["gelu", "relu"]) -> Network:
    """Return a recipe's network with seeded weights, on the tower's device.

    Raises:
        BadQuery: a shift is asked for, but there are not both texts and pictures.
    """
    torch.manual_seed(setup.seed)
    network = Network(
        setup.dim,
        setup.token_dim,
        hidden=setup.count("hidden") or 4 * setup.dim,
        tokens=setup.count("tokens"),
        activation=activation,
        dropout=setup.number("dropout"),
        shift=_shift(setup) if setup.values["shift"] == "mean" else None,
    )
    return network.to(setup.prompts.device)


def _shift(setup: Setup) -> Float32s:
    """Return the mean picture minus the mean text, float32 (dim,): the modality gap (arXiv 2203.02053)."""
    pictures, texts = setup.data.pictures, setup.data.texts
    if len(pictures) == 0 or len(texts) == 0:
        raise BadQuery("shift is 'mean', which needs both texts and pictures; give --data of each kind")
    vectors = setup.encode(texts[:_SHIFT_TEXTS])
    difference: Float32s = (pictures.mean(axis=0) - vectors.mean(axis=0)).astype("float32")
    return difference


_SHIFT_TEXTS = 4_096  # a mean of more changes little
