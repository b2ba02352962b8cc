"""What an evaluation found, for people as a table and for programs as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pocketlens.bench import processor
from pocketlens.bundle import BundleManifest
from pocketlens.graph import default_threads
from pocketlens.lens import Lens
from pocketlens_bench.evaluate_results import Figure, Results, Summary

_PACKAGES = ("numpy", "onnxruntime", "pillow", "pocketlens", "tokenizers")
_SHOWN = 5


def to_json(results: Results, lens: Lens, bundle: BundleManifest, threads: int | None) -> dict[str, Any]:
    """Return everything that is needed to tell what was measured, and on what; no times and no absolute paths."""
    task, gaps = results.task, results.gaps
    return {
        "protocol": task.protocol,
        "split": task.split,
        "queries": len(task.examples),
        "answered": results.answered,
        "dropped": dict(gaps.dropped),
        "without_answers": list(gaps.unanswerable),
        "without_candidates": list(gaps.incomplete),
        "missing_pictures": list(gaps.missing),
        "unreadable_pictures": dict(gaps.unreadable),
        "notes": list(task.notes),
        "headline": results.headline,
        "unit": "per cent, with 95 % percentile intervals of 1,000 cluster bootstrap resamples",
        "methods": [_summary_json(summary) for summary in results.summaries],
        "negative": [_summary_json(summary) for summary in results.negative],
        "skipped": {name: list(lacks) for name, lacks in results.skipped.items()},
        "data_sha256": dict(task.data_sha256),
        "bundle": {
            "gallery": lens.gallery.manifest.model,
            "rows": lens.gallery.manifest.index.rows,
            "items": lens.gallery.items.count,
            "space": lens.gallery.manifest.space.id,
            "gallery_sha256": bundle.gallery,
            "text_sha256": bundle.text,
            "image_sha256": bundle.image,
        },
        "machine": {"processor": processor(), "system": f"{platform.system()} {platform.machine()}"},
        "cores": os.cpu_count(),
        "threads": default_threads() if threads is None else threads,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def _summary_json(summary: Summary) -> dict[str, Any]:
    run = summary.run
    return {
        "method": run.method,
        "level": run.level,
        "parameters": dict(run.values),
        "text_passes": run.text_passes,
        "queries": len(run.examples),
        "failed": dict(run.failed),
        "figures": {name: _figure_json(figure) for name, figure in summary.whole.items()},
        "families": _parts_json(summary.families, summary.sizes),
        "strata": _parts_json(summary.strata, summary.stratum_sizes),
    }


def _parts_json(parts: Mapping[str, Mapping[str, Figure]], sizes: Mapping[str, int]) -> dict[str, Any]:
    return {
        part: {
            "queries": sizes[part],
            "figures": {name: _figure_json(figure) for name, figure in figures.items()},
        }
        for part, figures in parts.items()
    }


def _figure_json(figure: Figure) -> dict[str, float]:
    return {"value": round(figure.value, 3), "low": round(figure.low, 3), "high": round(figure.high, 3)}


def to_text(results: Results) -> str:
    """Return the tables and what a reader of them must know."""
    parts = [_heading(results)]
    if results.summaries and results.summaries[0].whole:
        parts += [_methods_table(results), _families_table(results), _strata_table(results)]
    if results.negative:
        parts.append(_negative_table(results))
    parts += [_gaps(results), *results.task.notes]
    return "\n\n".join(part for part in parts if part)


def warning(results: Results, item: str) -> str:
    """Return what to know first where the gallery has less than half of the pictures that are ranked; else nothing.

    Args:
        results: what was found.
        item: the id of any item of the gallery, to be compared with one that was expected.
    """
    task, lost = results.task, results.gaps.missing
    ids = {example.id for summary in (*results.summaries, *results.negative) for example in summary.run.examples}
    asked = [example for example in task.examples if example.id in ids or example.id in results.gaps.dropped]
    total = len({name for example in asked if example.pool is not None for name in task.pools[example.pool]})
    if 2 * len(lost) <= total:
        return ""
    found = total - len(lost)
    return (
        f"WARNING: the gallery has {found} of the {total} pictures to be ranked ({100 * found / total:.0f} %): these "
        f"are no figures of {task.protocol}. An expected id is {task.views[lost[0]].files[0]}, one of the gallery's "
        f"{item}"
    )


def _heading(results: Results) -> str:
    task = results.task
    figures = "figures in per cent, the first with its 95 % interval"
    if not task.has_answers:
        figures = "the test server has the answers, so there are no figures"
    elif results.negative:
        negative = len(results.negative[0].run.examples)
        figures = (
            f"{results.headline} is over {results.answered - negative} of them, {negative} more have something that is "
            f"not wanted; {figures}"
        )
    return f"{task.protocol} {task.split}: {results.answered} queries of {len(task.examples)}; {figures}"


def _methods_table(results: Results) -> str:
    names = [metric.name for metric in results.task.metrics]
    rows = [["method", "text passes", *names[:1], "interval", *names[1:]]]
    for summary in results.summaries:
        first = summary.whole[names[0]]
        others = [f"{summary.whole[name].value:.2f}" if name in summary.whole else "" for name in names[1:]]
        numbers = [f"{first.value:.2f}", _interval(first), *others]
        rows.append([summary.run.method, str(summary.run.text_passes), *numbers])
    return align(rows)


def _families_table(results: Results) -> str:
    families = results.families
    if not families:
        return ""
    sizes = {family: size for summary in results.summaries for family, size in summary.sizes.items()}
    rows = [[f"{results.headline} by family", *families], ["queries", *(str(sizes[family]) for family in families)]]
    for summary in results.summaries:
        figures = (summary.families.get(family, {}).get(results.headline) for family in families)
        rows.append([summary.run.method, *("" if figure is None else f"{figure.value:.1f}" for figure in figures)])
    return align(rows)


def _strata_table(results: Results) -> str:
    strata, name = results.strata, results.headline
    if not strata:
        return ""
    sizes = {stratum: size for summary in results.summaries for stratum, size in summary.stratum_sizes.items()}
    rows = [["method", *(cell for stratum in strata for cell in (f"{stratum} {name}", "interval"))]]
    rows.append(["queries", *(cell for stratum in strata for cell in (str(sizes[stratum]), ""))])
    for summary in results.summaries:
        figures = [summary.strata.get(stratum, {}).get(name) for stratum in strata]
        cells = [("", "") if figure is None else (f"{figure.value:.2f}", _interval(figure)) for figure in figures]
        rows.append([summary.run.method, *(cell for pair in cells for cell in pair)])
    return align(rows)


def _negative_table(results: Results) -> str:
    names = [results.headline, *(metric.name for metric in results.task.negative_metrics)]
    rows = [["method", "what is not wanted", *(cell for name in names for cell in (name, "interval"))]]
    words = {"without": "left out", "vector": "off the vector", "score": "off the score"}
    for summary in results.negative:
        figures = [summary.whole[name] for name in names]
        numbers = [cell for figure in figures for cell in (f"{figure.value:.2f}", _interval(figure))]
        rows.append([summary.run.method, words[summary.run.level or "without"], *numbers])
    return f"{len(results.negative[0].run.examples)} queries with something that is not wanted\n{align(rows)}"


def _gaps(results: Results) -> str:
    gaps = results.gaps
    by_lack: dict[str, list[str]] = {}
    for name, lacks in results.skipped.items():
        by_lack.setdefault("; ".join(lacks), []).append(name)
    lines = [f"not evaluated: {', '.join(names)}: needs {lack}" for lack, names in by_lack.items()]
    for summary in (*results.summaries, *results.negative):
        if summary.run.failed:
            first = next(iter(summary.run.failed.items()))
            lines.append(f"{summary.run.method}: {len(summary.run.failed)} queries failed ({first[0]}: {first[1]})")
    if gaps.missing:
        lines.append(f"{len(gaps.missing)} pictures are not in the gallery: {_some(gaps.missing)}")
    if gaps.unreadable:
        reasons = [f"{name} ({why})" for name, why in gaps.unreadable.items()]
        lines.append(f"{len(reasons)} pictures of queries were not encoded: {_some(reasons)}")
    if gaps.dropped:
        lines.append(f"{len(gaps.dropped)} queries were left out: {_some(list(gaps.dropped))}")
    if gaps.unanswerable:
        lines.append(
            f"{len(gaps.unanswerable)} queries have none of their answers in the gallery and count as wrong: "
            f"{_some(gaps.unanswerable)}"
        )
    if gaps.incomplete:
        lines.append(
            f"{len(gaps.incomplete)} queries have candidates that the gallery lacks and are left out of the figures of "
            f"their subset: {_some(gaps.incomplete)}"
        )
    return "\n".join(lines)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _interval(figure: Figure) -> str:
    return f"{figure.low:.1f} to {figure.high:.1f}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [f"{first:{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
