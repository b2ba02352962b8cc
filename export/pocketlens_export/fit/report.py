"""The report of a training for people: a page, inversion/<recipe>.md, and its loss curve, inversion/<recipe>.svg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens.compose.method import Values
from pocketlens.model import Inversion
from pocketlens_export.fit.recipe import Recipe
from pocketlens_export.fit.training import Curve


@dataclass(frozen=True, slots=True)
class Trained:
    """What is told of one training.

    Attributes:
        model: name of the model whose tower it went through.
        recipe, values, batch: what was asked for.
        inversion: its entry in the manifest.
        counts: training and held-out texts and pictures, by name.
        curve: the losses.
        quality: figures by name, without the recipe's prefix.
    """

    model: str
    recipe: Recipe
    values: Values
    batch: int
    inversion: Inversion
    counts: Mapping[str, int]
    curve: Curve
    quality: Mapping[str, float]


def write_report(folder: Path, trained: Trained) -> None:
    """Write the page and the plot beside the network."""
    (folder / f"{trained.recipe.name}.md").write_text(page(trained), encoding="utf-8")
    write_curve(folder / f"{trained.recipe.name}.svg", trained.curve, f"{trained.recipe.name}, {trained.model}")


def page(trained: Trained) -> str:
    """Return the page as Markdown."""
    recipe, made = trained.recipe, trained.inversion
    settings = {"steps": made.steps, "batch": trained.batch, "seed": made.seed, **trained.values}
    settings |= {"warm-up steps": recipe.warm_up, "weight decay": recipe.optimiser.weight_decay}
    parts = [
        f"# {recipe.name} in the space of {trained.model}\n",
        f"The network {recipe.about}. Source: {recipe.source}.\n",
        table(("setting", "value"), [(name, f"{value}") for name, value in settings.items()]),
        "## Data\n",
        table(("file", "sha256"), list(made.data_sha256.items())),
        table(("rows", "count"), [(name, f"{count}") for name, count in trained.counts.items()]),
        "The held-out twentieth is chosen by the hash of each text or picture and is never trained on.\n",
        "## Quality\n",
        table(("figure", "value"), [(name, f"{value:.4f}") for name, value in trained.quality.items()]),
        f"![loss by step]({recipe.name}.svg)\n",
        table(("steps done", "held-out loss"), [(f"{s}", f"{loss:.4f}") for s, loss in trained.curve.held_out]),
        "## Where it departs from its paper\n",
        *(f"- {line}" for line in recipe.departures),
        "",
    ]
    return "\n".join(parts)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def write_curve(path: Path, curve: Curve, title: str) -> None:
    """Write the plot of a training's losses by step, an SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "pocketlens", "svg.fonttype": "none", "font.size": 8})
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    losses = np.asarray(curve.losses)
    width = max(len(losses) // 200, 1)  # points of at most 200 means
    whole = losses[: len(losses) // width * width].reshape(-1, width).mean(axis=1)
    axes.plot((np.arange(len(whole)) + 0.5) * width, whole, color="tab:blue", linewidth=0.8, label="training")
    steps, held = zip(*curve.held_out, strict=True)
    axes.plot(steps, held, color="tab:red", marker="o", markersize=2.5, linewidth=1, label="held out")
    axes.set_title(title, fontsize=8)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
