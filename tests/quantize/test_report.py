from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pocketlens.model import Model, ModelManifest, Quantization
from pocketlens_quantize.gate import Gate
from pocketlens_quantize.plan import Plan
from pocketlens_quantize.report import PAGE, PLOT, TowerReport, page, proof_rows, write_report
from pocketlens_quantize.search import Found
from pocketlens_quantize.trial import Trial

GATE = Gate(0.99, 0.95, 1.0)
STATIC = Trial(Plan("static", "minmax", floats=("stem", "end")), 2_000_000, 0.9931, 0.98, 0.97, 0.961, 0.99999, 0.5)
STORED = Trial(Plan("float16"), 4_000_000, 0.99999, 0.9999, 0.9999, 0.999, 1.0, 1.01)
WEIGHTS = Trial(Plan("weights8"), 3_000_000, 0.9987, 0.99, 0.98, 0.97, 0.9999, 0.8)
FAILED = Trial(Plan("optimum"), failed="MissingPart: no optimum")
QUALITY = {
    "image_bytes": 2_000_000.0, "image_float_bytes": 8_000_000.0, "image_cosine_mean": 0.9931,
    "image_cosine_p1": 0.98, "image_cosine_min": 0.97, "image_cosine_alone_and_in_batch_min": 0.99999,
    "image_latency_ms_p50": 1.25, "image_float_latency_ms_p50": 2.5, "image_latency_ms_p95": 1.5,
    "image_float_latency_ms_p95": 3.0, "image_latency_ratio": 0.5, "image_agreement_at_10_int8_on_float": 0.961,
    "text_bytes": 3_000_000.0, "text_float_bytes": 10_000_000.0, "text_cosine_mean": 0.9987,
    "text_recall_at_10_int8_on_float": 0.75,
}  # fmt: skip


@pytest.fixture
def manifest(colours: Path) -> ModelManifest:
    made = Quantization("x86-64", "Some Processor, 1 thread", {}, "a" * 64, "b" * 64)
    return dataclasses.replace(Model.open(colours).manifest, quality=QUALITY, quantization=made)


def report(best: Trial, *trials: Trial, finished: bool = True, tower: str = "image") -> TowerReport:
    return TowerReport(tower, Found(best, trials, finished), GATE)


def test_rows_are_by_tower_and_leave_out_what_no_tower_has() -> None:
    rows = {title: cells for title, *cells in proof_rows(QUALITY, ["text", "image"])}
    assert rows["size, MB (float32)"] == ["3.0 (10.0)", "2.0 (8.0)"]
    assert rows["size over float32"] == ["0.300", "0.250"]
    assert rows["latency p50, ms (float32)"] == ["-", "1.25 (2.50)"]
    assert rows["latency p95, ms (float32)"] == ["-", "1.50 (3.00)"]
    assert rows["latency over float32"] == ["-", "0.500"]
    assert rows["cosine to float32: mean"] == ["0.99870", "0.99310"]
    assert rows["agreement@10, int8 queries on the float32 gallery"] == ["-", "0.9610"]
    assert rows["labelled recall@10, int8 on float"] == ["0.7500", "-"]
    assert not [title for title in rows if "agreement@1 " in title or "recall@5" in title]


def test_a_tower_alone_has_its_own_column_only() -> None:
    rows = proof_rows(QUALITY, ["text"])
    assert all(len(row) == 2 and row[1] != "-" for row in rows)
    assert not [row for row in rows if "latency" in row[0]]


def test_the_page_tells_what_was_chosen_and_every_trial(manifest: ModelManifest) -> None:
    told = page(manifest, [report(STATIC, STORED, STATIC, WEIGHTS, FAILED)])
    assert "# colours, quantized for x86-64" in told
    assert "Timed on Some Processor, 1 thread" in told
    assert "aaaaaaaaaaaaaaaa…" in told and "bbbbbbbbbbbbbbbb…" in told
    assert "Chosen: static int8, minmax, 2 nodes float32. In float32: `stem`, `end`." in told
    assert "Gate: mean cosine 0.99, agreement@10 0.95, at most 1 points of labelled recall@10." in told
    assert "ran out of time" not in told
    trials = [line for line in told.splitlines() if line.startswith(("| float16", "| static", "| 8-bit", "| optimum"))]
    assert trials == [
        "| float16 storage | 4.0 | 1.01 | 0.99999 | 0.99990 | 0.9990 | 1.00000 |  |",
        "| static int8, minmax, 2 nodes float32 | 2.0 | 0.50 | 0.99310 | 0.98000 | 0.9610 | 0.99999 | chosen |",
        "| 8-bit weights | 3.0 | 0.80 | 0.99870 | 0.99000 | 0.9700 | 0.99990 |  |",
        "| optimum preset | - | - | - | - | - | - | MissingPart: no optimum |",
    ]


def test_exempt_nodes_are_told_by_what_they_became(manifest: ModelManifest) -> None:
    mixed = dataclasses.replace(STATIC, plan=Plan("static", "minmax", weights8=("up", "down"), floats=("stem",)))
    assert "In 8-bit weights: `up`, `down`. In float32: `stem`. Gate:" in page(manifest, [report(mixed, mixed)])
    assert "In 8-bit" not in page(manifest, [report(WEIGHTS, WEIGHTS)])


def test_tables_have_as_many_cells_in_every_row(manifest: ModelManifest) -> None:
    told = page(manifest, [report(STATIC, STATIC, FAILED), report(WEIGHTS, WEIGHTS, tower="text")])
    for table in re.findall(r"(?:^\|.*\n)+", told, flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_tower_that_int8_makes_slower_is_said_to_stay_float(manifest: ModelManifest) -> None:
    slow = Trial(Plan("static", "minmax"), 2_000_000, 0.993, 0.98, 0.97, 0.96, 1.0, latency_ratio=1.82)
    told = page(manifest, [report(STORED, STORED, slow)])
    assert "Stays float32 in arithmetic, with smaller weights on disk (float16 storage)" in told
    assert "(quickest without the gate: 1.82x)" in told


def test_a_search_that_ran_out_of_time_says_so(manifest: ModelManifest) -> None:
    assert "The search ran out of time" in page(manifest, [report(STATIC, STATIC, finished=False)])


def test_what_was_not_timed_is_called_unmeasured(manifest: ModelManifest) -> None:
    assert manifest.quantization is not None
    made = dataclasses.replace(manifest.quantization, timed_on=None)
    untimed = dataclasses.replace(STATIC, latency_ratio=None)
    told = page(dataclasses.replace(manifest, quantization=made), [report(untimed, untimed)])
    assert "Latency is unmeasured" in told and "Timed on" not in told
    assert "| static int8, minmax, 2 nodes float32 | 2.0 | unmeasured |" in told


@pytest.mark.parametrize("ratio", [0.5, None])
def test_the_plot_is_the_same_each_time_and_names_every_plan(
    manifest: ModelManifest, tmp_path: Path, ratio: float | None
) -> None:
    trials = [dataclasses.replace(trial, latency_ratio=ratio) for trial in (STATIC, WEIGHTS)]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, manifest, [report(trials[0], *trials, FAILED)])
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [PAGE, PLOT]
    drawn = (tmp_path / "first" / PLOT).read_bytes()
    assert drawn == (tmp_path / "second" / PLOT).read_bytes()
    ElementTree.fromstring(drawn)
    text = drawn.decode()
    for label in ("static int8, minmax", "8-bit weights", "latency over float32" if ratio else "size, MB"):
        assert label in text
    assert "optimum preset" not in text
