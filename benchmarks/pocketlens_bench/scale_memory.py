"""The most memory that indexing takes, by the number of pictures: small ones in tar archives, with a small encoder."""

from __future__ import annotations

import shutil

from pocketlens_bench.measure import Options, Progress, Report, Row, at_most, significant
from pocketlens_bench.models import temporary_folder
from pocketlens_bench.scale_pictures import write_tars
from pocketlens_bench.scale_processes import index_command
from pocketlens_bench.scale_processes import run as run_process

MODEL = "lens-tiny"


def run(options: Options, progress: Progress) -> Report:
    """Return peak memory and rates of indexing few and many pictures."""
    work = (options.work or temporary_folder()) / "scale-memory"
    shutil.rmtree(work, ignore_errors=True)
    few, many, each = (2, 4, 50) if options.quick else (10, 40, 1_000)
    pattern = write_tars(work / "tars", many, each)
    rows: list[Row] = []
    for tars in (few, many):
        progress(f"{tars * each} pictures")
        ran = run_process(index_command(pattern % (tars - 1), work / "bundle", "--model", MODEL, "--threads", 2))
        rows.append(
            {
                "pictures": tars * each,
                "files/s": significant(tars * each / ran.stage_s("encoding")),
                "assembled/s": significant(tars * each / max(ran.stage_s("assembling"), 0.1)),
                "peak MB": significant(ran.peak_mb),
            }
        )
    grown = significant(float(rows[1]["peak MB"] or 0) / float(rows[0]["peak MB"] or 1), 3)
    return Report(
        settings={"model": MODEL, "pictures": "96 x 72, in tar archives"},
        threads=2,
        tables={"Memory": rows},
        bars=[at_most(f"peak memory, {many * each} pictures over {few * each}", grown, 1.1)],
        notes=["Resident memory of the process and its children together: what they share counts more than once."],
        packages=("numpy", "onnxruntime", "pillow"),
    )
