"""What int8 costs and brings: towers in torch, in ONNX, by onnxruntime's own quantizers, by `pocketlens quantize`.

One process, one thread, all by turns on the same inputs, every time beside its cosine with float32. The inputs that are
timed and compared are kept apart from those that anything was calibrated or chosen with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import onnx

from pocketlens.encoder import TextEncoder
from pocketlens_bench.ceiling import distance, measure_ceiling
from pocketlens_bench.contenders import (
    Contender,
    Encode,
    TowerName,
    attempt,
    file_of,
    of_graph,
    plain_dynamic,
    plain_static,
    torch_eager,
    torch_int8,
)
from pocketlens_bench.measure import (
    Bar,
    Options,
    Progress,
    Report,
    Row,
    alternate,
    at_least,
    at_most,
    cosines,
    median,
    ratio,
    significant,
)
from pocketlens_bench.subjects import ARCHITECTURES, Subject, data_of, make_subject
from pocketlens_quantize import metrics
from pocketlens_quantize.gate import DEFAULTS
from pocketlens_quantize.inputs import Side, read_sides
from pocketlens_quantize.session import Feed

EAGER, EAGER_INT8, FLOAT = "torch eager", "torch int8 dynamic", "ONNX float32"
DYNAMIC, STATIC, OURS = "quantize_dynamic", "quantize_static", "pocketlens quantize"
OVER = f"time over {FLOAT}"
_ROUNDS = {"text": 200, "image": 60}


def run(options: Options, progress: Progress) -> Report:
    """Return latency with cosine, agreement and size of every way to quantize, and the distance to the ceiling."""
    progress("ceiling")
    ceiling = measure_ceiling()
    data, rounds = data_of(options), (dict.fromkeys(_ROUNDS, 3) if options.quick else _ROUNDS)
    tables: dict[str, list[Row]] = {}
    distances: list[Row] = []
    bars: list[Bar] = []
    notes = [
        "MobileCLIP2 has seeded weights: cosines and agreement are the architecture's, not the trained model's.",
        f"{DYNAMIC} runs on the exported file, {STATIC} on the same after quant_pre_process.",
        "torch gives every text its whole context; its int8 reaches nn.Linear, not the attention's packed products.",
        "Weights read are those of every product, once a run; the last cache may hold what memory need not give.",
    ]
    names = ARCHITECTURES[:1] if options.quick else ARCHITECTURES
    for name in [*names, *(["lens-base"] if options.float_model else [])]:
        subject = make_subject(name, data, options, progress)
        sides = read_sides(
            subject.model, calibration=data.pictures, measuring=None, texts=data.texts, progress=progress
        )
        rows, near, about = compare(subject, sides, rounds=rounds, progress=progress)
        tables[f"{name}, one input"] = rows
        distances += near
        bars += bars_of(name, rows)
        notes += about
        ceiling = ceiling.or_more(measure_ceiling())
    return Report(
        settings={"rounds": rounds, "gates": {tower: dataclasses.asdict(gate) for tower, gate in DEFAULTS.items()}},
        threads=1,
        tables={**tables, "Ceiling": ceiling.rows(), "Distance to the ceiling": ceiling.with_shares(distances)},
        bars=bars,
        notes=notes,
        packages=("numpy", "onnx", "onnxruntime", "torch", "open_clip_torch", "timm"),
    )


def compare(
    subject: Subject, sides: tuple[Side, Side], *, rounds: Mapping[str, int], progress: Progress
) -> tuple[list[Row], list[Row], list[str]]:
    """Return a row for each tower and contender, those of the distance to the ceiling, and notes on the inputs.

    Args:
        subject: the model.
        sides: inputs to calibrate with, and those to time and compare on.
        rounds: by tower, how often each contender is timed.
        progress: called with a line for each tower.
    """
    calibration, measuring = sides
    rows: list[Row] = []
    near: list[Row] = []
    towers: tuple[TowerName, ...] = ("text", "image")
    for tower in towers:
        progress(f"{subject.name}, {tower}")
        feeds = measuring.texts if tower == "text" else measuring.pictures
        contenders = _contenders(subject, tower, calibration, [feeds[0], *_batches(measuring, tower)[:1]])
        running = {what: each.encode for what, each in contenders.items() if each.encode is not None}
        quality = {what: _quality(encode, measuring, tower) for what, encode in running.items()}
        turns = {what: iter([feeds[i % len(feeds)] for i in range(rounds[tower])]) for what in running}
        elapsed_ms = alternate(
            {what: partial(_next, encode, turns[what]) for what, encode in running.items()},
            rounds=rounds[tower],
            warm_up=0,  # all inputs have just gone through
        )
        for what, each in contenders.items():
            times = _times(elapsed_ms, what)
            size = None if each.megabytes is None else significant(each.megabytes)
            rows.append(
                {"tower": tower, "what": what, **times, "MB": size, **quality.get(what, _NOTHING), "how": each.remark}
            )
            if each.graph is not None and what in (FLOAT, OURS):
                found = distance(
                    each.graph,
                    counted=onnx.load(str(file_of(subject.model, tower))),
                    feeds=feeds,
                    elapsed_ms=elapsed_ms[what],
                    int8=what == OURS and not _only_stored(each.remark),
                )
                near.append({"model": subject.name, "tower": tower, "what": what, **found})
    return rows, near, [_note(subject, measuring)]


def bars_of(name: str, rows: Sequence[Row]) -> list[Bar]:
    """Return the bars of one model's rows; a model that was refused has but one, missed."""
    found = {(row["tower"], row["what"]): row for row in rows}
    if any(found[tower, OURS]["MB"] is None for tower in ("text", "image")):
        return [at_least(f"{name}: towers that pass their gate", 0.0, 2.0)]

    def value(tower: str, column: str) -> float:
        return float(found[tower, OURS][column] or 0)

    def size(tower: str) -> float:
        return significant(value(tower, "MB") / float(found[tower, FLOAT]["MB"] or 1), 3)

    bars = [
        at_most(f"{name}: text, {OVER}", value("text", OVER), 0.45),
        at_least(f"{name}: text, mean cosine", value("text", "mean cosine"), 0.995),
        at_least(f"{name}: text, agreement@10", value("text", "agreement@10"), 0.95),
        at_least(f"{name}: text, cosine alone and in a batch", value("text", "least alone and in batch"), 0.9999),
        at_most(f"{name}: text, size over float32", size("text"), 0.30),
        at_most(f"{name}: image, {OVER}", value("image", OVER), 1.0),
        at_least(f"{name}: image, mean cosine", value("image", "mean cosine"), 0.99),
        at_least(f"{name}: image, agreement@10", value("image", "agreement@10"), 0.95),
    ]
    if not _only_stored(str(found["image", OURS]["how"])):
        bars.append(at_most(f"{name}: image, size over float32", size("image"), 0.35))
    return bars


def _contenders(subject: Subject, tower: TowerName, calibration: Side, tried: Sequence[Feed]) -> dict[str, Contender]:
    model, clip = subject.model, subject.clip
    seen = calibration.texts if tower == "text" else calibration.pictures
    found: dict[str, Contender] = {}
    if clip is not None:
        found[EAGER] = attempt(lambda: torch_eager(clip, model, tower), tried)
        found[EAGER_INT8] = attempt(lambda: torch_int8(clip, model, tower), tried)
    found[FLOAT] = of_graph(onnx.load(str(file_of(model, tower))))
    found[DYNAMIC] = attempt(lambda: plain_dynamic(model, tower), tried)
    found[STATIC] = attempt(lambda: plain_static(model, tower, seen), tried)
    smaller = subject.smaller
    if isinstance(smaller, str):
        return {**found, OURS: Contender(None, None, f"refused: {smaller}")}
    spec = smaller.manifest.text if tower == "text" else smaller.manifest.image
    assert spec is not None
    return {**found, OURS: of_graph(onnx.load(str(file_of(smaller, tower))), spec.precision)}


_NOTHING: Row = {"mean cosine": None, "p1 cosine": None, "agreement@10": None, "least alone and in batch": None}


def _quality(encode: Encode, measuring: Side, tower: TowerName) -> Row:
    """Return how far embeddings are from float32's, and the share of its ten best pictures that they find."""
    feeds, expected = measuring.texts, measuring.float_texts
    if tower == "image":
        feeds, expected = measuring.pictures, measuring.float_pictures
    embedded, batched = _embed(encode, feeds), _embed(encode, _batches(measuring, tower))
    near, own = cosines(embedded, expected), tower == "image"
    wanted, answered = (
        metrics.scores(queries, measuring.float_pictures, leave_own_out=own) for queries in (expected, embedded)
    )
    return {
        "mean cosine": significant(float(near.mean()), 6),
        "p1 cosine": significant(float(np.percentile(near, 1)), 6),
        "agreement@10": significant(metrics.agreement(wanted, answered, 10)),
        "least alone and in batch": significant(float(cosines(batched, embedded[: len(batched)]).min()), 8),
    }


def _next(encode: Encode, feeds: Iterator[Feed]) -> object:
    return encode(next(feeds))


def _embed(encode: Encode, feeds: Sequence[Feed]) -> np.ndarray:
    return np.concatenate([encode(feed) for feed in feeds])


def _times(elapsed_ms: Mapping[str, list[float]], what: str) -> Row:
    if what not in elapsed_ms:
        return {"p50 ms": None, "p95 ms": None, OVER: None}
    times = elapsed_ms[what]
    slow = significant(float(np.percentile(times, 95)))
    return {"p50 ms": median(times), "p95 ms": slow, OVER: ratio(times, elapsed_ms[FLOAT])}


def _batches(side: Side, tower: TowerName) -> Sequence[Feed]:
    return side.text_batches if tower == "text" else side.picture_batches


def _only_stored(precision: str) -> bool:
    return precision.endswith("storage")


def _note(subject: Subject, measuring: Side) -> str:
    spec = TextEncoder(subject.model).spec
    ids = [feed["input_ids"][0] for feed in measuring.texts]
    lengths = [int((row == spec.end_id).argmax()) + 1 for row in ids]
    note = (
        f"{subject.name}: {len(ids)} texts of {np.median(lengths):g} tokens in the median and "
        f"{np.percentile(lengths, 95):g} at the 95th percentile, {len(measuring.pictures)} pictures."
    )
    if not spec.trim:
        note += f" Its text tower attends to padding, so that every text takes its full {spec.context_length} tokens."
    return note if subject.clip is not None else note + " No torch: its checkpoint is not in the repository."
