from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pocketlens_bench.backbones_tables import SHIPPED, cost_rows, found_rows, guide, section, tower_rows
from pocketlens_bench.tables import main


def _row(kind: str, query: str, recall: float) -> dict[str, Any]:
    metrics = {"R@1": recall / 4, "R@10": recall}
    figures = {name: {"value": value, "low": value - 1.04, "high": value + 1.04} for name, value in metrics.items()}
    return {"kind": kind, "query": query, "gallery": "big", "parts": {"all": {"queries": 70, "figures": figures}}}


def _set(asked: str, found: dict[str, float]) -> dict[str, Any]:
    rows = [_row("heavy-heavy" if query == "big" else "light-heavy", query, value) for query, value in found.items()]
    rows += [{**_row("light-light", query, value + 1), "gallery": query} for query, value in found.items()][1:]
    shown = {"split": "validation", "queries": 1234, "gallery": 5678, "chance": 0.21, "sought": "it"}
    return {"asked": asked, "rows": rows, **shown}


def _tower(precision: str, bytes: int, plans: list[dict[str, str]]) -> dict[str, Any]:
    quality = {
        "reparameterization_max_abs": 1e-7,
        "asymmetric_mean_cosine": 0.81234,
        "image_agreement_at_10_int8_on_float": 0.8891,
    }
    shown = {"nodes": 80, "convolutions": 46, "batch_norms": 0, "quality": quality}
    return {"precision": precision, "bytes": bytes, "plans": plans, **shown}


def _plan(label: str, ratio: str, cosine: str) -> dict[str, str]:
    return {"plan (on the inputs that steer)": label, "latency over float32": ratio, "mean cosine": cosine}


@pytest.fixture
def report() -> dict[str, Any]:
    """A made-up result of one backbone that became int8, and one that was refused."""
    found = {"big": 80.0, SHIPPED: 60.0, "quick": 40.0, "quick-int8": 36.0, "slow": 20.0}
    plans = [_plan("int8 storage", "1.00", "1"), _plan("static int8, minmax", "0.61", "0.98")]
    plans += [_plan("static int8, entropy", "0.52", "0.97"), _plan("static int8, entropy, 3 nodes float32", "0.4", "1")]
    times = {"ms_p50": 1.5, "of_float32": None, "of_heavy": 0.25}
    quick, small = times | {"ms_p50": 2.0}, times | {"ms_p50": 1.0, "of_float32": 0.51, "of_heavy": 0.1}
    own = {"big": times, SHIPPED: times, "quick": quick, "quick-int8": small, "slow": times}
    study = {
        "side": 64, "pictures": 4_000, "steps": 200, "batch": 32, "rate": 0.003,
        "commands": {"quick": "pocketlens fit distill --out WORK/quick"},
        "towers": {
            "big": _tower("int8", 5_000_000, []), SHIPPED: _tower("int8", 4_000_000, []),
            "quick": _tower("float32", 12_000_000, []), "quick-int8": _tower("static int8", 3_001_000, plans),
            "slow": _tower("float32", 9_000_000, []),
        },
        "step_seconds": {"quick": 0.25, "slow": 1.5},
        "int8_cosines": {"quick-int8": {"mean": 0.98765, "percentile_1": 0.9}},
        "latency": {"own": own, "112": {"quick": quick, "quick-int8": small}, "256": {}},
        "refused": {"slow-int8": "nothing reaches the gate"},
        "missing": ["never"],
    }  # fmt: skip
    labels = {"big": "heavy"} | dict.fromkeys([SHIPPED, "quick", "quick-int8", "slow"], "query")
    return {
        "headline": "R@10", "sets": [_set("picture", found), _set("view", found)], "study": study, "versions": {},
        "models": [{"label": label, "role": role, "latency_ms_p50": 1.5} for label, role in labels.items()],
        "machine": {"processor": "CPU", "system": "Linux x86_64", "int8_target": "x86-64"}, "cores": 2, "threads": 1,
    }  # fmt: skip


def test_a_row_tells_what_a_tower_finds_over_the_heavy_gallery(report: dict[str, Any]) -> None:
    rows = found_rows(report)
    assert [row["tower"] for row in rows] == ["big", SHIPPED, "quick", "quick, int8", "slow"]
    assert rows[3] == {
        "tower": "quick, int8", "precision": "static int8", "MB": 3.0,
        "same emoji: R@1": 9.0, "same emoji: R@10": 36.0, "same emoji: 95 % interval": "35.0 to 37.0",
        "view: R@1": 9.0, "view: R@10": 36.0, "view: 95 % interval": "35.0 to 37.0",
        "view, own gallery: R@10": 37.0, "mean cosine to lens-base": 0.812, "cosine to float32": 0.9877,
        "agreement@10 with float32": 0.889,
    }  # fmt: skip


def test_what_could_not_be_timed_is_empty(report: dict[str, Any]) -> None:
    quick, slow = cost_rows(report)
    assert (quick["backbone"], quick["s/step"], quick["64 px: float32 ms"], quick["int8 ms at 64"]) == (
        "quick", 0.25, 2.0, 1.0,
    )  # fmt: skip
    assert (quick["int8/float32 at 112"], quick["int8/lens-base at 112"]) == (0.51, 0.1)
    assert (quick["256 px: float32 ms"], slow["int8 ms at 64"], slow["64 px: float32 ms"]) == (None, None, 1.5)


def test_int8_of_everything_is_the_quickest_plan_of_all_nodes(report: dict[str, Any]) -> None:
    rows = {row["tower"]: row for row in tower_rows(report)}
    assert rows["quick, int8"]["all of it int8: latency over float32"] == 0.52
    assert rows["quick, int8"]["all of it int8: mean cosine"] == 0.97
    assert rows["quick"]["all of it int8: mean cosine"] is None
    assert (rows["slow"]["batch norms"], rows["slow"]["folding changed at most"]) == (0, 1e-7)


def test_the_documents_have_the_tables(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    marked = {
        "README.md": ("measured", "composed"), "ARCHITECTURE.md": ("imports",), "docs/composition.md": ("methods",),
        "docs/asymmetric.md": ("backbones",),
    }  # fmt: skip
    for name, markers in marked.items():
        text = "".join(f"<!-- {marker}:begin -->\n<!-- {marker}:end -->\n" for marker in markers)
        (tmp_path / name).write_text(text)
    path = tmp_path / "benchmarks" / "results" / "backbones.json"
    path.write_text(json.dumps(report))
    assert CliRunner().invoke(main, ["--root", str(tmp_path)]).exit_code == 0
    assert guide(report) in (tmp_path / "docs" / "asymmetric.md").read_text()
    assert (tmp_path / "docs" / "measurements.md").read_text().endswith(section(report))
    assert (tmp_path / "docs" / "plots" / "backbones.svg").stat().st_size > 1_000
    assert "Not trained for want of time: never. slow-int8: nothing reaches the gate." in guide(report)
    assert CliRunner().invoke(main, ["--check", "--root", str(tmp_path)]).exit_code == 0
    report["sets"][0]["rows"][0] = _row("heavy-heavy", "big", 81.0)
    path.write_text(json.dumps(report))
    assert "docs/asymmetric.md" in CliRunner().invoke(main, ["--check", "--root", str(tmp_path)]).output


def test_without_a_result_nothing_is_told() -> None:
    assert section({}) == ""
