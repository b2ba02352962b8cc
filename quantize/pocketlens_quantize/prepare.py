"""The form of a graph that every strategy starts from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pocketlens._types import Float32s
from pocketlens_quantize.graph import add_constant, constants, prune, quiet
from pocketlens_quantize.silent import cut_silent_channels

_BLOCKED = -1e4  # as low as a mask needs to be: exp gives exactly 0
_MASK = -1e30  # what is lower is a mask and no weight


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph that strategies work on: constants folded, products' weights (k, n), no infinite masks.

    Channels that are always zero are cut. The folding is onnxruntime's (basic level, the same on every processor), with
    the shapes inferred by onnx.
    """
    from onnxruntime.quantization import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="pocketlens-quantize-") as folder, quiet():
        plain, out = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        onnx.save(model, str(plain))
        # onnxruntime's symbolic inference fails on these graphs' dynamic shapes; onnx's own finds all types.
        quant_pre_process(plain, out, skip_symbolic_shape=True)
        prepared = onnx.load(str(out))
    _name_nodes(prepared)
    _turn_gemms(prepared)
    cut_silent_channels(prepared)
    _soften_masks(prepared)
    inferred = onnx.shape_inference.infer_shapes(prepared)
    del inferred.metadata_props[:]
    used = {node.domain for node in inferred.graph.node}
    for entry in [entry for entry in inferred.opset_import if entry.domain not in used]:
        inferred.opset_import.remove(entry)  # onnxruntime writes down every domain that it knows
    return inferred


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own: nodes are chosen by name."""
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}_{node.output[0]}"
        seen.add(node.name)


def _turn_gemms(model: onnx.ModelProto) -> None:
    """Give every Gemm with a constant weight that weight as (k, n), as MatMul has it, and no factors."""
    weights = constants(model)
    for node in model.graph.node:
        attributes: dict[str, Any] = {
            attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute
        }
        if node.op_type != "Gemm" or node.input[1] not in weights or attributes.get("transA", 0):
            continue
        value = numpy_helper.to_array(weights[node.input[1]])
        columns = f"{node.name}.columns"
        add_constant(model, columns, (value.T if attributes.get("transB", 0) else value) * attributes.get("alpha", 1.0))
        node.input[1] = columns
        if len(node.input) == 3 and attributes.get("beta", 1.0) != 1.0:
            add_constant(
                model, f"{node.name}.offset", numpy_helper.to_array(weights[node.input[2]]) * attributes["beta"]
            )
            node.input[2] = f"{node.name}.offset"
        del node.attribute[:]
    prune(model)


def _soften_masks(model: onnx.ModelProto) -> None:
    """Replace the -inf and -3.4e38 of attention masks, on which no range can be calibrated, by -10,000."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            value: Float32s = numpy_helper.to_array(tensor)
            if value.size and value.min() < _MASK:
                tensor.CopyFrom(numpy_helper.from_array(np.maximum(value, np.float32(_BLOCKED)), tensor.name))
