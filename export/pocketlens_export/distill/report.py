"""The report of a distillation for people: a page, distill.md, and its loss curve, distill.svg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketlens.compose.method import Values
from pocketlens_export.distill.quality import RECALL_AT
from pocketlens_export.fit.recipe import Recipe
from pocketlens_export.fit.report import table, write_curve
from pocketlens_export.fit.training import Curve, Schedule

PAGE, PLOT = "distill.md", "distill.svg"
_WHO = {
    "heavy_heavy": ("heavy", "heavy"),
    "light_light": ("light", "light"),
    "light_heavy": ("light", "heavy"),
}


@dataclass(frozen=True, slots=True)
class Distilled:
    """What is told of one distillation.

    Attributes:
        light, heavy: names of the architecture and of the model.
        side: of the light tower's pictures, in pixels.
        recipe, values, schedule: how it was trained.
        started: "seeded weights", or the checkpoint's sha256.
        views: of a picture, itself included.
        flip: whether views were mirrored.
        data: sha256 by what it is over.
        counts: pictures by part.
        curve: the losses.
        quality: figures by name.
    """

    light: str
    heavy: str
    side: int
    recipe: Recipe
    values: Values
    schedule: Schedule
    started: str
    views: int
    flip: bool
    data: Mapping[str, str]
    counts: Mapping[str, int]
    curve: Curve
    quality: Mapping[str, float]


def write_report(folder: Path, told: Distilled) -> None:
    """Write the page and the plot."""
    (folder / PAGE).write_text(page(told), encoding="utf-8")
    write_curve(folder / PLOT, told.curve, f"{told.light} in the space of {told.heavy}, {told.recipe.name}")


def page(told: Distilled) -> str:
    """Return the page as Markdown."""
    recipe, schedule = told.recipe, told.schedule
    settings = {
        "loss": recipe.name, "side": told.side, "steps": schedule.steps, "batch": schedule.batch,
        "seed": schedule.seed, "begun from": told.started, "views of a picture": told.views,
        "mirrored views": "half" if told.flip else "none", **told.values,
        "warm-up steps": recipe.warm_up, "weight decay": recipe.optimiser.weight_decay,
    }  # fmt: skip
    parts = [
        f"# {told.light} in the space of {told.heavy}\n",
        f"The light tower {recipe.about}. Source: {recipe.source}.\n",
        table(("setting", "value"), [(name, f"{value}") for name, value in settings.items()]),
        "## Data\n",
        table(("what", "sha256"), list(told.data.items())),
        table(("pictures", "count"), [(name, f"{count}") for name, count in told.counts.items()]),
        "Pictures are parted by the hash of their files. Validation pictures give the held-out loss; test pictures are "
        "looked at once, at the end.\n",
        "## Quality\n",
        "Queries are views of the test pictures (half to nine tenths of the area, every other one mirrored), the "
        "gallery is the test pictures. The answer to a query is the picture it is a view of.\n",
        table(*quality_table(told.quality)),
        f"Mean cosine of both towers' vectors of a test picture: {told.quality['asymmetric_mean_cosine']:.4f}.\n",
        f"![loss by step]({PLOT})\n",
        table(("steps done", "held-out loss"), [(f"{s}", f"{loss:.4f}") for s, loss in told.curve.held_out]),
        "## Where it departs from its paper\n",
        *(f"- {line}" for line in recipe.departures),
        "",
    ]
    return "\n".join(parts)


def quality_table(quality: Mapping[str, float]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of who sees the query, who the gallery, and recall at 1, 5 and 10."""
    rows = [
        (*names, *(f"{quality[f'asymmetric_{who}_recall_at_{k}']:.3f}" for k in RECALL_AT))
        for who, names in _WHO.items()
    ]
    return ("query", "gallery", *(f"recall@{k}" for k in RECALL_AT)), rows
