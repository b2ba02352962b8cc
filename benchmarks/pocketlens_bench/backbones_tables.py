"""Tables of what `backbones` wrote: what each backbone costs, and what it finds as float32 and as int8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketlens_bench.asymmetric_tables import how_made
from pocketlens_bench.markdown import markdown_table
from pocketlens_bench.measure import Row

NAME = "backbones"  # benchmarks/results/<NAME>.json, docs/plots/<NAME>.svg
MARKER = "backbones"  # in docs/asymmetric.md
INT8 = "-int8"  # after a backbone's name
SHIPPED = "lens-tiny as it ships"
_ASKED = {"picture": "same emoji", "view": "view"}


def guide(report: Mapping[str, Any]) -> str:
    """Return what docs/asymmetric.md shows of backbones."""
    found, cost = markdown_table(found_rows(report)), markdown_table(cost_rows(report))
    return f"\n{source(report)}\n{found}\n{cost}\n![Recall against latency](plots/{NAME}.svg)\n\n"


def section(report: Mapping[str, Any]) -> str:
    """Return what docs/measurements.md says of backbones, or nothing where there is no result."""
    if not report:
        return ""
    machine, study = report["machine"], report["study"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    where = f"{machine['processor']} (int8 target {machine['int8_target']}), {report['cores']} cores"
    parts = ["## Backbones of lens-tiny\n", "What was compared, and what came of it, is in asymmetric.md.\n"]
    parts += [f"{where}, {machine['system']}; threads: {report['threads']}, of latencies 1. {versions}.\n"]
    parts += [f"### Towers\n\n{markdown_table(tower_rows(report))}"]
    parts += [how_made(study)]
    return "\n" + "\n".join(parts)


def found_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row per tower: its size, and what it finds over the heavy gallery, in per cent."""
    sets = {each["asked"]: each for each in report["sets"] if each["asked"] in _ASKED}
    rows: list[Row] = []
    for label, tower in report["study"]["towers"].items():
        row: Row = {"tower": _title(label), "precision": tower["precision"], "MB": round(tower["bytes"] / 1e6, 2)}
        for asked, title in _ASKED.items():
            [found] = [each for each in sets[asked]["rows"] if each["query"] == label and _over_heavy(each)]
            figures = found["parts"]["all"]["figures"]
            row[f"{title}: R@1"] = round(figures["R@1"]["value"], 1)
            row[f"{title}: R@10"] = round(figures["R@10"]["value"], 1)
            row[f"{title}: 95 % interval"] = f"{figures['R@10']['low']:.1f} to {figures['R@10']['high']:.1f}"
        own = [each for each in sets["view"]["rows"] if each["query"] == label and each["gallery"] == label]
        row["view, own gallery: R@10"] = round(own[0]["parts"]["all"]["figures"]["R@10"]["value"], 1)
        near = report["study"]["int8_cosines"].get(label)
        row["mean cosine to lens-base"] = _rounded(tower["quality"].get("asymmetric_mean_cosine"))
        row["cosine to float32"] = None if near is None else round(near["mean"], 4)
        row["agreement@10 with float32"] = _rounded(tower["quality"].get("image_agreement_at_10_int8_on_float"))
        rows.append(row)
    return rows


def cost_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row per backbone: seconds of a training step, and the time of a picture by side, float32 and int8."""
    study = report["study"]
    latency = study["latency"]
    names = [name for name in study["towers"] if name + INT8 in study["towers"] or name in study["step_seconds"]]
    rows: list[Row] = []
    for name in names:
        row: Row = {"backbone": name, "s/step": study["step_seconds"].get(name)}
        for side, title in (("own", str(study["side"])), ("112", "112"), ("256", "256")):
            small = latency[side].get(name + INT8, {})
            row[f"{title} px: float32 ms"] = latency[side].get(name, {}).get("ms_p50")
            row["int8 ms" + f" at {title}"] = small.get("ms_p50")
            row[f"int8/float32 at {title}"] = small.get("of_float32")
            row[f"int8/lens-base at {title}"] = small.get("of_heavy")
        rows.append(row)
    return rows


def tower_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row per tower: nodes of its graph, and how int8 of everything would have done."""
    rows: list[Row] = []
    for label, tower in report["study"]["towers"].items():
        whole = [plan for plan in tower["plans"] if plan["plan (on the inputs that steer)"] in _WHOLE]
        best = min(whole, key=lambda plan: float(plan["latency over float32"]), default=None)
        rows.append(
            {
                "tower": _title(label),
                "nodes": tower["nodes"],
                "convolutions": tower["convolutions"],
                "batch norms": tower["batch_norms"],
                "folding changed at most": tower["quality"].get("reparameterization_max_abs"),
                "all of it int8: latency over float32": None if best is None else float(best["latency over float32"]),
                "all of it int8: mean cosine": None if best is None else float(best["mean cosine"]),
            }
        )
    return rows


_WHOLE = tuple(f"static int8, {ranges}" for ranges in ("minmax", "percentile", "entropy"))


def source(report: Mapping[str, Any]) -> str:
    """Return what was measured, in one paragraph."""
    sets, study = {each["asked"]: each for each in report["sets"]}, report["study"]
    other, views = sets["picture"], sets["view"]
    missing = f" Not trained for want of time: {', '.join(study['missing'])}." if study["missing"] else ""
    refused = "".join(f" {name}: {why}." for name, why in study["refused"].items())
    return (
        f"Every backbone from the same seed, at {study['side']} pixels, {study['steps']} steps of {study['batch']} of "
        f"{study['pictures']:,} pictures, rate {study['rate']:g}.{missing}{refused} {other['queries']:,} emoji of "
        f"{other['split']} concepts, sought among {other['gallery']:,} pictures by other vendors' (chance: "
        f"{report['headline']} {other['chance']:.2g}); {views['queries']:,} views of pictures of validation concepts, "
        f"sought among those (chance {views['chance']:.2g}); the gallery is lens-base's. "
        f"{report['machine']['processor']}, int8 target {report['machine']['int8_target']}; times of one thread, by "
        "turns in one process. "
        f"`{SHIPPED}` was trained otherwise, longer and from ImageNet weights, at 112 pixels: it is no part of "
        "the comparison. `python -m pocketlens_bench.backbones` measures again.\n"
    )


def _over_heavy(row: Mapping[str, Any]) -> bool:
    return row["kind"] in ("heavy-heavy", "light-heavy")


def _title(label: str) -> str:
    return f"{label.removesuffix(INT8)}, int8" if label.endswith(INT8) else label


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
