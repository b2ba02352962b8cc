"""The ways to distil: for each loss its defaults, its parameters, and the function of a batch that is made smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pocketlens.compose.method import Parameter, Value
from pocketlens_export.distill.losses import csd, d3, fitnet, raml, rop
from pocketlens_export.fit.recipe import Optimiser, Recipe

Values = Mapping[str, Value]
Loss = Callable[[Tensor, Tensor, Values], Tensor]
"""Of student and teacher, float32 (b, dim) of unit length, and a value for every parameter."""


@dataclass(frozen=True, slots=True)
class Distillation:
    """A recipe and its loss, without the anchor."""

    recipe: Recipe
    loss: Loss


def total_loss(chosen: Distillation, student: Tensor, teacher: Tensor, values: Values) -> Tensor:
    """Return the recipe's loss of a batch and, where it has one, its anchor: `anchor` times the loss of `fitnet`.

    A relational loss says where a picture lies among others; the anchor says where it lies.
    """
    loss = chosen.loss(student, teacher, values)
    anchor = float(values.get("anchor", 0))
    return loss + anchor * fitnet(student, teacher) if anchor else loss


_COMMON = {
    "rate": Parameter(1e-3, "learning rate", 1e-7, 1.0),
    "decay": Parameter("cosine", "what the rate does after the warm-up", choices=("constant", "cosine")),
    "precision": Parameter("float32", "arithmetic of the light tower in training", choices=("float32", "bfloat16")),
    "crop": Parameter(0.35, "least share of a picture's area that a view shows", 0.01, 1.0),
    "jitter": Parameter(0.25, "most that a view's brightness, contrast and saturation change by", 0.0, 0.9),
    "pull": Parameter(0.75, "with --same, how far a target is drawn to the same thing's other pictures", 0.0, 1.0),
    "background": Parameter(0.5, "share of the views of transparent pictures that get another background", 0.0, 1.0),
}


def _anchored(weight: float) -> dict[str, Parameter]:
    return {**_COMMON, "anchor": Parameter(weight, "weight of the squared distance of pairs beside it", 0.0, 1e4)}


def _neighbours(k: int, about: str) -> Parameter:
    return Parameter(k, f"nearest pictures of the batch that {about}", 2, 4_096, whole=True)


def _recipe(name: str, about: str, source: str, parameters: Mapping[str, Parameter], *departures: str) -> Recipe:
    return Recipe(
        name=name,
        about=about,
        source=source,
        needs=("pictures",),
        steps=5_000,
        batch=128,
        warm_up=200,
        optimiser=Optimiser(weight_decay=0.05),
        parameters=parameters,
        departures=(
            "AdamW with a cosine over thousands of steps, from stored views, without labels: the papers train with SGD "
            "for 120 epochs beside losses on labels.",
            *departures,
        ),
    )


_BESIDE = "An anchor, the squared distance of pairs, is added: see `--set anchor=...`."
_ALL = (
    Distillation(
        _recipe(
            "fitnet",
            "places every view where the heavy tower places it",
            "FitNets, arXiv 1412.6550",
            _COMMON,
            "The squared distance is summed over dimensions.",
        ),
        lambda student, teacher, values: fitnet(student, teacher),
    ),
    Distillation(
        _recipe(
            "raml",
            "gives views the heavy tower's similarities to each other, from the light to the heavy side and within",
            "RAML, WACV 2023",
            {
                **_anchored(1.0),
                "lambda1": Parameter(0.7482, "weight of similarities from the light to the heavy side", 0.0, 1e4),
                "lambda2": Parameter(0.6778, "weight of similarities within the light side", 0.0, 1e4),
            },
            _BESIDE,
        ),
        lambda student, teacher, values: raml(
            student, teacher, cross=float(values["lambda1"]), own=float(values["lambda2"])
        ),
    ),
    Distillation(
        _recipe(
            "csd",
            "gives a view the heavy tower's similarities to its nearest neighbours in the batch",
            "contextual similarity distillation; as in D3still's AIR_Distiller",
            {
                **_anchored(1.0),
                "k": _neighbours(96, "are compared, the picture itself among them"),
                "sharp": Parameter(0.01, "temperature of the heavy tower's similarities", 1e-4, 100.0),
                "soft": Parameter(1.0, "temperature of the light tower's similarities", 1e-4, 100.0),
            },
            _BESIDE,
        ),
        lambda student, teacher, values: csd(
            student, teacher, k=int(values["k"]), sharp=float(values["sharp"]), soft=float(values["soft"])
        ),
    ),
    Distillation(
        _recipe(
            "rop",
            "ranks a view's nearest neighbours in the batch as the heavy tower does",
            "rank order preservation, ICLR 2023; as in D3still's AIR_Distiller",
            {
                **_anchored(1.0),
                "k": _neighbours(96, "are ranked, the picture itself among them"),
                "temperature": Parameter(0.1, "of the light tower's order", 1e-4, 100.0),
            },
            _BESIDE,
        ),
        lambda student, teacher, values: rop(
            student, teacher, k=int(values["k"]), temperature=float(values["temperature"])
        ),
    ),
    Distillation(
        _recipe(
            "d3",
            "gives a view the heavy tower's differences of similarities to its nearest neighbours, signs first",
            "D3still, CVPR 2024",
            {
                **_anchored(1.0),
                "k": _neighbours(10, "are compared"),
                "alpha": Parameter(50.0, "weight of the distances of pairs", 0.0, 1e4),
                "beta": Parameter(2.0, "weight of differences of the wrong sign", 0.0, 1e4),
                "gamma": Parameter(1.0, "weight of the other differences", 0.0, 1e4),
            },
            _BESIDE,
        ),
        lambda student, teacher, values: d3(
            student,
            teacher,
            k=int(values["k"]),
            pairs=float(values["alpha"]),
            hard=float(values["beta"]),
            simple=float(values["gamma"]),
        ),
    ),
)

DISTILLATIONS: dict[str, Distillation] = {each.recipe.name: each for each in _ALL}
