"""A plot of an evaluation: methods by families as a heat map, or methods alone as points with intervals."""

from __future__ import annotations

import io
from typing import Any

from pocketlens_bench.evaluate_results import Results

_DARK = 0.55  # of the scale, above which white text is read more easily


def draw(results: Results) -> bytes:
    """Return the plot as SVG that is the same for the same results."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "pocketlens", "font.size": 9, "figure.dpi": 100}):
        several = len(results.families) > 1
        rows, columns = len(results.summaries), len(results.families) + 1
        size = (2.6 + 0.52 * columns, 1.6 + 0.27 * rows) if several else (6.4, 1.2 + 0.27 * rows)
        figure = Figure(figsize=size, layout="constrained")
        (_heat_map if several else _intervals)(figure.subplots(), results)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _heat_map(axes: Any, results: Results) -> None:
    import numpy as np

    headline, families = results.headline, results.families
    values = np.full((len(results.summaries), len(families) + 1), np.nan)
    for row, summary in enumerate(results.summaries):
        values[row, 0] = summary.whole[headline].value
        for column, family in enumerate(families, start=1):
            if family in summary.families:
                values[row, column] = summary.families[family][headline].value
    most = max(float(np.nanmax(values)), 1e-9)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value > _DARK * most else "black"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
    axes.axvline(0.5, color="white", linewidth=3)
    axes.set_xticks(range(values.shape[1]), ["all", *families], rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(values.shape[0]), [summary.run.method for summary in results.summaries])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"{headline} in %, {results.task.protocol} {results.task.split}")


def _intervals(axes: Any, results: Results) -> None:
    headline = results.headline
    figures = [summary.whole[headline] for summary in results.summaries]
    places = list(range(len(figures)))
    below = [figure.value - figure.low for figure in figures]
    above = [figure.high - figure.value for figure in figures]
    axes.errorbar([f.value for f in figures], places, xerr=[below, above], fmt="o", capsize=3, markersize=4)
    axes.set_yticks(places, [summary.run.method for summary in results.summaries])
    axes.set_ylim(len(figures) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_xlabel(f"{headline} in % with its 95 % interval, {results.task.protocol} {results.task.split}")
