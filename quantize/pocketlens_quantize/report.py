"""The proof for people: a page with tables, quantization.md, and a plot, quantization.svg, beside the towers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketlens.model import ModelManifest
from pocketlens_quantize.gate import Gate
from pocketlens_quantize.plan import STORAGE
from pocketlens_quantize.search import PAYS, Found
from pocketlens_quantize.trial import Trial

PAGE, PLOT = "quantization.md", "quantization.svg"


@dataclass(frozen=True, slots=True)
class TowerReport:
    """What is told of one tower."""

    tower: str
    found: Found
    gate: Gate


def write_report(folder: Path, manifest: ModelManifest, reports: Sequence[TowerReport]) -> None:
    """Write the page and the plot into a model folder."""
    (folder / PAGE).write_text(page(manifest, reports), encoding="utf-8")
    _write_plot(folder / PLOT, reports)


def page(manifest: ModelManifest, reports: Sequence[TowerReport]) -> str:
    """Return the page as Markdown."""
    made = manifest.quantization
    assert made is not None
    timed = (
        f"Timed on {made.timed_on}." if made.timed_on else "Latency is unmeasured: no processor of that kind was here."
    )
    parts = [
        f"# {manifest.name}, quantized for {made.target}\n",
        f"{timed} Calibration and search looked at the calibration inputs (sha256 {made.calibration_sha256[:16]}…);",
        f"the first table is of the measuring inputs (sha256 {made.measuring_sha256[:16]}…), which chose nothing.",
        "The gate holds for int8 queries on a float32 gallery; one encoded in int8 loses a little more, as shown.\n",
        _table(
            ("", *(report.tower for report in reports)),
            proof_rows(manifest.quality, [report.tower for report in reports]),
        ),
        f"![latency and fidelity of every plan]({PLOT})\n",
    ]
    for report in reports:
        parts += [f"## {report.tower} tower\n", _reason(report) + "\n", _trials(report)]
    return "\n".join(parts)


def proof_rows(quality: Mapping[str, float], towers: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the rows of the proof: what is measured, then a cell for each tower."""
    rows = [
        ("size, MB (float32)", "{bytes:.1f} ({float_bytes:.1f})", 1e-6),
        ("size over float32", "{size_ratio:.3f}", 1),
        ("latency p50, ms (float32)", "{latency_ms_p50:.2f} ({float_latency_ms_p50:.2f})", 1),
        ("latency p95, ms (float32)", "{latency_ms_p95:.2f} ({float_latency_ms_p95:.2f})", 1),
        ("latency over float32", "{latency_ratio:.3f}", 1),
        ("cosine to float32: mean", "{cosine_mean:.5f}", 1),
        ("cosine: 1st percentile", "{cosine_p1:.5f}", 1),
        ("cosine: least", "{cosine_min:.5f}", 1),
        ("cosine of features to float32's: mean", "{features_cosine_mean:.5f}", 1),
        ("cosine alone against in a padded batch: least", "{cosine_alone_and_in_batch_min:.6f}", 1),
        ("agreement@1 with float32's exact answers, int8 on int8", "{agreement_at_1_int8_on_int8:.4f}", 1),
        ("agreement@10, int8 on int8", "{agreement_at_10_int8_on_int8:.4f}", 1),
        ("agreement@1, int8 queries on the float32 gallery", "{agreement_at_1_int8_on_float:.4f}", 1),
        ("agreement@10, int8 queries on the float32 gallery", "{agreement_at_10_int8_on_float:.4f}", 1),
    ]
    rows += [
        (f"labelled recall@{k}, {case.replace('_', ' ')}", f"{{recall_at_{k}_{case}:.4f}}", 1)
        for case in ("float_on_float", "int8_on_int8", "int8_on_float", "float_on_int8")
        for k in (1, 5, 10)
    ]
    filled = []
    for title, pattern, factor in rows:
        cells = [_fill(pattern, quality, name, factor) for name in towers]
        if any(cells):
            filled.append((title, *(cell or "-" for cell in cells)))
    return filled


def _fill(pattern: str, quality: Mapping[str, float], tower: str, factor: float) -> str:
    own = {name.removeprefix(f"{tower}_"): value * factor for name, value in quality.items()}
    own["size_ratio"] = quality[f"{tower}_bytes"] / quality[f"{tower}_float_bytes"]
    try:
        return pattern.format(**own)
    except KeyError:
        return ""


def _reason(report: TowerReport) -> str:
    best = report.found.best
    assert best is not None
    if best.plan.method in STORAGE and best.latency_ratio is not None:
        quickest = min(_ratios(report.found.trials), default=None)
        why = ": int8 arithmetic gains nothing here that passes the gate"
        why += f" (quickest without the gate: {quickest:.2f}x)" if quickest else ""
        chosen = f"Stays float32 in arithmetic, with smaller weights on disk ({best.plan.label}){why}."
    else:
        chosen = f"Chosen: {best.plan.label}."
    nodes = ""
    for exempt, what in ((best.plan.weights8, "8-bit weights"), (best.plan.floats, "float32")):
        nodes += f" In {what}: {', '.join(f'`{name}`' for name in exempt)}." if exempt else ""
    gate = f" Gate: mean cosine {report.gate.cosine:g}, agreement@10 {report.gate.agreement:g}, at most "
    gate += f"{report.gate.recall:g} points of labelled recall@10."
    short = "" if report.found.finished else " The search ran out of time; a longer one may find a faster plan."
    return chosen + nodes + gate + short + f" A plan counts as faster below {PAYS} of float32's latency."


def _ratios(trials: Sequence[Trial]) -> list[float]:
    return [t.latency_ratio for t in trials if t.latency_ratio is not None and t.plan.method not in STORAGE]


def _trials(report: TowerReport) -> str:
    header = ("plan (on the inputs that steer)", "MB", "latency over float32", "mean cosine", "1st percentile",
              "agreement@10", "alone against in a batch", "")  # fmt: skip
    rows = []
    for trial in report.found.trials:
        if trial.failed is not None:
            rows.append((trial.plan.label, "-", "-", "-", "-", "-", "-", trial.failed))
            continue
        rows.append((
            trial.plan.label, f"{trial.size_bytes / 1e6:.1f}",
            "unmeasured" if trial.latency_ratio is None else f"{trial.latency_ratio:.2f}",
            f"{trial.cosine_mean:.5f}", f"{trial.cosine_p1:.5f}", f"{trial.agreement_at_10:.4f}",
            f"{trial.same_in_batch:.5f}", "chosen" if trial is report.found.best else "",
        ))  # fmt: skip
    return _table(header, rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _write_plot(path: Path, reports: Sequence[TowerReport]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "pocketlens", "svg.fonttype": "none", "font.size": 8})
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(reports), 3.6), layout="constrained")
    for axes, report in zip(figure.subplots(1, len(reports), squeeze=False)[0], reports, strict=True):
        _draw(axes, report)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def _draw(axes: Any, report: TowerReport) -> None:
    """Draw agreement@10 over latency (size where no latency was measured), the chosen plan filled."""
    trials = [trial for trial in report.found.trials if trial.failed is None]
    timed = all(trial.latency_ratio is not None for trial in trials)
    for trial in trials:
        across = trial.latency_ratio if timed else trial.size_bytes / 1e6
        chosen = trial is report.found.best
        axes.scatter(across, trial.agreement_at_10, s=40, c="tab:red" if chosen else "white", edgecolors="tab:blue")
        axes.annotate(trial.plan.label, (across, trial.agreement_at_10), fontsize=5, rotation=20,
                      xytext=(3, 3), textcoords="offset points")  # fmt: skip
    axes.axhline(report.gate.agreement, linestyle=":", color="grey")
    if timed:
        axes.axvline(1.0, linestyle=":", color="grey")
    axes.set_title(f"{report.tower}: red is chosen, dotted are the gate and float32's latency", fontsize=8)
    axes.set_xlabel("latency over float32" if timed else "size, MB")
    axes.set_ylabel("agreement@10 with float32")
