"""What a smaller tower must still do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pocketlens.errors import BadQuery

SAME_IN_BATCH = 0.9999  # a text's embedding may not depend on what else is encoded with it


@dataclass(frozen=True, slots=True)
class Gate:
    """The least that a tower must reach, against its own float32.

    Attributes:
        cosine: mean cosine of embeddings.
        agreement: share of float32's exact top 10 that int8 queries find in the float32 gallery.
        recall: most points (hundredths) of labelled recall@10 that may be lost, where there are labels.
    """

    cosine: float
    agreement: float
    recall: float

    def misses(self, *, cosine: float, agreement: float, same_in_batch: float, lost: float | None) -> list[str]:
        """Return what falls short and by how much, one phrase each; nothing when all is reached.

        Args:
            cosine: mean cosine.
            agreement: agreement@10.
            same_in_batch: least cosine between an input alone and in a batch.
            lost: points of recall@10 lost; None when nothing is labelled.
        """
        found = [
            ("mean cosine", cosine, self.cosine),
            ("agreement@10", agreement, self.agreement),
            ("cosine alone against in a batch", same_in_batch, SAME_IN_BATCH),
        ]
        phrases = [
            f"{what} {value:.4f} misses {bar:g} by {bar - value:.4f}" for what, value, bar in found if not value >= bar
        ]
        if lost is not None and not lost <= self.recall:
            phrases.append(f"labelled recall@10 falls by {lost:.2f} points, {lost - self.recall:.2f} too many")
        return phrases

    def tightened(self, share: float) -> Gate:
        """Return a gate that allows only this share of the losses: a search steers on fewer inputs than the proof."""
        return Gate(1 - (1 - self.cosine) * share, 1 - (1 - self.agreement) * share, self.recall)


DEFAULTS = {"text": Gate(0.995, 0.95, 1.0), "image": Gate(0.99, 0.95, 1.0)}


def parse_gates(text: str | None) -> dict[str, Gate]:
    """Return the gate of each tower: the defaults, changed by "recall=1.0,cosine=0.99,agreement=0.9".

    Raises:
        BadQuery: an unknown name, a value that is no number or out of range, or a name given twice.
    """
    changed: dict[Literal["cosine", "agreement", "recall"], float] = {}
    for part in (text or "").split(",") if text else []:
        name, _, value = part.strip().partition("=")
        most = {"cosine": 1.0, "agreement": 1.0, "recall": 100.0}.get(name)
        if most is None or name in changed:
            raise BadQuery(f"--gate {text}: {name!r} is twice there or unknown, expected cosine, agreement or recall")
        if not _in_range(value, most):
            raise BadQuery(f"--gate {text}: {name} is {value!r}, expected a number from 0 to {most:g}")
        changed[name] = float(value)  # type: ignore[index]  # one of the three
    return {tower: _changed(gate, changed) for tower, gate in DEFAULTS.items()}


def _changed(gate: Gate, values: Mapping[Literal["cosine", "agreement", "recall"], float]) -> Gate:
    cosine = values.get("cosine", gate.cosine)
    return Gate(cosine, values.get("agreement", gate.agreement), values.get("recall", gate.recall))


def _in_range(value: str, most: float) -> bool:
    try:
        number = float(value)
    except ValueError:
        return False
    return math.isfinite(number) and 0 <= number <= most
