"""Tables of what `pocketlens eval emojicir --out` wrote: methods, families, what is not wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketlens_bench.measure import Row

NAME = "composed_emojicir"  # benchmarks/results/<NAME>.json, docs/plots/<NAME>.svg
_OTHERS = ("mAP@5", "mAP@25", "mAP@50", "R@1", "R@5", "R@10")
_LEVELS = {"without": "left out", "vector": "off the vector", "score": "off the score"}


def method_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row per method: figures in per cent, the headline with its 95 % interval."""
    headline = report["headline"]
    rows: list[Row] = []
    for method in report["methods"]:
        figures, unseen = method["figures"], method["strata"].get("unseen")
        rows.append(
            {
                "method": method["method"],
                "text passes": method["text_passes"],
                headline: _figure(figures[headline]),
                "95 % interval": _interval(figures[headline]),
                **{name: _figure(figures[name]) for name in _OTHERS},
                f"unseen {headline}": None if unseen is None else _figure(unseen["figures"][headline]),
            }
        )
    return rows


def family_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row per family: how many queries, and the headline of every method in per cent."""
    headline, methods = report["headline"], report["methods"]
    sizes = {family: found["queries"] for method in methods for family, found in method["families"].items()}
    rows: list[Row] = []
    for family, queries in sizes.items():
        found = {method["method"]: method["families"].get(family) for method in methods}
        values = {name: None if each is None else _figure(each["figures"][headline]) for name, each in found.items()}
        rows.append({"family": family, "queries": queries, **values})
    return rows


def negative_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row per method and level at which what is not wanted is taken off; empty without such queries."""
    headline = report["headline"]
    return [
        {
            "method": run["method"],
            "what is not wanted": _LEVELS[run["level"]],
            headline: _figure(run["figures"][headline]),
            "95 % interval": _interval(run["figures"][headline]),
            "unwanted@10": _figure(run["figures"]["unwanted@10"]),
            "its interval": _interval(run["figures"]["unwanted@10"]),
        }
        for run in report["negative"]
    ]


def source(report: Mapping[str, Any]) -> str:
    """Return what was measured, in one paragraph."""
    bundle = report["bundle"]
    return (
        f"EmojiCIR, {report['split']} split: {report['answered']:,} queries over {bundle['rows']:,} pictures by "
        f"{bundle['gallery']}; {report['unit']}. Unseen: targets whose untoned picture the encoder was never trained "
        "on. `pocketlens eval emojicir` measures again.\n"
    )


def _figure(figure: Mapping[str, float]) -> float:
    return round(figure["value"], 1)


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['low']:.1f} to {figure['high']:.1f}"
