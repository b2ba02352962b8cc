"""One plan tried: built, compared with float32 on the steering inputs, timed against it, and remembered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from pocketlens._types import Float32s
from pocketlens.errors import PocketlensError
from pocketlens.files import write_file
from pocketlens_quantize import metrics
from pocketlens_quantize.plan import Plan, Tower
from pocketlens_quantize.session import Feed, alternate, embed, open_session, ratio
from pocketlens_quantize.target import Target, processor_name

_ROUNDS = 40
_RACE_ROUNDS = 120
_TEMPORARY = re.compile(re.escape(tempfile.gettempdir()) + r"\S*")  # a random name is no reason
_ALONE = 24  # inputs on which a single node's error is measured


@dataclass(frozen=True, slots=True)
class Trial:
    """What a plan came to, on the steering inputs.

    Attributes:
        plan: what was tried.
        size_bytes: of the graph's file.
        cosine_mean: of embeddings with float32's; cosine_p1 the 1st percentile, cosine_min the least.
        agreement_at_10: share of float32's exact top 10 that it finds in a gallery encoded by float32.
        same_in_batch: least cosine between an input alone and in a padded batch.
        latency_ratio: median latency over float32's, by turns; None when this machine cannot time the target.
        failed: why the plan could not be built or run; the figures are then 0.
    """

    plan: Plan
    size_bytes: int = 0
    cosine_mean: float = 0.0
    cosine_p1: float = 0.0
    cosine_min: float = 0.0
    agreement_at_10: float = 0.0
    same_in_batch: float = 0.0
    latency_ratio: float | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class Steering:
    """Inputs that the search may look at.

    Attributes:
        feeds: one input each.
        batches: the same inputs, from the first on, in padded batches.
        gallery: float32 (rows, dim) embeddings of pictures by the float tower; None: the inputs are the gallery.
    """

    feeds: Sequence[Feed]
    batches: Sequence[Feed]
    gallery: Float32s | None


class Trials:
    """Tries plans of one tower, and remembers the results in a file, so that a search resumes where it ended.

    Args:
        tower: what plans are made of.
        steering: inputs to compare on.
        memory: a folder of JSON files, one for each set of conditions that a result depends on beside the plan.
        target: the processor that plans are made for.
    """

    def __init__(self, tower: Tower, steering: Steering, *, memory: Path, target: Target) -> None:
        self._tower = tower
        self._steering = steering
        versions = (ort.__version__, onnx.__version__, np.__version__)
        self._conditions = _conditions(tower.model, steering, target.name, processor_name(), *versions)
        self._memory = memory / f"{self._conditions[:16]}.json"
        self._known: dict[str, Any] = self._read()
        self._float: Any = None
        self._expected: Float32s | None = None

    def run(self, plan: Plan) -> Trial:
        """Return the plan's trial, from memory when it was tried before under the same conditions."""
        key = json.dumps(dataclasses.asdict(plan))
        if key not in self._known:
            trial = self._try(plan)
            if trial.failed is not None:
                return trial  # not remembered: what was missing may be installed by the next run
            self._known[key] = dataclasses.asdict(trial)
            self._write()
        found = dict(self._known[key])
        found["plan"] = plan
        return Trial(**found)

    def error_alone(self, plan: Plan, node: str) -> float:
        """Return 1 - mean cosine when of all nodes only this one is quantized as in `plan`; infinite if it cannot."""
        key = json.dumps([plan.method, plan.calibration, plan.smooth, node])
        if key not in self._known:
            others = tuple(name for name in self._tower.nodes if name != node)
            feeds = self._steering.feeds[:_ALONE]
            expected = self._float_embeddings()[: len(feeds)]
            try:
                model = self._tower.build(dataclasses.replace(plan, weights8=(), floats=others))
                found = embed(open_session(model), feeds)
            except Exception:  # as for a whole plan: this node goes back first
                return float("inf")
            self._known[key] = float(1 - metrics.cosines(expected, found).mean())
            self._write()
        return float(self._known[key])

    def race(self, plans: Sequence[Plan]) -> list[float]:
        """Return the latency of each plan over float32's, all by turns in the same rounds."""
        key = json.dumps(["race", *map(dataclasses.asdict, plans)])
        if key in self._known:
            return [float(value) for value in self._known[key]]
        self._float_embeddings()
        sessions = {str(number): open_session(self._tower.build(plan)) for number, plan in enumerate(plans)}
        times = alternate({"float": self._float, **sessions}, self._steering.feeds, rounds=_RACE_ROUNDS)
        self._known[key] = [ratio(times[name], times["float"]) for name in sessions]
        self._write()
        return list(self._known[key])

    def _try(self, plan: Plan) -> Trial:
        try:
            model = self._tower.build(plan)
            session = open_session(model)
            found = embed(session, self._steering.feeds)
            batched = embed(session, self._steering.batches)
        except MemoryError:
            raise
        except Exception as error:  # onnx, onnxruntime and optimum raise a dozen kinds; one plan less, no more
            return Trial(plan, failed=_one_line(error))
        if not (np.isfinite(found).all() and np.isfinite(batched).all()):
            return Trial(plan, failed="an embedding is not finite")
        expected = self._float_embeddings()
        near = metrics.cosines(expected, found)
        return Trial(
            plan,
            size_bytes=model.ByteSize(),
            cosine_mean=float(near.mean()),
            cosine_p1=float(np.percentile(near, 1)),
            cosine_min=float(near.min()),
            agreement_at_10=self._agreement(expected, found),
            same_in_batch=float(metrics.cosines(batched, found[: len(batched)]).min()),
            latency_ratio=self._ratio(session) if self._tower.target.timed_here else None,
        )

    def _agreement(self, expected: Float32s, found: Float32s) -> float:
        gallery, own = (self._steering.gallery, False) if self._steering.gallery is not None else (expected, True)
        wanted = metrics.scores(expected, gallery, leave_own_out=own)
        return metrics.agreement(wanted, metrics.scores(found, gallery, leave_own_out=own), 10)

    def _ratio(self, session: Any) -> float:
        times = alternate({"float": self._float, "smaller": session}, self._steering.feeds, rounds=_ROUNDS)
        return ratio(times["smaller"], times["float"])

    def _float_embeddings(self) -> Float32s:
        if self._expected is None:
            self._float = open_session(self._tower.model)
            self._expected = embed(self._float, self._steering.feeds)
        return self._expected

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads(self._memory.read_text(encoding="utf-8"))
            known: dict[str, Any] = dict(data["trials"]) if data["conditions"] == self._conditions else {}
        except (OSError, ValueError, LookupError, TypeError):
            return {}  # a cache that cannot be read is no cache
        return known

    def _write(self) -> None:
        content = json.dumps({"conditions": self._conditions, "trials": self._known}, indent=1)
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        write_file(self._memory, content.encode())


def _conditions(model: onnx.ModelProto, steering: Steering, *parts: str) -> str:
    """Return a hex sha256 over a graph, the strategies' own code, and whatever else results depend on."""
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for feed in (*steering.feeds, *steering.batches):
        for value in feed.values():
            digest.update(value.tobytes())
    if steering.gallery is not None:
        digest.update(steering.gallery.tobytes())
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    plain = _TEMPORARY.sub("a file", " ".join(str(error).split()))
    text = plain[:200] or type(error).__name__
    return text if isinstance(error, PocketlensError) else f"{type(error).__name__}: {text}"
