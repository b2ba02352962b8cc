"""The report of an alignment for people: a page, align.md, and a plot, align.svg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens_export.align.parts import Part

PAGE, PLOT = "align.md", "align.svg"
_SHOWN = 100  # places on the plot's axis
_WHO = {
    "heavy_heavy": ("heavy", "heavy"),
    "light_light": ("light", "light"),
    "light_heavy": ("light, mapped", "heavy"),
    "light_heavy_raw": ("light, not mapped", "heavy"),
}


@dataclass(frozen=True, slots=True)
class Aligned:
    """What is told of one alignment.

    Attributes:
        light, heavy: names of the models.
        kind: of the map.
        seed: of everything random.
        parts: pictures, and texts where there are any.
        notes: what else is worth knowing, a line each.
    """

    light: str
    heavy: str
    kind: str
    seed: int
    parts: Sequence[Part]
    notes: Sequence[str]


def write_report(folder: Path, aligned: Aligned) -> None:
    """Write the page and the plot."""
    (folder / PAGE).write_text(page(aligned), encoding="utf-8")
    _write_plot(folder / PLOT, aligned)


def page(aligned: Aligned) -> str:
    """Return the page as Markdown."""
    lines = [
        f"# {aligned.light} in the space of {aligned.heavy}\n",
        f"A {aligned.kind} map carries what {aligned.light} makes of a picture to where {aligned.heavy} would put it, "
        "so that its queries find what the other model has indexed. What the maps are: docs/asymmetric.md.\n",
    ]
    for part in aligned.parts:
        lines += _section(part)
    lines += [f"![recall by places]({PLOT})\n", f"Seed {aligned.seed}.\n", *(f"- {note}" for note in aligned.notes), ""]
    return "\n".join(lines)


def quality_table(part: Part) -> list[tuple[str, ...]]:
    """Return rows of who sees the query, who the gallery, recall at 1 and at 10; the first is the header."""
    rows: list[tuple[str, ...]] = [("query", "gallery", "recall@1", "recall@10")]
    for who, (query, gallery) in _WHO.items():
        if who in part.ranks:
            ranks = part.ranks[who]
            rows.append((query, gallery, *(f"{float((ranks <= k).mean()):.3f}" for k in (1, 10))))
    return rows


def _section(part: Part) -> list[str]:
    queries = {
        "pictures": "Queries are views of the test pictures (half to nine tenths of the area, every other one "
        "mirrored), the gallery is the test pictures. The answer to a query is the picture it is a view of.\n",
        "texts": "Queries and gallery are the test texts. The answer to a query is the text itself.\n",
    }
    counts = ", ".join(f"{count} {name}" for name, count in part.counts.items())
    tried = [(each.name, f"{each.cosine:.5f}") for each in part.fitted.tried]
    return [
        f"## {part.what.capitalize()}\n",
        f"{counts}; sha256 {part.sha256}.\n",
        queries[part.what],
        _table(quality_table(part)),
        f"Mean cosine of mapped test {part.what} to the heavy model's own: {part.mean_cosine:.4f}.\n",
        f"Chosen by the mean cosine on the validation {part.what}: {part.fitted.chosen}.\n",
        _table([("tried", "validation cosine"), *tried]),
    ]


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _write_plot(path: Path, aligned: Aligned) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "pocketlens", "svg.fonttype": "none", "font.size": 8})
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    ranks = aligned.parts[0].ranks
    for who, (query, gallery) in _WHO.items():
        if who in ranks:
            places = np.arange(1, min(_SHOWN, len(ranks[who])) + 1)
            shares = (ranks[who] <= places[:, np.newaxis]).mean(axis=1)  # (places,)
            axes.plot(places, shares, linewidth=1, label=f"{query} to {gallery}")
    axes.set_title(f"{aligned.light} in the space of {aligned.heavy}, {aligned.kind}", fontsize=8)
    axes.set_xlabel("places that are looked at")
    axes.set_ylabel("share of test pictures found")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
