"""Tables of what `asymmetric_study` wrote: by set of queries, of composed queries, and of the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketlens_bench.markdown import markdown_table
from pocketlens_bench.measure import Row

NAME = "asymmetric"  # benchmarks/results/<NAME>.json, docs/plots/<NAME>.svg
MARKER = "asymmetric"  # in docs/asymmetric.md
_ASKED = {"The same emoji by another vendor": "picture", "The picture that a view is of": "view"}
_CROSSED = ("heavy-heavy", "light-heavy raw", "light-heavy")
_KNOWN = {"heavy": "the heavy model itself", "light": "no map: the control", "query": "a query model"}


def guide(report: Mapping[str, Any]) -> str:
    """Return what docs/asymmetric.md shows of maps and losses."""
    parts = [f"{title}:\n\n{markdown_table(set_rows(report, asked))}" for title, asked in _ASKED.items()]
    parts.append(f"Composed queries:\n\n{markdown_table(composed_rows(report))}")
    return f"\n{source(report)}\n" + "\n".join(parts) + f"\n![Recall against latency](plots/{NAME}.svg)\n\n"


def section(report: Mapping[str, Any]) -> str:
    """Return what docs/measurements.md says of maps and losses, or nothing where there is no result."""
    if not report:
        return ""
    machine, study = report["machine"], report["study"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    where = f"{machine['processor']}, {report['cores']} cores, {machine['system']}"
    threads = f"threads: {report['threads']}, of latencies {report['latency_threads']}"
    parts = ["## Asymmetric retrieval\n", "What was compared, and what came of it, is in asymmetric.md.\n"]
    parts += [f"{where}; {threads}. {versions}.\n", f"### Models\n\n{markdown_table(model_rows(report))}"]
    parts += [how_made(study)]
    return "\n" + "\n".join(parts)


def how_made(study: Mapping[str, Any]) -> str:
    """Return the commands that made what was compared, as a section."""
    made = "".join(f"- {name}: `python -m {command}`\n" for name, command in study["commands"].items())
    return f"### How they were made, from {study['pictures']:,} pictures\n\n{made}"


def set_rows(report: Mapping[str, Any], asked: str) -> list[Row]:
    """Return a row per model: what it finds over the heavy gallery and over its own, in per cent.

    Args:
        report: of the study.
        asked: what the queries are, "picture" or "view".
    """
    headline = report["headline"]
    [results] = [each for each in report["sets"] if each["asked"] == asked]
    own = {row["query"]: row for row in results["rows"] if row["kind"] in ("heavy-heavy", "light-light")}
    rows: list[Row] = []
    for row in (row for row in results["rows"] if row["kind"] in _CROSSED):
        found = row["parts"]["all"]
        figures, share = found["figures"], found["of_heavy"].get(headline)
        rows.append(
            {
                "query model": row["query"],
                "how": how(report, row["query"]),
                "R@1": _value(figures["R@1"]),
                "R@5": _value(figures["R@5"]),
                headline: _value(figures[headline]),
                "95 % interval": _interval(figures[headline]),
                "mAP@10": _value(figures["mAP@10"]),
                f"of heavy's {headline}": None if share is None else _value(share),
                f"{headline} over its own gallery": _value(own[row["query"]]["parts"]["all"]["figures"][headline]),
            }
        )
    return rows


def composed_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row per model: mAP@10 of composed queries by each method, and its share of the heavy model's."""
    measured = [row for row in report["composed"] if row["parts"]]
    methods = list(dict.fromkeys(row["method"] for row in measured))
    found = {(row["query"], row["method"]): row["parts"]["all"] for row in measured}
    rows: list[Row] = []
    for model in dict.fromkeys(row["query"] for row in measured):
        line: Row = {"query model": model, "how": how(report, model)}
        for method in methods:
            part = found.get((model, method))
            share = None if part is None else part["of_heavy"].get("mAP@10")
            line[f"{method}, mAP@10"] = None if part is None else _value(part["figures"]["mAP@10"])
            line[f"{method}, of heavy's"] = None if share is None else _value(share)
        rows.append(line)
    return rows


def model_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row per model: size, time of one picture, and how near its vectors lie to the heavy ones."""
    return [
        {
            "model": model["label"],
            "how": how(report, model["label"]),
            "dimensions": model["dim"],
            "side": model["side"],
            "image tower MB": round(model["image_bytes"] / 1e6, 1),
            "ms": model["latency_ms_p50"],
            "of heavy's ms": model["latency_of_heavy"],
            "mean cosine to heavy": _cosine(report["study"]["quality"].get(model["label"], {})),
        }
        for model in report["models"]
    ]


def how(report: Mapping[str, Any], label: str) -> str:
    """Return how a model came to be."""
    study, roles = report["study"], {model["label"]: model["role"] for model in report["models"]}
    if label in study["maps"]:
        return "aligned"
    if label in study["losses"]:
        return "distilled"
    return _KNOWN[roles[label]] if label in roles else "distilled, and its features made words"


def source(report: Mapping[str, Any]) -> str:
    """Return what was measured, in one paragraph."""
    sets = {each["asked"]: each for each in report["sets"]}
    other, views = sets["picture"], sets["view"]
    composed = next((row["parts"]["all"]["queries"] for row in report["composed"] if row["parts"]), 0)
    return (
        f"{other['queries']:,} emoji of {other['split']} concepts, sought among {other['gallery']:,} pictures by other "
        f"vendors' (chance: {report['headline']} {other['chance']:.2g}); {views['queries']:,} views of pictures of "
        f"validation concepts, sought among those (chance {views['chance']:.2g}); {composed:,} composed queries of "
        "EmojiCIR. Per cent, with 95 % intervals of a cluster bootstrap. "
        "`python -m pocketlens_bench.asymmetric_study` measures again.\n"
    )


def _cosine(quality: Mapping[str, float]) -> float | None:
    value = quality.get("asymmetric_mean_cosine")
    return None if value is None else round(value, 3)


def _value(figure: Mapping[str, float]) -> float:
    return round(figure["value"], 1)


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['low']:.1f} to {figure['high']:.1f}"
