from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pocketlens.errors import PocketlensError
from pocketlens_bench.asymmetric_tables import composed_rows, guide, model_rows, section, set_rows
from pocketlens_bench.tables import expected_files, main


def _figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 1.04, "high": value + 1.04}


def _part(recall: float, share: float | None) -> dict[str, Any]:
    metrics = {"R@1": recall / 4, "R@5": recall / 2, "R@10": recall, "mAP@10": recall / 8}
    shares = {} if share is None else {"R@10": _figure(share), "mAP@10": _figure(share)}
    figures = {name: _figure(value) for name, value in metrics.items()}
    return {"all": {"queries": 70, "figures": figures, "of_heavy": shares}}


def _row(kind: str, query: str, gallery: str, recall: float, share: float | None) -> dict[str, Any]:
    return {"kind": kind, "query": query, "gallery": gallery, "note": "", "parts": _part(recall, share)}


def _set(asked: str) -> dict[str, Any]:
    rows = [
        _row("heavy-heavy", "big", "big", 80.0, 100.0),
        _row("light-light", "foreign", "foreign", 44.0, 55.0),
        _row("light-light", "ridge", "ridge", 43.0, 54.0),
        _row("light-light", "raml", "raml", 48.0, 60.0),
        _row("light-heavy raw", "foreign", "big", 0.4, None),
        _row("light-heavy", "ridge", "big", 20.0, 25.0),
        _row("light-heavy", "raml", "big", 40.0, 50.0),
    ]
    return {
        "sought": "it",
        "asked": asked,
        "split": "test",
        "queries": 1234,
        "gallery": 5678,
        "chance": 0.21,
        "rows": rows,
    }


@pytest.fixture
def report() -> dict[str, Any]:
    """A made-up result of a map and a loss."""
    roles = {"big": "heavy", "foreign": "light", "ridge": "query", "raml": "query", "other": "query"}
    sizes = {"dim": 384, "side": 64, "image_bytes": 11_920_000, "latency_ms_p50": 1.5, "latency_of_heavy": 0.4}
    composed = [("big", "sum", 8.0, 100.0), ("raml", "sum", 4.0, 50.0), ("isa", "isa", 2.0, None)]
    return {
        "headline": "R@10",
        "models": [{"label": label, "role": role, **sizes} for label, role in roles.items()],
        "sets": [_set("picture"), _set("view")],
        "composed": [
            *({"query": q, "method": m, "parts": _part(8 * value, share)} for q, m, value, share in composed),
            {"query": "raml", "method": "isa", "parts": {}},
        ],
        "machine": {"processor": "CPU", "system": "Linux x86_64"},
        "cores": 2,
        "threads": 1,
        "latency_threads": 1,
        "versions": {"numpy": "2"},
        "study": {
            "maps": ["ridge"],
            "losses": ["raml"],
            "pictures": 20_000,
            "quality": {"raml": {"asymmetric_mean_cosine": 0.81234}},
            "commands": {"raml": "pocketlens fit distill --out WORK/raml"},
        },
    }


def test_a_row_tells_what_a_model_finds_over_both_galleries(report: dict[str, Any]) -> None:
    rows = set_rows(report, "view")
    assert [row["query model"] for row in rows] == ["big", "foreign", "ridge", "raml"]
    assert [row["how"] for row in rows] == ["the heavy model itself", "no map: the control", "aligned", "distilled"]
    assert rows[1] == {
        "query model": "foreign", "how": "no map: the control", "R@1": 0.1, "R@5": 0.2, "R@10": 0.4,
        "95 % interval": "-0.6 to 1.4", "mAP@10": 0.1, "of heavy's R@10": None, "R@10 over its own gallery": 44.0,
    }  # fmt: skip
    assert (rows[3]["R@10"], rows[3]["of heavy's R@10"], rows[3]["R@10 over its own gallery"]) == (40.0, 50.0, 48.0)


def test_methods_that_a_model_lacks_are_empty(report: dict[str, Any]) -> None:
    big, raml, isa = composed_rows(report)
    assert (big["sum, mAP@10"], big["isa, mAP@10"]) == (8.0, None)
    assert (raml["sum, of heavy's"], raml["isa, mAP@10"]) == (50.0, None)
    assert (isa["sum, mAP@10"], isa["isa, mAP@10"], isa["isa, of heavy's"]) == (None, 2.0, None)
    assert isa["how"] == "distilled, and its features made words"


def test_models_have_their_size_and_their_nearness(report: dict[str, Any]) -> None:
    rows = {row["model"]: row for row in model_rows(report)}
    assert (rows["raml"]["image tower MB"], rows["raml"]["mean cosine to heavy"]) == (11.9, 0.812)
    assert (rows["other"]["how"], rows["other"]["mean cosine to heavy"]) == ("a query model", None)


def test_the_documents_have_the_tables(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    marked = {
        "README.md": ("measured", "composed"),
        "ARCHITECTURE.md": ("imports",),
        "docs/composition.md": ("methods",),
        "docs/asymmetric.md": ("asymmetric",),
    }
    for name, markers in marked.items():
        text = "".join(f"<!-- {marker}:begin -->\n<!-- {marker}:end -->\n" for marker in markers)
        (tmp_path / name).write_text(text)
    path = tmp_path / "benchmarks" / "results" / "asymmetric.json"
    path.write_text(json.dumps(report))
    files = expected_files(tmp_path, {})
    assert guide(report) in files[tmp_path / "docs" / "asymmetric.md"]
    assert files[tmp_path / "docs" / "measurements.md"].endswith(section(report))
    assert "| ridge | aligned | 5 | 10 | 20 | 19.0 to 21.0 | 2.5 | 25 | 43 |" in guide(report)
    assert "1,234 emoji of test concepts, sought among 5,678 pictures" in guide(report)
    assert "- raml: `python -m pocketlens fit distill --out WORK/raml`" in section(report)
    assert CliRunner().invoke(main, ["--root", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "docs" / "plots" / "asymmetric.svg").stat().st_size > 1_000
    assert CliRunner().invoke(main, ["--check", "--root", str(tmp_path)]).exit_code == 0
    other = copy.deepcopy(report)
    other["sets"][0]["rows"][0]["parts"] = _part(81.0, 100.0)
    path.write_text(json.dumps(other))
    assert "docs/asymmetric.md" in CliRunner().invoke(main, ["--check", "--root", str(tmp_path)]).output
    (tmp_path / "docs" / "asymmetric.md").write_text("no markers")
    with pytest.raises(PocketlensError, match=r"docs/asymmetric\.md: expected <!-- asymmetric:begin -->"):
        expected_files(tmp_path, {})


def test_without_a_result_nothing_is_told() -> None:
    assert section({}) == ""
