"""What a comparison of models found, for people as tables and for programs as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pocketlens.bench import processor
from pocketlens.graph import default_threads
from pocketlens_bench.asymmetric import Comparison, Row, SetResults
from pocketlens_bench.asymmetric_composed import METRICS as COMPOSED_METRICS
from pocketlens_bench.asymmetric_composed import ComposedRow
from pocketlens_bench.asymmetric_figures import WHOLE, PartFigures
from pocketlens_bench.asymmetric_models import Entrant, Latency, Pair
from pocketlens_bench.asymmetric_sets import HEADLINE, METRICS
from pocketlens_bench.evaluate_report import align
from pocketlens_bench.evaluate_results import Figure

_PACKAGES = ("numpy", "onnxruntime", "pillow", "pocketlens", "tokenizers")
_UNIT = (
    "per cent, with 95 % percentile intervals of 1,000 cluster bootstrap resamples; of_heavy: of what the heavy model "
    "finds by itself, on the same resamples"
)


def to_json(found: Comparison) -> dict[str, Any]:
    """Return everything that is needed to tell what was measured, and on what; no absolute paths."""
    request = found.request
    return {
        "split": request.split,
        "held_styles": list(request.held_styles),
        "limit": request.limit,
        "headline": HEADLINE.name,
        "unit": _UNIT,
        "models": [_model_json(entrant, found.latencies[entrant.label]) for entrant in request.entrants],
        "sets": [_set_json(results) for results in found.sets],
        "composed": [_composed_json(row) for row in found.composed],
        "skipped": dict(found.skipped),
        "machine": {"processor": processor(), "system": f"{platform.system()} {platform.machine()}"},
        "cores": os.cpu_count(),
        "threads": default_threads() if request.threads is None else request.threads,
        "latency_threads": 1,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def to_text(found: Comparison) -> str:
    """Return the tables and what a reader of them must know."""
    parts = [_models_table(found)]
    for results in found.sets:
        parts += [_set_table(results), _parts_table(results), "\n".join(results.queries.notes)]
    if found.composed:
        parts.append(_composed_table(found))
    counted = ", ".join(f"{count} {reason}" for reason, count in found.skipped.items())
    parts.append(f"files that are no readable picture: {counted}" if counted else "")
    return "\n\n".join(part for part in parts if part)


def note_of(pair: Pair) -> str:
    """Return what to know of a pair, or nothing."""
    return "" if pair.cut is None else f"first {pair.cut} dimensions of both"


def _model_json(entrant: Entrant, latency: Latency) -> dict[str, Any]:
    manifest = entrant.model.manifest
    assert manifest.image is not None  # `open_entrants` has looked
    return {
        "label": entrant.label,
        "role": entrant.role,
        "space": manifest.space.id,
        "dim": manifest.space.dim,
        "side": manifest.image.side,
        "precision": manifest.image.precision,
        "image_bytes": entrant.image_bytes,
        "image_sha256": manifest.files[manifest.image.file].sha256,
        "latency_ms_p50": latency.milliseconds,
        "latency_of_heavy": latency.of_heavy,
    }


def _set_json(results: SetResults) -> dict[str, Any]:
    queries = results.queries
    return {
        "sought": queries.title,
        "asked": queries.asked,
        "split": queries.split,
        "queries": len(queries.examples),
        "gallery": len(queries.gallery),
        "chance": round(queries.chance, 3),
        "queries_sha256": queries.sha256,
        "notes": list(queries.notes),
        "rows": [
            {
                "kind": row.pair.kind,
                "query": row.pair.query.label,
                "gallery": row.pair.gallery.label,
                "note": note_of(row.pair),
                "parts": _parts_json(row.parts),
            }
            for row in results.rows
        ],
    }


def _composed_json(row: ComposedRow) -> dict[str, Any]:
    return {
        "query": row.model,
        "method": row.method,
        "used": row.used,
        "lacks": list(row.lacks),
        "parts": _parts_json(row.parts),
    }


def _parts_json(parts: Mapping[str, PartFigures]) -> dict[str, Any]:
    return {
        name: {
            "queries": part.queries,
            "figures": {metric: _figure_json(figure) for metric, figure in part.figures.items()},
            "of_heavy": {metric: _figure_json(figure) for metric, figure in part.shares.items()},
        }
        for name, part in parts.items()
    }


def _figure_json(figure: Figure) -> dict[str, float]:
    return {"value": round(figure.value, 3), "low": round(figure.low, 3), "high": round(figure.high, 3)}


def _models_table(found: Comparison) -> str:
    rows = [["model", "role", "dim", "side", "image MB", "ms a picture", "of heavy", "space"]]
    for entrant in found.request.entrants:
        manifest, latency = entrant.model.manifest, found.latencies[entrant.label]
        assert manifest.image is not None  # `open_entrants` has looked
        name, _, digest = manifest.space.id.partition("@")
        sizes = [str(manifest.space.dim), str(manifest.image.side), f"{entrant.image_bytes / 1e6:.2f}"]
        times = [f"{latency.milliseconds:.2f}", f"{latency.of_heavy:.3f}"]
        rows.append([entrant.label, entrant.role, *sizes, *times, f"{name}@{digest[:8]}"])
    return f"{align(rows)}\nmilliseconds: median of the image towers on one thread, by turns in this process"


def _set_table(results: SetResults) -> str:
    queries = results.queries
    headline = HEADLINE.name
    others = [metric.name for metric in METRICS if metric is not HEADLINE]
    rows = [["query", "gallery", headline, "interval", *others, f"{headline} of heavy", "interval", ""]]
    for row in results.rows:
        whole = row.parts[WHOLE]
        figures = [*_with_interval(whole.figures[headline]), *(f"{whole.figures[name].value:.2f}" for name in others)]
        share = _with_interval(whole.shares.get(headline))
        rows.append([row.pair.query.label, _gallery(row), *figures, *share, note_of(row.pair)])
    asked = {"picture": "by a picture", "view": "by a view of a picture", "text": "by a text"}[queries.asked]
    heading = (
        f"{queries.title}, {asked}: {len(queries.examples)} queries of the split {queries.split} over "
        f"{len(queries.gallery)} pictures; per cent, with 95 % intervals; by chance "
        f"{headline} would be {queries.chance:.2f}"
    )
    return f"{heading}\n{align(rows)}"


def _parts_table(results: SetResults) -> str:
    parts = [name for name in results.rows[0].parts if name != WHOLE]
    if not parts:
        return ""
    sizes = [str(results.rows[0].parts[part].queries) for part in parts]
    rows = [["query", "gallery", *parts], ["queries", "", *sizes]]
    for row in results.rows:
        rows.append([row.pair.query.label, _gallery(row), *(_cell(row.parts[part]) for part in parts)])
    return f"{HEADLINE.name} by part, and in brackets what it is of the heavy model's own\n{align(rows)}"


def _cell(part: PartFigures) -> str:
    share = part.shares.get(HEADLINE.name)
    return f"{part.figures[HEADLINE.name].value:.1f}" + ("" if share is None else f" ({share.value:.0f})")


def _composed_table(found: Comparison) -> str:
    first, *others = (metric.name for metric in COMPOSED_METRICS)
    measured = [row for row in found.composed if row.parts]
    strata = sorted({part for row in measured for part in row.parts if part != WHOLE})
    heading = ["method", "query", first, "interval", *others, f"{first} of heavy", "interval"]
    rows = [[*heading, *(cell for part in strata for cell in (part, "of heavy", "interval"))]]
    for row in measured:
        whole = row.parts[WHOLE]
        figures = [*_with_interval(whole.figures[first]), *(f"{whole.figures[name].value:.2f}" for name in others)]
        cells = [*figures, *_with_interval(whole.shares.get(first))]
        for part in strata:
            cells += [f"{row.parts[part].figures[first].value:.2f}", *_with_interval(row.parts[part].shares.get(first))]
        rows.append([_method(row), row.model, *cells])
    lacking = [f"{row.method} with {row.model}: needs {'; '.join(row.lacks)}" for row in found.composed if row.lacks]
    count = measured[0].parts[WHOLE].queries if measured else 0
    title = f"composed queries of EmojiCIR over the heavy model's gallery: {count} queries; per cent"
    return "\n".join([title, *([align(rows)] if measured else []), *lacking])


def _method(row: ComposedRow) -> str:
    return row.method if row.used in (None, row.method) else f"{row.method} ({row.used})"


def _gallery(row: Row) -> str:
    return f"{row.pair.gallery.label}{', control' if row.pair.kind == 'light-heavy raw' else ''}"


def _with_interval(figure: Figure | None) -> Sequence[str]:
    return ("", "") if figure is None else (f"{figure.value:.2f}", _interval(figure))


def _interval(figure: Figure) -> str:
    return f"{figure.low:.1f} to {figure.high:.1f}"
