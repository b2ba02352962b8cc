"""A plot of a comparison: recall against the time that a query's picture takes, one panel for each set of queries."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, TypeAlias

from pocketlens_bench.asymmetric_figures import WHOLE

Report: TypeAlias = Mapping[str, Any]

_KINDS = {  # marker and its face; what matters most is drawn last
    "light-light": ("o", "white"),
    "light-heavy raw": ("x", None),
    "heavy-heavy": ("s", None),
    "light-heavy": ("o", None),
}
_TICKS = (1, 2, 5)  # of each power of ten


def draw(report: Report) -> bytes:
    """Return the plot of what `asymmetric_report.to_json` returns, as SVG that is the same for the same report.

    Queries by text are left out: their latency is the text tower's.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    sets = [each for each in report["sets"] if each["asked"] != "text"]
    with matplotlib.rc_context({"svg.hashsalt": "pocketlens", "font.size": 9, "figure.dpi": 100}):
        figure = Figure(figsize=(2.2 + 4.2 * len(sets), 3.8), layout="constrained")
        panels = figure.subplots(1, len(sets), squeeze=False)[0]
        for axes, each in zip(panels, sets, strict=True):
            _panel(axes, report, each)
        _legend(figure, report)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _panel(axes: Any, report: Report, results: Mapping[str, Any]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    metric = report["headline"]
    latency = {model["label"]: model["latency_ms_p50"] for model in report["models"]}
    for kind, (marker, face) in _KINDS.items():
        for row in (row for row in results["rows"] if row["kind"] == kind):
            figure, colour = row["parts"][WHOLE]["figures"][metric], _colours(report)[row["query"]]
            reach = [[figure["value"] - figure["low"]], [figure["high"] - figure["value"]]]
            axes.errorbar(
                latency[row["query"]], figure["value"], yerr=reach, fmt=marker, capsize=3, markersize=6, color=colour,
                markerfacecolor=face or colour,
            )  # fmt: skip
    axes.axhline(results["chance"], color="grey", linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=_TICKS))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(min(latency.values()) / 2, 2 * max(latency.values()))
    axes.set_ylim(bottom=0)
    axes.grid(linewidth=0.4)
    axes.set_title(f"{results['sought']}, {results['split']}", fontsize=9)
    axes.set_xlabel("milliseconds of the query's image tower, one thread")
    axes.set_ylabel(f"{metric} in % with its 95 % interval")


def _legend(figure: Any, report: Report) -> None:
    """Tell colours, which are models, and markers, which are who encoded queries and gallery."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=3, label=label) for label, colour in _colours(report).items()]
    shown = {row["kind"] for each in report["sets"] for row in each["rows"]}
    handles += [
        Line2D([], [], marker=marker, linestyle="", color="grey", markerfacecolor=face or "grey", label=kind)
        for kind, (marker, face) in _KINDS.items()
        if kind in shown
    ]
    handles.append(Line2D([], [], color="grey", linestyle=":", linewidth=1, label="chance"))
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)


def _colours(report: Report) -> dict[str, str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    labels = [model["label"] for model in report["models"]]
    colours = colormaps["tab10" if len(labels) <= 10 else "tab20"]
    return {label: to_hex(colours(place % colours.N)) for place, label in enumerate(labels)}
