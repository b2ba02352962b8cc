"""The plots of docs/: what quantizing costs, recall of codes, time and recall of indexes. Drawing needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pocketlens.tune import TARGET_RECALL

_NO_ERROR = 1e-6  # what a logarithmic axis shows of none at all; tables round cosines to this


def write_plots(results: dict[str, dict[str, Any]], docs: Path) -> None:
    """Draw the plots whose results exist into docs/plots, as SVG that is the same for the same results."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "pocketlens", "font.size": 9, "figure.dpi": 100})
    (docs / "plots").mkdir(parents=True, exist_ok=True)
    for name, draw in (
        ("quantization", _quantization),
        ("codes", _codes),
        ("partitions", _partitions),
        ("index", _index),
        ("index_million", _index),
    ):
        if name in results:
            from matplotlib.figure import Figure

            figure = Figure(figsize=(6.4, 3.2), layout="constrained")
            draw(figure.subplots(), results[name]["tables"])
            figure.savefig(docs / "plots" / f"{name}.svg", metadata={"Date": None, "Creator": None})
    if "calibration" in results:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.0, 3.4), layout="constrained")
        _calibration(figure, results["calibration"]["tables"]["Operating curves"])
        figure.savefig(docs / "plots" / "calibration.svg", metadata={"Date": None, "Creator": None})


def _quantization(axes: Any, tables: dict[str, Any]) -> None:
    """Draw each way to quantize by its time and its error: down and to the left is better. float32 is the line at 1."""
    rows = [
        row for table in tables.values() for row in table if "mean cosine" in row and row["mean cosine"] is not None
    ]
    ways = list(dict.fromkeys(row["what"] for row in rows if row["what"] != "ONNX float32"))
    for way in ways:
        for tower, marker in (("text", "o"), ("image", "s")):
            found = [row for row in rows if (row["what"], row["tower"]) == (way, tower)]
            times = [row["time over ONNX float32"] for row in found]
            errors = [max(1 - row["mean cosine"], _NO_ERROR) for row in found]
            label = way if tower == "text" else None
            axes.scatter(times, errors, s=28, marker=marker, color=f"C{ways.index(way)}", label=label)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="time over ONNX float32's (circle: text, square: image)")
    axes.set_ylabel("1 - mean cosine")
    axes.legend(fontsize=8)


def _codes(axes: Any, tables: dict[str, Any]) -> None:
    rows = tables["Exhaustive search"][::-1]
    places = range(len(rows))
    axes.barh([place + 0.2 for place in places], [row["text recall@10"] for row in rows], 0.38, label="text-like")
    axes.barh([place - 0.2 for place in places], [row["picture recall@10"] for row in rows], 0.38, label="picture-like")
    axes.set_yticks(list(places), [row["codes"] for row in rows])
    axes.set_xlim(0.7, 1.0)
    axes.set_xlabel("recall@10 of an exhaustive search")
    axes.legend(loc="upper center", ncols=2, fontsize=8, bbox_to_anchor=(0.3, 1.14), frameon=False)


def _partitions(axes: Any, tables: dict[str, Any]) -> None:
    """Draw ratios, which a shared machine leaves alone, against recall, a line a size."""
    rows = tables["All probes"]
    for size in dict.fromkeys(row["rows"] for row in rows):
        found = [row for row in rows if row["rows"] == size and row["search"] != "scan"]
        axes.plot(
            [row["recall@10"] for row in found], [row["time over scan"] for row in found], "o-", markersize=3,
            linewidth=1.2, label=f"{size:,} rows",
        )  # fmt: skip
    axes.axvline(TARGET_RECALL, color="grey", linewidth=0.6, linestyle=":")
    axes.set(yscale="log", xlabel="recall@10", ylabel="time of one query over the scan's")
    axes.legend(fontsize=8)


def _index(axes: Any, tables: dict[str, Any]) -> None:
    """Draw every index by what it finds and how long it takes: down and to the right is better."""
    rows = tables["Recall and time"]
    for name in dict.fromkeys(row["index"] for row in rows):
        found = [row for row in rows if row["index"] == name]
        ours = name.startswith("pocketlens")
        axes.plot(
            [row["recall@10"] for row in found], [row["p50 ms"] for row in found],
            "o-" if len(found) > 1 else "D", markersize=4 if ours else 3, linewidth=2 if ours else 1, label=name,
        )  # fmt: skip
    axes.set(yscale="log", xlabel="recall@10 of text-like queries", ylabel="ms a query, one thread")
    axes.legend(fontsize=7)


def _calibration(figure: Any, rows: list[dict[str, Any]]) -> None:
    """Draw what each threshold keeps against what it clears, on test, a panel a set; up and to the right is better."""
    tested = [row for row in rows if row["part"] == "test"]
    sets = list(dict.fromkeys(row["set"] for row in tested))
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axes, title in zip(panels, sets, strict=True):
        for name in dict.fromkeys(row["statistic"] for row in tested):
            found = [row for row in tested if (row["set"], row["statistic"]) == (title, name)]
            cleared = [row["unanswered queries without hits"] for row in found]
            axes.plot(cleared, [row["right best hits kept"] for row in found], linewidth=1.4, label=name)
        axes.plot([0, 1], [1, 0], color="grey", linewidth=0.6, linestyle=":")
        axes.set(title=title, xlabel="queries without an answer: no hits", xlim=(0, 1), ylim=(0, 1.02))
    panels[0].set_ylabel("right best hits kept")
    panels[0].legend(fontsize=8, loc="lower left")
