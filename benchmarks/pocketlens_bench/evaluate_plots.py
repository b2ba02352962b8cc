"""A plot of an evaluation: methods by families as a heat map, or methods alone as points with intervals."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, TypeAlias

Report: TypeAlias = Mapping[str, Any]
_DARK = 0.55  # of the scale, above which white text is read more easily


def draw(report: Report) -> bytes:
    """Return the plot of what `evaluate_report.to_json` returns, as SVG that is the same for the same report."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "pocketlens", "font.size": 9, "figure.dpi": 100}):
        families = list(dict.fromkeys(family for method in report["methods"] for family in method["families"]))
        rows, columns = len(report["methods"]), len(families) + 1
        several = len(families) > 1
        size = (2.6 + 0.52 * columns, 1.6 + 0.27 * rows) if several else (6.4, 1.2 + 0.27 * rows)
        figure = Figure(figsize=size, layout="constrained")
        if several:
            _heat_map(figure.subplots(), report, families)
        else:
            _intervals(figure.subplots(), report)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _heat_map(axes: Any, report: Report, families: list[str]) -> None:
    import numpy as np

    headline, methods = report["headline"], report["methods"]
    values = np.full((len(methods), len(families) + 1), np.nan)
    for row, method in enumerate(methods):
        values[row, 0] = method["figures"][headline]["value"]
        for column, family in enumerate(families, start=1):
            if family in method["families"]:
                values[row, column] = method["families"][family]["figures"][headline]["value"]
    most = max(float(np.nanmax(values)), 1e-9)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value > _DARK * most else "black"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
    axes.axvline(0.5, color="white", linewidth=3)
    axes.set_xticks(range(values.shape[1]), ["all", *families], rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(values.shape[0]), [method["method"] for method in methods])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"{headline} in %, {report['protocol']} {report['split']}")


def _intervals(axes: Any, report: Report) -> None:
    headline = report["headline"]
    figures = [method["figures"][headline] for method in report["methods"]]
    places = list(range(len(figures)))
    values = [figure["value"] for figure in figures]
    below = [figure["value"] - figure["low"] for figure in figures]
    above = [figure["high"] - figure["value"] for figure in figures]
    axes.errorbar(values, places, xerr=[below, above], fmt="o", capsize=3, markersize=4)
    axes.set_yticks(places, [method["method"] for method in report["methods"]])
    axes.set_ylim(len(figures) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_xlabel(f"{headline} in % with its 95 % interval, {report['protocol']} {report['split']}")
