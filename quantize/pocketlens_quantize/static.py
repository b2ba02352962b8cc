"""Static int8: ranges of activations are calibrated once, so that an input's embedding does not depend on its batch."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from pocketlens_quantize.graph import (
    CLAMPS,
    PRODUCTS,
    WEIGHTED,
    add_constant,
    constants,
    consumers,
    copy_of,
    producers,
    prune,
    quiet,
    replace_nodes,
    weighted_nodes,
)  # fmt: skip
from pocketlens_quantize.session import Feed, FeedReader
from pocketlens_quantize.smooth import branch, channel_maxima
from pocketlens_quantize.target import Target

Calibration: TypeAlias = Literal["minmax", "percentile", "entropy"]
PERCENTILE = 99.99
_CHUNK = 8  # the histogram collectors hold every activation of a chunk at once


class StaticGraph:
    """A prepared graph with calibrated ranges, from which int8 graphs for any choice of nodes are made.

    Args:
        model: a graph from `prepare.prepare`.
        feeds: calibration inputs.
        calibration: how a range is taken from what was seen.
        smooth: whether to move the spread of MatMuls' activations into their weights.

    Attributes:
        model: the float32 graph with the branches and smoothed weights that it quantizes.
    """

    def __init__(
        self, model: onnx.ModelProto, feeds: Sequence[Feed], *, calibration: Calibration, smooth: bool
    ) -> None:
        products = [node.name for node in weighted_nodes(model) if node.op_type in PRODUCTS]
        self._plain = model
        self.model = copy_of(model)
        values = sorted({node.input[0] for node in model.graph.node if node.name in set(products)})
        branch(self.model, products, channel_maxima(model, values, feeds) if smooth else None)
        prune(self.model)
        self.model = onnx.shape_inference.infer_shapes(self.model)
        self._ranges = _calibrate(self.model, feeds, calibration)

    def quantize(self, nodes: Collection[str], target: Target) -> onnx.ModelProto:
        """Return the graph with the named nodes in int8, per-channel weights; the others are as they were."""
        from onnxruntime.quantization import QDQQuantizer, QuantType

        model = copy_of(self.model)
        _join_again(model, self._plain, nodes)
        clamps = _clamps_after(model, nodes)
        with quiet():
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=target.reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8 if target.activation == "uint8" else QuantType.QInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=[*nodes, *clamps, ""],  # an empty list would mean all of them
                nodes_to_exclude=[],
                op_types_to_quantize=[*WEIGHTED, *CLAMPS],
                # A product's result goes on in float32 (a bias, a norm, a softmax): nothing is gained by rounding it.
                extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": [*PRODUCTS]},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
        read_pixels_directly(quantized)
        keep_float(quantized)
        prune(quantized)
        return quantized


def read_pixels_directly(model: onnx.ModelProto) -> bool:
    """Let an int8 convolution read the uint8 pixels themselves, where that is exactly what it would be given.

    Cast, Mul and Add of a mean and a deviation that are the same for all channels, then quantization, give back the
    pixels with another scale and zero point. Changes `model`; returns whether it did. On lens-base it saves a
    quarter of the int8 tower's time.
    """
    known, readers = constants(model), consumers(model)
    for cast in (node for node in model.graph.node if node.op_type == "Cast"):
        chain = [cast]
        for op_type in ("Mul", "Add", "QuantizeLinear", "DequantizeLinear"):
            after = readers.get(chain[-1].output[0], [])
            if len(after) != 1 or after[0].op_type != op_type:
                break
            chain.append(after[0])
        if len(chain) < 5:
            continue
        _, mul, add, quantize, dequantize = chain
        scale, shift = (numpy_helper.to_array(known[node.input[1]]).ravel() for node in (mul, add))
        zero_point = -shift[0] / scale[0]
        if np.ptp(scale) or np.ptp(shift) or not 0 <= zero_point <= 255 or abs(zero_point - round(zero_point)) > 1e-3:
            return False
        add_constant(model, "pixels.scale", np.asarray(scale[0], dtype=np.float32))
        add_constant(model, "pixels.zero_point", np.asarray(round(zero_point), dtype=np.uint8))
        dequantize.input[:] = [cast.input[0], "pixels.scale", "pixels.zero_point"]
        replace_nodes(model, [node for node in model.graph.node if node.name not in {quantize.name, cast.name}])
        prune(model)
        return True
    return False


def keep_float(model: onnx.ModelProto) -> None:
    """Keep onnxruntime from quantizing the weights of float32 nodes behind int8 ones. Changes `model`.

    On opening a file (WeightBiasQuantization, basic level) it rounds the weight of any Conv or Gemm whose input comes
    from a DequantizeLinear with one scale, with one scale for the whole weight: lens-base falls from cosine 0.997 to
    0.964 by one node. A scale for each channel, all equal, computes the same and is left alone.
    """
    makers, known = producers(model), constants(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        maker = makers.get(node.input[0]) if node.op_type in ("Conv", "Gemm") else None
        weight = known.get(node.input[1]) if maker is not None else None
        if maker is not None and maker.op_type == "DequantizeLinear" and weight is not None:
            scale, zero_point = (numpy_helper.to_array(known[name]) for name in maker.input[1:3])
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            channels = weight.dims[1] * groups if node.op_type == "Conv" else weight.dims[0]
            name = f"{node.name}.input"
            add_constant(model, f"{name}.scale", np.full(channels, scale.item(), np.float32))
            add_constant(model, f"{name}.zero_point", np.full(channels, zero_point.item(), zero_point.dtype))
            inputs = [maker.input[0], f"{name}.scale", f"{name}.zero_point"]
            nodes.append(onnx.helper.make_node("DequantizeLinear", inputs, [name], name=name, axis=1))
            node.input[0] = name
        nodes.append(node)
    replace_nodes(model, nodes)


def _clamps_after(model: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """Return the clamps right behind the named nodes: quantized with them, the range of the result does their work."""
    readers = consumers(model)
    outputs = [node.output[0] for node in model.graph.node if node.name in set(nodes)]
    return [after.name for name in outputs for after in readers.get(name, []) if after.op_type in CLAMPS]


def _join_again(model: onnx.ModelProto, plain: onnx.ModelProto, nodes: Collection[str]) -> None:
    """Give nodes that stay out of int8 their first inputs back; their branches and smoothed weights fall away."""
    before = {node.name: list(node.input) for node in weighted_nodes(plain)}
    known, originals = constants(model), constants(plain)
    for node in model.graph.node:
        if node.op_type in PRODUCTS and node.name not in nodes and node.name in before:
            node.input[:] = before[node.name]
            if node.input[1] not in known:
                model.graph.initializer.append(originals[node.input[1]])
                known[node.input[1]] = originals[node.input[1]]
    prune(model)
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))  # pruning dropped the types, which the quantizer needs


def _calibrate(model: onnx.ModelProto, feeds: Sequence[Feed], calibration: Calibration) -> Any:
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    method = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[calibration]
    options = {"percentile": PERCENTILE} if calibration == "percentile" else {}
    with tempfile.TemporaryDirectory(prefix="pocketlens-calibrate-") as folder, quiet():
        path = Path(folder) / "plain.onnx"
        onnx.save(model, str(path))
        calibrator = create_calibrator(
            path,
            [*WEIGHTED, *CLAMPS],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=method,
            extra_options=options,
        )
        for _, group in itertools.groupby(sorted(feeds, key=_shapes), key=_shapes):  # a chunk's arrays are stacked
            alike = list(group)
            for start in range(0, len(alike), _CHUNK):
                calibrator.collect_data(FeedReader(alike[start : start + _CHUNK]))
        return calibrator.compute_data()


def _shapes(feed: Feed) -> list[tuple[int, ...]]:
    return [value.shape for value in feed.values()]
