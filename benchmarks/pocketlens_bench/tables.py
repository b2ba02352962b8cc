"""The measured tables of README.md, ARCHITECTURE.md and docs, and the plots, from the JSON results.

So are the methods of docs/composition.md, from the registry.

`python -m pocketlens_bench.tables` writes them; with `--check` nothing is written and a stale file is an error.
Nothing is measured here. A result that does not exist leaves its rows out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pocketlens.errors import PocketlensError
from pocketlens_bench import asymmetric_plot, asymmetric_tables, backbones_tables, composed_tables, method_docs
from pocketlens_bench.evaluate_plots import draw
from pocketlens_bench.markdown import cell, markdown_table
from pocketlens_bench.measure import RESULTS, ROOT, Row, read_report
from pocketlens_bench.plots import write_plots

Results = dict[str, dict[str, Any]]
ORDER = ("cold_start", "opening", "latency", "quantization", "codes", "index", "index_million", "partitions",
         "segments", "updates", "filters", "fusion", "composed", "calibration", "near_duplicates", "draft",
         "scale", "scale_memory", "imports")  # fmt: skip
_MEASUREMENTS = Path("docs") / "measurements.md"
_TITLES = {
    "cold_start": "Cold start",
    "opening": "Opening",
    "latency": "Encoder latency",
    "quantization": "Quantization",
    "codes": "Codes",
    "index": "Index, 100,000 rows",
    "index_million": "Index, 1,000,000 rows",
    "partitions": "Scan or partitions",
    "segments": "Segments searched as one",
    "updates": "Updates of a gallery",
    "filters": "Filters",
    "fusion": "Fused search over candidates",
    "composed": "Composed queries, latency",
    "calibration": "Scores of queries with and without an answer",
    "near_duplicates": "Near-duplicates",
    "draft": "Reduced JPEG decoding",
    "scale": "Indexing at scale",
    "scale_memory": "Indexing at scale, memory",
    "imports": "Imports and sizes",
}
_PLOTS = {
    name: f"plots/{name}.svg"
    for name in ("quantization", "codes", "index", "index_million", "partitions", "calibration")
}
_DRAWN = {
    composed_tables.NAME: draw,
    asymmetric_tables.NAME: asymmetric_plot.draw,
    backbones_tables.NAME: asymmetric_plot.draw,
}


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when a file is not what the results say.")
@click.option("--root", type=click.Path(path_type=Path), default=ROOT, hidden=True)
def main(check: bool, root: Path) -> None:
    """Write the measured tables and plots from benchmarks/results."""
    results = read_all(root / RESULTS.relative_to(ROOT))
    try:
        stale = [path for path, text in expected_files(root, results).items() if _read(path) != text]
    except PocketlensError as error:
        raise click.ClickException(str(error)) from None
    if check and stale:
        names = ", ".join(path.relative_to(root).as_posix() for path in stale)
        raise click.ClickException(f"{names}: not what benchmarks/results says; run python -m pocketlens_bench.tables")
    for path in stale:
        path.write_text(expected_files(root, results)[path], encoding="utf-8")
        click.echo(path.relative_to(root).as_posix())
    if not check:
        write_plots(results, root / "docs")
        for name, drawn in _DRAWN.items():
            found = read_other(root, name)
            if found:
                (root / "docs" / "plots" / f"{name}.svg").write_bytes(drawn(found))


def read_all(folder: Path) -> Results:
    """Return the results that exist, by script."""
    return {name: read_report(name, folder=folder) for name in ORDER if (folder / f"{name}.json").is_file()}


def read_other(root: Path, name: str) -> dict[str, Any]:
    """Return a result that no script of `python -m pocketlens_bench` wrote; empty where there is none."""
    path = root / RESULTS.relative_to(ROOT) / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def expected_files(root: Path, results: Results) -> dict[Path, str]:
    """Return what every generated file should hold.

    Raises:
        PocketlensError: a file that holds a generated part lacks the markers.
    """
    readme, architecture, methods = root / "README.md", root / "ARCHITECTURE.md", root / "docs" / "composition.md"
    composed = read_other(root, composed_tables.NAME)
    guides = {tables: read_other(root, tables.NAME) for tables in (asymmetric_tables, backbones_tables)}
    text = between(_read(readme), "measured", readme_table(results), readme.name)
    imports = results.get("imports", {}).get("tables", {}).get("Runtime dependencies", [])
    guide = root / "docs" / "asymmetric.md"
    text_of_guide = _read(guide)
    for tables, report in guides.items():
        if report:
            text_of_guide = between(text_of_guide, tables.MARKER, tables.guide(report), f"docs/{guide.name}")
    return {
        **({guide: text_of_guide} if any(guides.values()) else {}),
        readme: between(text, "composed", composed_table(composed), readme.name),
        architecture: between(_read(architecture), "imports", markdown_table(imports), architecture.name),
        methods: between(_read(methods), method_docs.MARKER, method_docs.methods_text(), "docs/composition.md"),
        root / _MEASUREMENTS: measurements(results)
        + composed_section(composed)
        + "".join(tables.section(report) for tables, report in guides.items()),
    }


def between(text: str, marker: str, content: str, name: str) -> str:
    """Return the text with what stands between `<!-- marker:begin -->` and `<!-- marker:end -->` replaced.

    Raises:
        PocketlensError: the pair is not there exactly once.
    """
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise PocketlensError(f"{name}: expected {begin} and, below it, {end}, each once")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}{end}{rest.split(end)[1]}"


def readme_table(results: Results) -> str:
    """Return README's table: few rows, each with what it was compared with in the same run."""
    makers: dict[str, Callable[[dict[str, Any]], list[Row]]] = {
        "cold_start": _cold_start_rows,
        "latency": _latency_rows,
        "quantization": _quantization_rows,
        "codes": _codes_rows,
        "index": _index_rows,
        "index_million": _million_rows,
    }
    rows = [row for name, make in makers.items() if name in results for row in make(results[name])]
    if not rows:
        return ""
    machine = next(iter(results.values()))["machine"]
    scripts = ", ".join(f"`{name}`" for name in makers if name in results)
    source = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB. Medians of runs that took turns"
    )
    source += f" on a shared machine: the ratios are what counts. `make bench` measures again ({scripts})."
    return f"{markdown_table(rows)}\n{source}\n"


def measurements(results: Results) -> str:
    """Return docs/measurements.md: every table of every script, the bars, the notes and how to measure again."""
    head = "# Measurements\n\nGenerated from benchmarks/results by `python -m pocketlens_bench.tables`; do not edit.\n"
    return head + "".join(_section(name, result) for name, result in results.items())


def composed_table(report: dict[str, Any]) -> str:
    """Return README's table of composed queries, or nothing where there is no result."""
    if not report:
        return ""
    return f"{markdown_table(composed_tables.method_rows(report))}\n{composed_tables.source(report)}"


def composed_section(report: dict[str, Any]) -> str:
    """Return what docs/measurements.md says of composed queries, or nothing where there is no result."""
    if not report:
        return ""
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    parts = ["## Composed queries\n", composed_tables.source(report)]
    parts += [f"{machine['processor']}, {machine['system']}; threads: {report['threads']}. {versions}.\n"]
    parts += [f"### Methods\n\n{markdown_table(composed_tables.method_rows(report))}"]
    parts += [f"### {report['headline']} by family\n\n{markdown_table(composed_tables.family_rows(report))}"]
    if report["negative"]:
        parts += [f"### What is not wanted\n\n{markdown_table(composed_tables.negative_rows(report))}"]
    skipped = [f"{name} was not measured: {'; '.join(lacks)}" for name, lacks in report["skipped"].items()]
    parts += ["".join(f"- {note}\n" for note in (*report["notes"], *skipped))]
    parts += [f"![Composed queries](plots/{composed_tables.NAME}.svg)\n"]
    return "\n" + "\n".join(parts)


def _section(name: str, result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    parts = [f"## {_TITLES[name]}\n", f"`{result['command']}`, at commit {result['commit']}.\n"]
    parts += [f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; "]
    parts[-1] += (
        f"threads: {cell(result['threads'])}. " + ", ".join(f"{key} {versions[key]}" for key in versions) + ".\n"
    )
    parts += ["Settings: " + "; ".join(f"{key} {cell(value)}" for key, value in result["settings"].items()) + ".\n"]
    if result["bars"]:
        rows = [{**bar, "met": "yes" if bar["met"] else "**no**"} for bar in result["bars"]]
        parts.append(markdown_table(rows))
    parts += [f"### {title}\n\n{markdown_table(rows)}" for title, rows in result["tables"].items()]
    parts += ["".join(f"- {note}\n" for note in result["notes"])] if result["notes"] else []
    parts += [f"![{_TITLES[name]}]({_PLOTS[name]})\n"] if name in _PLOTS else []
    return "\n" + "\n".join(parts)


def _cold_start_rows(result: dict[str, Any]) -> list[Row]:
    table = next(iter(result["tables"].values()))
    same_weights, base = table[-2:]
    rows: list[Row] = []
    for row in table:
        if row["what"].startswith("pocketlens"):
            model = row["what"].removeprefix("pocketlens, ")
            same = "same first hit" if row["first hit"] == same_weights["first hit"] else "another model, another hit"
            times = (f"{row['p50 ms']:.0f} ms", f"{base['p50 ms']:.0f} ms", row["time ratio"])
            memory = (f"{row['peak MB']:.0f} MB", f"{base['peak MB']:.0f} MB", row["memory ratio"])
            rows.append(_readme_row(f"process start to first text hit, {model}", *times, same))
            rows.append(_readme_row(f"peak memory of that, {model}", *memory, same))
    return rows


def _latency_rows(result: dict[str, Any]) -> list[Row]:
    table = next(iter(result["tables"].values()))
    rows: list[Row] = []
    for tower in ("text", "image"):
        eager, onnx = (
            next(r for r in table if r["tower"] == tower and r["threads"] == 1 and r["encoder"] == name)
            for name in ("torch eager", "ONNX float32")
        )
        times = (f"{onnx['p50 ms']:.1f} ms", f"{eager['p50 ms']:.1f} ms", onnx["time over torch eager"])
        quality = f"cosine {onnx['least cosine with torch eager']:.6f}"
        rows.append(_readme_row(f"one {tower}, MobileCLIP2-S0 in float32, 1 thread", *times, quality))
    sizes = result["tables"].get("lens-base, size", [])
    if sizes:
        total = sum(row["MB"] for row in sizes)
        rows.append(_readme_row("size of lens-base, the model that ships, all files", f"{total:.0f} MB", "", None, ""))
    return rows


def _quantization_rows(result: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for title, table in result["tables"].items():
        found = {(row["tower"], row["what"]): row for row in table if "tower" in row and "MB" in row}
        for (tower, what), ours in found.items():
            if what != "pocketlens quantize" or ours["p50 ms"] is None:
                continue
            float32 = found[tower, "ONNX float32"]
            times = (f"{ours['p50 ms']:.1f} ms", f"{float32['p50 ms']:.1f} ms", ours["time over ONNX float32"])
            quality = f"cosine {ours['mean cosine']:.4f}, agreement@10 {ours['agreement@10']:.3f}; "
            quality += f"{ours['MB']:.1f} of {float32['MB']:.1f} MB"
            kind = "stored smaller" if ours["how"].endswith("storage") else "int8"
            rows.append(_readme_row(f"one {tower}, {title.split(',')[0]}, {kind}, 1 thread", *times, quality))
    return rows


def _codes_rows(result: dict[str, Any]) -> list[Row]:
    exact, cast, *_, ours, rescored = result["tables"]["Exhaustive search"]
    rows: list[Row] = []
    for what, row in (("int8 codes", ours), ("int8 codes, re-scored from float16", rescored)):
        found = f"recall@10 {row['text recall@10']:.3f}; USearch's own cast {cast['text recall@10']:.3f}"
        times = (f"{row['p50 ms']:.1f} ms", f"{exact['p50 ms']:.1f} ms", row["time ratio to float32"])
        rows.append(
            _readme_row(
                f"search of {result['settings']['rows']:,} x {result['settings']['dim']}, {what}", *times, found
            )
        )
    return rows


def _index_rows(result: dict[str, Any]) -> list[Row]:
    table, settings = result["tables"]["Recall and time"], result["settings"]
    ours, flat = (next(row for row in table if row["index"] == name) for name in ("pocketlens", "faiss flat SQ8"))
    times = (f"{ours['p50 ms']:.1f} ms", f"{flat['p50 ms']:.1f} ms", ours["time over faiss flat SQ8"])
    found = f"recall@10 {ours['recall@10']:.3f}; faiss {flat['recall@10']:.3f}"
    return [_readme_row(f"search of {settings['rows']:,} x {settings['dim']} beside faiss flat SQ8", *times, found)]


def _million_rows(result: dict[str, Any]) -> list[Row]:
    least = {row["index"]: row for row in next(iter(result["tables"].values()))}
    ours, peer, settings = least.get("pocketlens"), least.get("faiss IVF-SQ8"), result["settings"]
    if ours is None or peer is None:
        return []
    times = (f"{ours['p50 ms']:.1f} ms", f"{peer['p50 ms']:.1f} ms", ours["time over faiss IVF-SQ8"])
    found = f"recall@10 {ours['recall@10']:.3f}; faiss {peer['recall@10']:.3f}"
    return [_readme_row(f"search of {settings['rows']:,} x {settings['dim']} beside faiss IVF-SQ8", *times, found)]


def _readme_row(what: str, ours: str, other: str, ratio: float | None, quality: str) -> Row:
    return {
        "what": what,
        "pocketlens": ours,
        "torch, float32 or faiss": other,
        "ratio": ratio,
        "in the same run": quality,
    }


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    main()
