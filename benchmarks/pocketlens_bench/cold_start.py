"""From process start to the first text hit, and the peak memory of it: pocketlens against open_clip in torch.

Each run is a new process with files in the page cache. Both search the same 10,000 synthetic items for the same text
with the same weights of the same architecture, and must name the same picture. open_clip also runs without reading a
checkpoint, which is less work than any real use. Hashes of all files are part of pocketlens's time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens.bench import run_fresh
from pocketlens.errors import FormatError
from pocketlens.gallery import Gallery
from pocketlens.model import Model, find_model
from pocketlens_bench.measure import Bar, Options, Progress, Report, Row, at_most, median, ratio
from pocketlens_bench.models import NAME, make_bundle, mobileclip, temporary_folder
from pocketlens_bench.subjects import data_of, quantized

_TEXT = "a red bicycle"
_THREADS = 2
_POCKETLENS = """
import sys
import pocketlens
hit = pocketlens.open(sys.argv[1], threads=int(sys.argv[2])).search(text=sys.argv[3], k=1)[0].id
"""
_OPEN_CLIP = """
import sys
import numpy, open_clip, torch
torch.set_num_threads(int(sys.argv[2]))
model, _, _ = open_clip.create_model_and_transforms(sys.argv[4], pretrained=sys.argv[5] or None)
tokenizer = open_clip.get_tokenizer(sys.argv[4])
model.eval()
with torch.inference_mode():
    query = model.encode_text(tokenizer([sys.argv[3]]), normalize=True)[0].numpy()
hit = f"{numpy.argmax(numpy.load(sys.argv[1]) @ query):06}.jpg"
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to the first hit: its name, its code, which leaves the hit's id in `hit`, and the code's arguments."""

    name: str
    code: str
    arguments: tuple[str, ...]


def run(options: Options, progress: Progress) -> Report:
    """Return time and peak memory to the first hit, by turns, as ratios to open_clip."""
    rounds, rows = (2, 500) if options.quick else (9, 10_000)
    os.environ["XDG_RUNTIME_DIR"] = os.devnull  # nothing is remembered of checked files: every run hashes them
    contenders = _contenders(options, progress, rows)
    hits = {contender.name: first_hit(contender) for contender in contenders}  # also compiles to .pyc, fills the cache
    found: dict[str, list[tuple[float, float]]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for contender in contenders if number % 2 else contenders[::-1]:
            found[contender.name].append(run_fresh(contender.code, *contender.arguments))
    table = summarize(found, hits)
    return Report(
        settings={"rounds": rounds, "items": rows, "text": _TEXT, "model": NAME},
        threads=_THREADS,
        tables={"Process start to first text hit": table},
        bars=_bars(table),
        notes=[
            f"{NAME} has seeded weights, float32 on both sides; its text tower alone holds 254 MB of weights. The "
            "quantized one is what `pocketlens quantize` makes of it; the script quantization has its fidelity.",
            "Ratios are against open_clip without a checkpoint, the faster and smaller of its two rows.",
        ],
        packages=("numpy", "onnxruntime", "usearch", "torch", "open_clip_torch"),
    )


def first_hit(contender: Contender) -> str:
    """Return the id of the picture that a contender finds first."""
    command = [sys.executable, "-c", contender.code + "print(hit)", *contender.arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]


def summarize(found: dict[str, list[tuple[float, float]]], hits: dict[str, str]) -> list[Row]:
    """Return a row per contender from its (milliseconds, peak MB) per round; ratios are against the last contender."""
    base_ms, base_mb = zip(*list(found.values())[-1], strict=True)
    table: list[Row] = []
    for name, pairs in found.items():
        elapsed_ms, peak_mb = zip(*pairs, strict=True)
        table.append(
            {
                "what": name,
                "p50 ms": median(elapsed_ms),
                "peak MB": median(peak_mb),
                "time ratio": ratio(elapsed_ms, base_ms),
                "memory ratio": ratio(peak_mb, base_mb),
                "first hit": hits[name],
            }
        )
    return table


def _contenders(options: Options, progress: Progress, rows: int) -> Sequence[Contender]:
    exported = mobileclip(options, progress)
    folder = temporary_folder()
    contenders = []
    float32 = Model.open(exported.folder)
    smaller = quantized(float32, data_of(options), options, progress)
    for name, model in ((NAME, float32), (f"{NAME} quantized", smaller), ("lens-base", _lens_base())):
        if isinstance(model, Model):
            bundle = make_bundle(folder / f"bundle-{name.replace(' ', '-')}", model, rows=rows)
            contenders.append(Contender(f"pocketlens, {name}", _POCKETLENS, (str(bundle), str(_THREADS), _TEXT)))
    vectors = _save_vectors(Path(contenders[0].arguments[0]), folder / "vectors.npy")
    arguments = (str(vectors), str(_THREADS), _TEXT, NAME)
    contenders.append(Contender(f"open_clip, {NAME}", _OPEN_CLIP, (*arguments, str(exported.checkpoint))))
    contenders.append(Contender(f"open_clip, {NAME}, no checkpoint", _OPEN_CLIP, (*arguments, "")))
    return contenders


def _save_vectors(bundle: Path, path: Path) -> Path:
    gallery = Gallery.open(bundle / "gallery")
    np.save(path, gallery.index.vectors())
    gallery.close()
    return path


def _lens_base() -> Model | None:
    try:
        return Model.open(find_model("lens-base"))
    except FormatError:
        return None


def _bars(table: list[Row]) -> list[Bar]:
    by_name = {str(row["what"]): row for row in table}
    bars = []
    for name, row in by_name.items():
        if name.startswith("pocketlens"):
            bars.append(at_most(f"time to first hit over open_clip, {name}", float(row["time ratio"] or 0), 0.10))
            bars.append(at_most(f"peak memory over open_clip, {name}", float(row["memory ratio"] or 0), 0.15))
    same = by_name[f"pocketlens, {NAME}"]["first hit"] == by_name[f"open_clip, {NAME}"]["first hit"]
    return [*bars, Bar("the same first hit as open_clip with the same weights", "= 1", float(same), same)]
