"""The plots of docs/: recall of codes, and time of scan and graph by gallery size. Needs matplotlib when it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pocketlens.tune import TARGET_RECALL


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
    axes.legend(loc="upper center", ncols=2, fontsize=8, bbox_to_anchor=(0.3, 1.14), frameon=False)


def _crossover(axes: Any, tables: dict[str, Any]) -> None:
    """Draw ratios, which a shared machine leaves alone; a point is filled where the recall reaches 0.98."""
    by_search: dict[str, list[tuple[int, float, bool]]] = {}
    for row in tables["All widths"]:
        found = (row["rows"], row["time over scan"], row["recall@10"] >= TARGET_RECALL)
        by_search.setdefault(row["search"], []).append(found)
    for name, points in by_search.items():
        sizes, ratios, reached = zip(*points, strict=True)
        (line,) = axes.plot(sizes, ratios, "-", linewidth=2 if name == "scan" else 1, label=name)
        colours = [line.get_color() if good else "white" for good in reached]
        axes.scatter(sizes, ratios, s=22, c=colours, edgecolors=line.get_color(), zorder=3)
    axes.set(xscale="log", yscale="log", xlabel=f"rows (filled: recall@10 of at least {TARGET_RECALL})")
    axes.set_ylabel("time of one query over the scan's")
    axes.legend(fontsize=8)
