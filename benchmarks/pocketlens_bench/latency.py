"""Time of one text and one picture through the encoders: torch eager against ONNX, with their cosine.

torch runs open_clip's own model, both as open_clip builds it and with its training-time branches folded, which is what
the exported graph holds. Same process, same threads, by turns. What int8 does to them is in quantization.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import FormatError
from pocketlens.model import Model, find_model
from pocketlens_bench.measure import (
    Bar,
    Options,
    Progress,
    Report,
    Row,
    alternate,
    at_least,
    cosines,
    median,
    ratio,
    significant,
)
from pocketlens_bench.models import NAME, load_torch, mobileclip, sample_pixels

TEXTS = (
    "a red bicycle leaning against a white brick wall", "two dogs running along a beach at sunset", "an old map",
    "a bowl of fruit on a wooden kitchen table", "a steam train crossing a bridge in the snow", "a child's drawing",
    "people waiting at a bus stop in the rain", "the moon",
)  # fmt: skip
_PICTURES = 8
EAGER, FUSED, ONNX = "torch eager", "torch eager, branches folded", "ONNX float32"
Encode = Callable[[np.ndarray], np.ndarray]


def run(options: Options, progress: Progress) -> Report:
    """Return latency with cosine of MobileCLIP2-S0 in torch and ONNX and, where it is installed, lens-base's size."""
    rounds = 3 if options.quick else 40
    tables: dict[str, list[Row]] = {f"{NAME}, one input, torch against ONNX": _mobileclip(options, progress, rounds)}
    shipped = _lens_base()
    notes = [
        "Seeded weights: times and agreement are those of the architecture, not of the trained model.",
        f"{NAME}'s text tower attends to padding, so that every text takes its full 77 tokens.",
        "With 2 threads on 2 shared cores torch waits for whichever thread lost its core, many times in one run: there "
        "its p50 is the machine's, the best of the rounds is torch's.",
    ]
    if shipped is None:
        notes.append("lens-base was not there.")
    else:
        tables["lens-base, size"] = _sizes(shipped)
    table = next(iter(tables.values()))
    return Report(
        settings={"rounds": rounds, "texts": len(TEXTS), "pictures": _PICTURES},
        threads=[1, 2],
        tables=tables,
        bars=_bars(table),
        notes=notes,
        packages=("numpy", "onnxruntime", "torch", "open_clip_torch", "timm"),
    )


def compare(runs: dict[str, Encode], inputs: np.ndarray, base: str, *, rounds: int, about: Row) -> list[Row]:
    """Return a row per encoder: time of the first input alone, its ratio to `base`, and the least cosine with `base`.

    Args:
        runs: by name, a function from a batch of inputs to embeddings (n, dim).
        inputs: (n, ...); each goes through alone.
        base: the name of the encoder that the others are compared with.
        rounds: how often each is timed.
        about: what every row starts with.
    """
    found = {name: np.concatenate([encode(one[np.newaxis]) for one in inputs]) for name, encode in runs.items()}
    elapsed_ms = alternate({name: partial(encode, inputs[:1]) for name, encode in runs.items()}, rounds=rounds)
    return [
        {
            **about,
            "encoder": name,
            "p50 ms": median(elapsed_ms[name]),
            "best ms": significant(min(elapsed_ms[name])),
            f"time over {base}": ratio(elapsed_ms[name], elapsed_ms[base]),
            f"least cosine with {base}": significant(float(cosines(found[name], found[base]).min()), 8),
        }
        for name in runs
    ]


def _mobileclip(options: Options, progress: Progress, rounds: int) -> list[Row]:
    import torch

    exported = mobileclip(options, progress)
    clip, model = load_torch(exported), Model.open(exported.folder)
    rows: list[Row] = []
    for threads in (1, 2):
        progress(f"{NAME}, {threads} threads")
        torch.set_num_threads(threads)
        text = TextEncoder(model, threads=threads)
        ids = text.pad(text.tokenizer.ids(TEXTS))
        runs: dict[str, Encode] = {EAGER: _inference(clip.encode_ids), ONNX: text.encode_ids}
        rows += compare(runs, ids, EAGER, rounds=rounds, about={"tower": "text", "threads": threads})
        image = ImageEncoder(model, threads=threads)
        runs = {EAGER: _inference(clip.encode_pixels), FUSED: _folded(clip), ONNX: image.encode_pixels}
        pixels = sample_pixels(_PICTURES, image.spec.side)
        rows += compare(runs, pixels, EAGER, rounds=rounds, about={"tower": "image", "threads": threads})
    return rows


def _inference(encode: Encode) -> Encode:
    import torch

    def inside(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return encode(inputs)

    return inside


def _folded(clip: Any) -> Encode:
    import torch

    from pocketlens_export.towers import image_tower

    tower = image_tower(clip)
    return _inference(lambda pixels: tower(torch.from_numpy(pixels)).numpy())


def _lens_base() -> Model | None:
    try:
        return Model.open(find_model("lens-base"))
    except FormatError:
        return None


def _sizes(model: Model) -> list[Row]:
    return [{"file": name, "MB": round(record.size_bytes / 1e6, 2)} for name, record in model.manifest.files.items()]


def _bars(table: list[Row]) -> list[Bar]:
    onnx = [row for row in table if row["encoder"] == ONNX]
    least = min(float(row[f"least cosine with {EAGER}"] or 0) for row in onnx)
    return [at_least(f"least cosine of ONNX float32 with torch, {NAME}", least, 0.99999)]
