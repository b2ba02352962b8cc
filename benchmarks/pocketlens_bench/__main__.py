"""`python -m pocketlens_bench [NAMES...]`: run some or all scripts and write benchmarks/results/<name>.json."""

from __future__ import annotations

import os
import time
from importlib import import_module
from pathlib import Path

import click

from pocketlens.errors import PocketlensError

SCRIPTS = ("imports", "codes", "draft", "latency", "quantization", "cold_start", "opening", "partitions", "filters",
           "segments", "updates", "fusion", "composed", "near_duplicates", "calibration", "index", "index_million",
           "scale_memory",
           "scale")  # fmt: skip
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(SCRIPTS))
@click.option("--work", type=_FOLDER, help="Keep what is exported for measuring in this folder, for the next run.")
@click.option("--float-model", type=_FOLDER, help="lens-base before quantization, to quantize and compare it.")
@click.option(
    "--bundle",
    type=_FOLDER,
    help="What composed asks, by default the sample gallery by lens-base; for calibration, EmojiCIR's pictures.",
)
@click.option("--pictures", type=_FOLDER, help="The pictures composed asks with; by default the sample gallery's.")
@click.option("--quick", is_flag=True, help="Tiny sizes, to try a script out; nothing is written.")
def main(
    names: tuple[str, ...],
    work: Path | None,
    float_model: Path | None,
    bundle: Path | None,
    pictures: Path | None,
    quick: bool,
) -> None:
    """Measure, and write benchmarks/results/NAME.json. Run it on a quiet machine; all scripts take about two hours."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's own; read when NumPy is first imported, which is just below
    from pocketlens_bench.measure import RESULTS, Options, write_report

    if not (RESULTS.parents[1] / "demo").is_dir():
        raise click.ClickException("run this in a checkout of pocketlens: it measures on the sample gallery there")
    options = Options(work=work, float_model=float_model, bundle=bundle, pictures=pictures, quick=quick)
    for name in names or SCRIPTS:
        start = time.perf_counter()
        click.echo(f"{name}", err=True)
        try:
            report = import_module(f"pocketlens_bench.{name}").run(
                options, lambda text: click.echo(f"  {text}", err=True)
            )
        except PocketlensError as error:
            raise click.ClickException(f"{name}: {error}") from error
        for bar in report.bars:
            click.echo(f"  {'met   ' if bar.met else 'MISSED'} {bar.what}: {bar.measured} ({bar.bar})")
        if not quick:
            write_report(name, report)
        click.echo(f"  {time.perf_counter() - start:.0f} s", err=True)


if __name__ == "__main__":
    main()
