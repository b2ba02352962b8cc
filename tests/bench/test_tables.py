from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pocketlens.compose import METHODS
from pocketlens.errors import PocketlensError
from pocketlens_bench.markdown import markdown_table
from pocketlens_bench.measure import RESULTS, ROOT
from pocketlens_bench.tables import between, main, measurements, read_all, readme_table


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of two documents and one made-up result."""
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "before\n<!-- measured:begin -->\n<!-- measured:end -->\n"
        "<!-- composed:begin -->\n<!-- composed:end -->\nafter\n"
    )
    (tmp_path / "docs" / "composition.md").write_text("<!-- methods:begin -->\n<!-- methods:end -->\n")
    (tmp_path / "ARCHITECTURE.md").write_text("<!-- imports:begin -->\n<!-- imports:end -->\n")
    _write(tmp_path, _codes(0.973))
    return tmp_path


def _write(root: Path, result: dict[str, Any]) -> None:
    (root / "benchmarks" / "results" / "codes.json").write_text(json.dumps(result))


def _codes(recall: float) -> dict[str, Any]:
    names = ("float32, NumPy", "USearch's own cast", "rounding", "ours", "re-scored")
    columns = {"text recall@10": recall, "picture recall@10": recall, "p50 ms": 3.0, "time ratio to float32": 0.5}
    return {
        "script": "codes",
        "command": "python -m pocketlens_bench codes",
        "commit": "c0ffee",
        "machine": {"processor": "CPU", "cores": 2, "memory_gb": 4.0, "system": "Linux x86_64"},
        "versions": {"numpy": "2"},
        "settings": {"rows": 100_000, "dim": 512},
        "threads": 1,
        "tables": {"Exhaustive search": [{"codes": name, **columns} for name in names]},
        "bars": [{"what": "recall", "bar": ">= 0.96", "measured": recall, "met": recall >= 0.96}],
        "notes": ["Made up."],
    }


def _quantization() -> dict[str, Any]:
    def row(tower: str, what: str, ms: float | None, how: str = "") -> dict[str, Any]:
        times = {"p50 ms": ms, "time over ONNX float32": None if ms is None else ms / 30}
        quality = {"mean cosine": None if ms is None else 0.99912, "agreement@10": None if ms is None else 0.97}
        return {"tower": tower, "what": what, **times, "MB": None if ms is None else 8.0, **quality, "how": how}

    first = [row("text", "ONNX float32", 30.0), row("text", "pocketlens quantize", 12.0, "static int8, minmax")]
    first += [row("image", "ONNX float32", 30.0), row("image", "pocketlens quantize", 30.0, "float16 storage")]
    second = [row("text", "ONNX float32", 30.0), row("text", "pocketlens quantize", None, "refused: no")]
    distance = [{"model": "M1", "tower": "text", "what": "ONNX float32", "share": 0.5}]
    tables = {"M1, one input": first, "M2, one input": second, "Ceiling": [{"what": "x", "measured": 1.0}]}
    return _codes(0.97) | {"script": "quantization", "tables": tables | {"Distance to the ceiling": distance}}


def _run(root: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, [*arguments, "--root", str(root)])
    return result.exit_code, result.output


def test_what_was_written_is_fresh_until_a_result_changes(root: Path) -> None:
    assert _run(root) == (0, "README.md\ndocs/composition.md\ndocs/measurements.md\n")
    assert _run(root, "--check") == (0, "")
    _write(root, _codes(0.961))
    code, output = _run(root, "--check")
    assert code == 1
    assert "README.md, docs/measurements.md: not what benchmarks/results says" in output
    assert output.count("\n") == 1
    assert "0.973" in (root / "README.md").read_text()


def test_only_the_part_between_the_markers_changes(root: Path) -> None:
    _run(root)
    text = (root / "README.md").read_text()
    assert text.startswith("before\n<!-- measured:begin -->\n| what |")
    assert text.endswith("<!-- measured:end -->\n<!-- composed:begin -->\n<!-- composed:end -->\nafter\n")


def test_plots_are_small_and_the_same_every_time(root: Path) -> None:
    _run(root)
    plot = root / "docs" / "plots" / "codes.svg"
    first = plot.read_bytes()
    _run(root)
    assert plot.read_bytes() == first
    assert len(first) <= 100_000


def test_missing_markers_are_named_and_nothing_is_inserted(root: Path) -> None:
    (root / "README.md").write_text("no markers\n")
    for arguments in ([], ["--check"]):
        code, output = _run(root, *arguments)
        assert code == 1
        assert "README.md: expected <!-- measured:begin -->" in output
    assert (root / "README.md").read_text() == "no markers\n"


def test_markers_must_stand_once_and_in_order() -> None:
    begin, end = "<!-- a:begin -->", "<!-- a:end -->"
    assert between(f"x{begin}old{end}y", "a", "new\n", "f") == f"x{begin}\nnew\n{end}y"
    for text in (end + begin, begin, begin + begin + end):
        with pytest.raises(PocketlensError, match="each once"):
            between(text, "a", "", "f")


def test_a_table_aligns_numbers_and_shows_missing_values_as_nothing() -> None:
    assert markdown_table([{"a": "x|y", "b": 1.5}, {"a": "z", "b": None}]) == (
        "| a | b |\n| --- | ---: |\n| x\\|y | 1.5 |\n| z |  |\n"
    )
    assert markdown_table([]) == ""


def test_missed_bars_stand_out(root: Path) -> None:
    assert "| **no** |" in measurements({"codes": _codes(0.9)})
    assert "| yes |" in measurements({"codes": _codes(0.97)})


def test_quantized_towers_stand_beside_float32_and_refused_ones_are_left_out_of_readme() -> None:
    assert readme_table({"quantization": _quantization()}).splitlines()[2:4] == [
        "| one text, M1, int8, 1 thread | 12.0 ms | 30.0 ms | 0.4 | cosine 0.9991, agreement@10 0.970; 8.0 of 8.0 MB |",
        "| one image, M1, stored smaller, 1 thread | 30.0 ms | 30.0 ms | 1 "
        "| cosine 0.9991, agreement@10 0.970; 8.0 of 8.0 MB |",
    ]
    page = measurements({"quantization": _quantization()})
    assert "M2" not in readme_table({"quantization": _quantization()})
    assert "refused: no" in page and "### Distance to the ceiling" in page
    assert page.endswith("![Quantization](plots/quantization.svg)\n")


def test_the_plot_of_quantization_leaves_out_what_has_no_cosine(root: Path) -> None:
    (root / "benchmarks" / "results" / "quantization.json").write_text(json.dumps(_quantization()))
    assert _run(root)[0] == 0
    assert (root / "docs" / "plots" / "quantization.svg").stat().st_size <= 100_000


def test_the_committed_results_make_tables() -> None:
    results = read_all(RESULTS)
    assert results
    assert readme_table(results).count("\n") > 2
    assert not [
        path for path in (Path(__file__).parents[2], Path.home(), tempfile.gettempdir()) if str(path) in str(results)
    ]


def _composed() -> dict[str, Any]:
    def figures(value: float) -> dict[str, Any]:
        names = ("mAP@10", "mAP@5", "mAP@25", "mAP@50", "R@1", "R@5", "R@10", "unwanted@10")
        return {name: {"value": value + i, "low": value - 1, "high": value + 1} for i, name in enumerate(names)}

    def run(method: str, value: float, level: str | None = None) -> dict[str, Any]:
        families = {
            "mood": {"queries": 3, "figures": figures(value + 0.04)},
            "age": {"queries": 5, "figures": figures(9)},
        }
        strata = {"unseen": {"queries": 2, "figures": figures(value / 2)}} if method == "sum" else {}
        parts = {"figures": figures(value), "families": families, "strata": strata}
        return {"method": method, "level": level, "text_passes": 1, **parts}

    return {
        "protocol": "emojicir", "split": "test", "answered": 3400, "headline": "mAP@10", "unit": "per cent",
        "methods": [run("sum", 8.26), run("product", 20.0)],
        "negative": [run("sum", 8.0, "without"), run("sum", 7.0, "score")],
        "skipped": {"lincir": ["a network"]}, "notes": ["A note."], "threads": 1, "versions": {"numpy": "2"},
        "machine": {"processor": "CPU", "system": "Linux"}, "bundle": {"rows": 16_859, "gallery": "lens-base"},
    }  # fmt: skip


def test_composed_queries_have_tables_and_a_plot_once_they_were_measured(root: Path) -> None:
    assert CliRunner().invoke(main, ["--root", str(root)]).exit_code == 0
    assert not (root / "docs" / "plots" / "composed_emojicir.svg").exists()
    path = root / "benchmarks" / "results" / "composed_emojicir.json"
    path.write_text(json.dumps(_composed()))
    assert (
        "README.md, docs/measurements.md: not what" in CliRunner().invoke(main, ["--check", "--root", str(root)]).output
    )
    assert CliRunner().invoke(main, ["--root", str(root)]).exit_code == 0
    assert CliRunner().invoke(main, ["--check", "--root", str(root)]).exit_code == 0
    readme, measured = ((root / name).read_text() for name in ("README.md", "docs/measurements.md"))
    sum_row = "| sum | 1 | 8.3 | 7.3 to 9.3 | 9.3 | 10.3 | 11.3 | 12.3 | 13.3 | 14.3 | 4.1 |"
    assert readme.partition("<!-- composed:begin -->")[2].splitlines()[3] == sum_row
    assert "| product | 1 | 20 | 19.0 to 21.0 | 21 | 22 | 23 | 24 | 25 | 26 |  |" in readme
    assert sum_row in measured
    assert "| mood | 3 | 8.3 | 20 |\n| age | 5 | 9 | 9 |" in measured
    assert "| sum | off the score | 7 | 6.0 to 8.0 | 14 | 6.0 to 8.0 |" in measured
    assert "- lincir was not measured: a network\n" in measured
    plot = root / "docs" / "plots" / "composed_emojicir.svg"
    before = plot.read_bytes()
    assert before.startswith(b"<?xml") and CliRunner().invoke(main, ["--root", str(root)]).exit_code == 0
    assert plot.read_bytes() == before


def test_every_method_is_described_with_its_formula_source_and_parameters(root: Path) -> None:
    assert CliRunner().invoke(main, ["--root", str(root)]).exit_code == 0
    made = (root / "docs" / "composition.md").read_text()
    for name, method in METHODS.items():
        _, found, rest = made.partition(f"**{name}**: {method.about}")
        described = rest.partition("\n\n")[0]
        assert found
        assert f"`{method.formula}`" in described
        assert method.source in described
        assert all((f"`{key}`" in described) != key.startswith("negative_") for key in method.parameters)
    (root / "docs" / "composition.md").write_text(made.replace("**sum**", "**add**"))
    assert "docs/composition.md: not what" in CliRunner().invoke(main, ["--check", "--root", str(root)]).output
    committed = (ROOT / "docs" / "composition.md").read_text()
    assert made.partition("<!-- methods:begin -->")[2].strip() in committed
