"""What to do with one tower: a method, its settings and the nodes that are exempt; and the graph that comes of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from pocketlens_quantize.dynamic import quantize_dynamic_int8
from pocketlens_quantize.fuse import fuse_attention, fuse_products
from pocketlens_quantize.graph import PRODUCTS, constants, consumers, copy_of, split_gemms, weighted_nodes
from pocketlens_quantize.optimum_presets import quantize_with_optimum
from pocketlens_quantize.prepare import prepare
from pocketlens_quantize.session import Feed
from pocketlens_quantize.static import Calibration, StaticGraph
from pocketlens_quantize.storage import large_weights, quantize_matmuls, quantize_table, store_float16, store_int8
from pocketlens_quantize.target import Target

Method: TypeAlias = Literal["float16", "int8-storage", "dynamic", "static", "weights8", "weights4", "optimum"]
STORAGE: tuple[Method, ...] = ("float16", "int8-storage")  # smaller on disk, float32 when it runs
# Weights per scale. With 128, onnxruntime's kernel sums in another order for odd numbers of rows: a text alone and in a
# batch then fall on two sides of a rounding (cosine 0.9994 at worst on MiniLM). With 32 they are equal.
_BLOCK = 32
_CALIBRATED = 256  # inputs: histograms of more take minutes and change no range that matters
_TABLE_ROWS = 1_000  # a Gather of fewer rows reads positions, not tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to make a tower smaller.

    Attributes:
        method: the strategy.
        calibration: how static ranges are taken.
        smooth: whether activations' spread is moved into the weights first.
        weights8: MatMuls kept out of int8 activations' static ranges, with 8-bit weights instead.
        floats: nodes kept in float32.
    """

    method: Method
    calibration: Calibration | None = None
    smooth: bool = False
    weights8: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """A few words for tables."""
        names = {
            "float16": "float16 storage",
            "int8-storage": "int8 storage",
            "dynamic": "dynamic int8",
            "static": f"static int8, {self.calibration}",
            "weights8": "8-bit weights",
            "weights4": "4-bit weights",
            "optimum": "optimum preset",
        }
        parts = [names[self.method] + (", smoothed" if self.smooth else "")]
        if self.weights8:
            parts.append(f"{len(self.weights8)} nodes 8-bit weights")
        if self.floats:
            parts.append(f"{len(self.floats)} nodes float32")
        return ", ".join(parts)


class Tower:
    """A float32 tower and what is needed to make any plan of it.

    Attributes:
        kind: "text" or "image".
        model: the float32 graph as exported.
        prepared: the same in the form that strategies work on.
        nodes: names of the convolutions and products with constant weights, in graph order.
        products: those of `nodes` that are matrix products.
        target: the processor that it is made for.
    """

    def __init__(
        self, kind: Literal["text", "image"], model: onnx.ModelProto, feeds: Sequence[Feed], target: Target
    ) -> None:
        self.kind = kind
        self.model = model
        self.target = target
        self._feeds = feeds
        self.prepared = prepare(model)
        self._calibrated: dict[tuple[Calibration, bool], StaticGraph] = {}
        weighted = weighted_nodes(self.prepared)
        sizes = {name: int(np.prod(tensor.dims)) for name, tensor in constants(self.prepared).items()}
        self.nodes = tuple(node.name for node in weighted)
        self.products = tuple(node.name for node in weighted if node.op_type in PRODUCTS)
        in_products = sum(sizes[node.input[1]] for node in weighted if node.op_type in PRODUCTS)
        in_convolutions = sum(sizes[node.input[1]] for node in weighted if node.op_type == "Conv")
        self._mostly_products = in_products > in_convolutions

    def plans(self) -> list[Plan]:
        """Return the plans to begin with, storage alone first."""
        calibrations: tuple[Calibration, ...] = ("minmax", "percentile", "entropy")
        storage = [Plan("float16"), Plan("int8-storage")]
        if not self._mostly_products:
            return [*storage, *(Plan("static", calibration) for calibration in calibrations), Plan("optimum")]
        smoothed = [Plan("static", calibration, smooth=True) for calibration in calibrations]
        others = [Plan("dynamic"), Plan("weights8"), Plan("weights4"), Plan("optimum")]
        return [*storage, Plan("static", "minmax"), *smoothed, *others]

    def build(self, plan: Plan) -> onnx.ModelProto:
        """Return the graph of a plan, ready to be saved."""
        model = self.quantize(plan)
        if self.kind == "text" and plan.method != "float16":
            for table in _token_tables(model):
                quantize_table(model, table)
        if plan.method not in STORAGE:
            fuse_attention(model)
            fuse_products(model)
        if plan.method == "int8-storage":
            _store_all_int8(model)
        store_float16(model, _storable(model))
        return model

    def quantize(self, plan: Plan) -> onnx.ModelProto:
        """Return the graph of a plan before nodes are fused and what stays float32 is stored in fewer bits."""
        if plan.method in STORAGE:
            return copy_of(self.model)
        exempt = {*plan.weights8, *plan.floats}
        nodes = [name for name in self.nodes if name not in exempt]
        if plan.method == "static":
            quantized = self.calibrated(plan).quantize(nodes, self.target)
            return _few_bits(quantized, plan.weights8, 8) if plan.weights8 else quantized
        products = [name for name in self.products if name not in exempt]
        if plan.method == "dynamic":
            return quantize_dynamic_int8(self.prepared, products, reduce_range=self.target.reduce_range)
        if plan.method == "optimum":
            return self._optimum()
        return _few_bits(copy_of(self.prepared), products, 4 if plan.method == "weights4" else 8)

    def calibrated(self, plan: Plan) -> StaticGraph:
        """Return the graph with the ranges of a static plan, calibrated when it is first asked for."""
        assert plan.calibration is not None
        key = (plan.calibration, plan.smooth)
        if key not in self._calibrated:
            feeds = self._feeds[:_CALIBRATED]
            self._calibrated[key] = StaticGraph(self.prepared, feeds, calibration=plan.calibration, smooth=plan.smooth)
        return self._calibrated[key]

    def _optimum(self) -> onnx.ModelProto:
        with tempfile.TemporaryDirectory(prefix="pocketlens-optimum-") as folder:
            source, out = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            onnx.save(self.prepared, str(source))
            feeds = None if self._mostly_products else self._feeds
            quantize_with_optimum(source, out=out, preset=self.target.preset, feeds=feeds)
            return onnx.load(str(out))


def _few_bits(model: onnx.ModelProto, products: Sequence[str], bits: Literal[4, 8]) -> onnx.ModelProto:
    split_gemms(model, products)
    return quantize_matmuls(model, products, bits=bits, block=_BLOCK)


def _token_tables(model: onnx.ModelProto) -> list[str]:
    readers = consumers(model)
    return [
        name
        for name in large_weights(model)
        if len(constants(model)[name].dims) == 2
        and constants(model)[name].dims[0] >= _TABLE_ROWS
        and all(node.op_type == "Gather" and node.input[0] == name for node in readers.get(name, []))
    ]


def _storable(model: onnx.ModelProto) -> list[str]:
    """Return large weights that may be held in fewer bits: not the scales that quantized operators read."""
    names = [name for name in large_weights(model) if not name.endswith(("scale", "scales"))]
    known = constants(model)
    return [name for name in names if np.abs(numpy_helper.to_array(known[name])).max() <= np.finfo(np.float16).max]


def _store_all_int8(model: onnx.ModelProto) -> None:
    """Hold weights as int8: a scale per output channel, which is the first axis of Conv and of a transposed Gemm."""
    readers = consumers(model)
    for name in _storable(model):
        kinds = {node.op_type for node in readers.get(name, [])}
        dims = len(constants(model)[name].dims)
        if kinds == {"MatMul"} and dims == 2:
            store_int8(model, [name], axis=1)
        elif kinds <= {"Conv", "Gemm"} and dims > 1:
            store_int8(model, [name], axis=0)
