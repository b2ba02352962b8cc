"""The proof: what the smaller towers do, on inputs that nothing was steered by, beside float32 in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from pocketlens._types import Float32s
from pocketlens_quantize import metrics
from pocketlens_quantize.gate import Gate
from pocketlens_quantize.inputs import Side
from pocketlens_quantize.session import alternate, embed, features_cosines, open_session, ratio

TowerName: TypeAlias = Literal["text", "image"]
ROUNDS = 200
_KS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Pair:
    """A tower's file in float32 and the smaller one: what is measured is what is shipped."""

    float32: Path
    smaller: Path


def measure(pairs: Mapping[TowerName, Pair], side: Side, *, timed: bool) -> dict[str, float]:
    """Return the figures of model.json's `quality`, by name.

    "a_on_b" reads: queries by the towers a on a gallery encoded by the image tower b. What cannot be measured (no
    captions, one tower alone) is left out.

    Args:
        pairs: the towers, by "text" and "image".
        side: inputs that neither the calibration nor the search has seen.
        timed: whether to measure latency.
    """
    feeds = {"text": side.texts, "image": side.pictures}
    batches = {"text": side.text_batches, "image": side.picture_batches}
    found: dict[str, float] = {}
    embedded = {"text": side.float_texts, "image": side.float_pictures}
    for tower, pair in pairs.items():
        session = open_session(pair.smaller)
        embedded[tower] = embed(session, feeds[tower])
        batched = embed(session, batches[tower])
        near = metrics.cosines(side.float_texts if tower == "text" else side.float_pictures, embedded[tower])
        found |= {
            f"{tower}_float_bytes": pair.float32.stat().st_size,
            f"{tower}_bytes": pair.smaller.stat().st_size,
            f"{tower}_cosine_mean": float(near.mean()),
            f"{tower}_cosine_p1": float(np.percentile(near, 1)),
            f"{tower}_cosine_min": float(near.min()),
            f"{tower}_cosine_alone_and_in_batch_min": float(
                metrics.cosines(batched, embedded[tower][: len(batched)]).min()
            ),
        }
        float32 = open_session(pair.float32)
        if (alike := features_cosines(float32, session, feeds[tower])) is not None:
            found[f"{tower}_features_cosine_mean"] = float(alike.mean())
        if timed:
            times = alternate({"float": float32, "smaller": session}, feeds[tower], rounds=ROUNDS)
            found |= _latencies(tower, times["float"], times["smaller"])
    found |= _agreements(side, embedded["text"], embedded["image"])
    return {name: round(value, 6) for name, value in found.items()}


def misses(tower: str, gate: Gate, quality: Mapping[str, float], *, is_faster: bool) -> list[str]:
    """Return what of a tower's gate is not reached, one phrase each; `is_faster`: whether it is meant to be."""
    case = "int8_on_float" if tower == "text" else "float_on_int8"  # the recall that this tower alone is answerable for
    lost = None
    if f"text_recall_at_10_{case}" in quality:
        lost = 100 * (quality["text_recall_at_10_float_on_float"] - quality[f"text_recall_at_10_{case}"])
    missed = gate.misses(
        cosine=quality[f"{tower}_cosine_mean"],
        agreement=quality[f"{tower}_agreement_at_10_int8_on_float"],
        same_in_batch=quality[f"{tower}_cosine_alone_and_in_batch_min"],
        lost=lost,
    )
    slower = quality.get(f"{tower}_latency_ratio", 0.0)
    if is_faster and not slower <= 1:
        missed.append(f"latency is {slower:.2f} of float32's")
    return missed


def _latencies(tower: str, float32: np.ndarray, smaller: np.ndarray) -> dict[str, float]:
    return {
        f"{tower}_float_latency_ms_p50": float(np.percentile(float32, 50)),
        f"{tower}_float_latency_ms_p95": float(np.percentile(float32, 95)),
        f"{tower}_latency_ms_p50": float(np.percentile(smaller, 50)),
        f"{tower}_latency_ms_p95": float(np.percentile(smaller, 95)),
        f"{tower}_latency_ratio": ratio(smaller, float32),
    }


def _agreements(side: Side, texts: Float32s, pictures: Float32s) -> dict[str, float]:
    found: dict[str, float] = {}
    galleries = {"int8": pictures, "float": side.float_pictures}
    if not len(pictures):  # texts alone: among themselves
        galleries = {"int8": texts, "float": side.float_texts}
    for tower, float32, smaller in (("text", side.float_texts, texts), ("image", side.float_pictures, pictures)):
        if not len(float32):
            continue
        own = tower == "image" or not len(pictures)
        expected = metrics.scores(float32, galleries["float"], leave_own_out=own)
        for gallery in galleries:
            answered = metrics.scores(smaller, galleries[gallery], leave_own_out=own)
            for k in (1, 10):
                found[f"{tower}_agreement_at_{k}_int8_on_{gallery}"] = metrics.agreement(expected, answered, k)
    if any(side.labels):
        found |= _recalls(side, {"float": side.float_texts, "int8": texts}, galleries)
    return found


def _recalls(side: Side, queries: Mapping[str, Float32s], galleries: Mapping[str, Float32s]) -> dict[str, float]:
    found = {"text_labelled": float(sum(map(bool, side.labels)))}
    for query, vectors in queries.items():
        for gallery, rows in galleries.items():
            answered = metrics.scores(vectors, rows, leave_own_out=False)
            for k in _KS:
                found[f"text_recall_at_{k}_{query}_on_{gallery}"] = metrics.recall(answered, side.labels, k)
    return found
