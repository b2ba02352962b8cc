"""The plots of docs/: recall of codes, and time of scan and graph by gallery size. Needs matplotlib when it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_plots(results: dict[str, dict[str, Any]], docs: Path) -> None:
    """Draw the plots whose results exist into docs/plots, as SVG that is the same for the same results."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "pocketlens", "font.size": 9, "figure.dpi": 100})
    (docs / "plots").mkdir(parents=True, exist_ok=True)
    for name, draw in (("codes", _codes), ("crossover", _crossover)):
        if name in results:
            from matplotlib.figure import Figure

            figure = Figure(figsize=(6.4, 3.2), layout="constrained")
            draw(figure.subplots(), results[name]["tables"])
            figure.savefig(docs / "plots" / f"{name}.svg", metadata={"Date": None, "Creator": None})


def _codes(axes: Any, tables: dict[str, Any]) -> None:
    rows = tables["Exhaustive search"][::-1]
    places = range(len(rows))
    axes.barh([place + 0.2 for place in places], [row["text recall@10"] for row in rows], 0.38, label="text-like")
    axes.barh([place - 0.2 for place in places], [row["picture recall@10"] for row in rows], 0.38, label="picture-like")
    axes.set_yticks(list(places), [row["codes"] for row in rows])
    axes.set_xlim(0.7, 1.0)
    axes.set_xlabel("recall@10 of an exhaustive search")
    axes.legend(loc="lower left", fontsize=8)


def _crossover(axes: Any, tables: dict[str, Any]) -> None:
    by_search: dict[str, list[tuple[int, float, float]]] = {}
    for row in tables["All widths"]:
        by_search.setdefault(row["search"], []).append((row["rows"], row["p50 ms"], row["recall@10"]))
    for name, points in by_search.items():
        sizes, times, recalls = zip(*points, strict=True)
        axes.plot(sizes, times, "o-", markersize=3, linewidth=2 if name == "scan" else 1, label=name)
        axes.annotate(
            f"{recalls[-1]:.3f}", (sizes[-1], times[-1]), fontsize=7, xytext=(4, -2), textcoords="offset points"
        )
    axes.set(xscale="log", yscale="log", xlabel="rows (recall@10 at the last point)", ylabel="p50 ms")
    axes.legend(fontsize=8)
