"""How far a quantized tower may be from the golden values of its float32 reference, by what its weights became.

Golden values find a processor that computes something else, not what a quantizer lost: that is in `quality`. They hold
generated pictures and odd texts, which lie outside of what ranges were calibrated on, so the bars are wide of the gate.
"""

from __future__ import annotations

from dataclasses import dataclass

from pocketlens_quantize.plan import Method


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Least cosine and greatest absolute difference of golden embeddings, and why."""

    min_cosine: float
    max_abs: float
    reason: str


_STORED = Tolerance(0.99, 0.05, "the arithmetic is float32's; only the weights were rounded, to 8 bits at worst")
_WEIGHTS = Tolerance(0.98, 0.06, "weights in 8 bits and activations in 8 bits by row, which fits any input")
_STATIC = Tolerance(
    0.9, 0.15, "ranges fitted to real inputs cut what generated ones exceed; a wrong kernel gives about 0"
)
_COARSE = Tolerance(0.85, 0.15, "weights in 4 bits, or ranges that depend on the input")

_BY_METHOD: dict[Method, Tolerance] = {
    "float16": Tolerance(0.9999, 0.01, "weights rounded to 11 bits, arithmetic in float32"),
    "int8-storage": _STORED,
    "weights8": _WEIGHTS,
    "static": _STATIC,
    "dynamic": _COARSE,
    "weights4": _COARSE,
    "optimum": _STATIC,
}


def tolerance_of(method: Method) -> Tolerance:
    """Return the bars for golden values of a tower made by a method."""
    return _BY_METHOD[method]
