"""Smaller weights in an ONNX graph, each way a small function over a loaded model.

`store_float16` and `store_int8` change what the file holds, not what runs: the weights are cast back by nodes that
onnxruntime folds when it opens the file, so compute stays float32 and latency does not change. `quantize_matmuls` and
`quantize_table` change what runs: eight-bit weights stay eight-bit in memory, with the activations quantized per row by
the kernel (MatMulNBits) and per looked-up row (the token table). Neither depends on the batch or its padding, which
onnxruntime's dynamic quantization does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pocketlens_quantize.graph import add_constant, quiet, replace_nodes, take_constant

MIN_VALUES = 1_024  # smaller tensors (biases, norms) are not worth a node


def large_weights(model: onnx.ModelProto) -> list[str]:
    """Return the names of float32 initializers with at least 1,024 values."""
    return [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= MIN_VALUES
    ]


def store_float16(model: onnx.ModelProto, names: Iterable[str]) -> None:
    """Hold the named float32 initializers as float16, cast back when the file is opened. Changes `model`.

    Raises:
        ValueError: a weight lies outside float16's range.
    """
    casts = []
    for name in names:
        weight = take_constant(model, name)
        if np.abs(weight).max() > np.finfo(np.float16).max:
            raise ValueError(f"{name}: a weight of {np.abs(weight).max():.3g} does not fit float16")
        add_constant(model, f"{name}.float16", weight.astype(np.float16))
        casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT))
    replace_nodes(model, [*casts, *model.graph.node])


def store_int8(model: onnx.ModelProto, names: Iterable[str], *, axis: int) -> None:
    """Hold the named float32 initializers as int8 with a scale per index of `axis`, multiplied back at opening.

    Changes `model`. The error of a weight is at most half a step: 1/254 of the largest in its slice.
    """
    for name in names:
        codes, scales = _to_int8(take_constant(model, name), axis)
        add_constant(model, f"{name}.int8", codes)
        add_constant(model, f"{name}.scale", scales)
        cast = helper.make_node("Cast", [f"{name}.int8"], [f"{name}.cast"], to=TensorProto.FLOAT)
        scaled = helper.make_node("Mul", [f"{name}.cast", f"{name}.scale"], [name])
        replace_nodes(model, [cast, scaled, *model.graph.node])


def quantize_table(model: onnx.ModelProto, name: str) -> None:
    """Hold the float32 (tokens, width) table that Gather nodes read as int8 with a scale per token. Changes `model`.

    Raises:
        ValueError: something other than a Gather over the first axis reads the table.
    """
    codes, scales = _to_int8(take_constant(model, name), axis=0)
    add_constant(model, f"{name}.int8", codes)
    add_constant(model, f"{name}.scale", scales)
    nodes = []
    for node in model.graph.node:
        if name not in node.input:
            nodes.append(node)
            continue
        axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
        if node.op_type != "Gather" or node.input[0] != name or axes not in ([], [0]):
            raise ValueError(f"{name} is read by {node.op_type} {node.name}, expected only Gather over axis 0")
        out = node.output[0]
        nodes += [
            helper.make_node("Gather", [f"{name}.int8", node.input[1]], [f"{out}.int8"], axis=0),
            helper.make_node("Cast", [f"{out}.int8"], [f"{out}.cast"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [f"{name}.scale", node.input[1]], [f"{out}.scale"], axis=0),
            helper.make_node("Mul", [f"{out}.cast", f"{out}.scale"], [out]),
        ]
    replace_nodes(model, nodes)


def quantize_matmuls(
    model: onnx.ModelProto, nodes: Collection[str] | None = None, *, bits: Literal[4, 8] = 8, block: int = 128
) -> onnx.ModelProto:
    """Return the model with MatMuls by a float32 constant held in few bits: a scale and zero point per `block` weights.

    Args:
        model: is left as it was or changed; use what is returned.
        nodes: names of the MatMuls; by default all of them.
        bits: per weight.
        block: weights that share a scale.

    accuracy_level 4 lets the kernel multiply int8 by int8, quantizing activations per row (onnxruntime, MatMulNBits).
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=False, accuracy_level=4, bits=bits)
    # Its list of nodes to include is of what to quantize beside all MatMuls.
    others = [] if nodes is None else [node.name for node in model.graph.node if node.name not in nodes]
    with quiet():
        quantizer = MatMulNBitsQuantizer(model, algo_config=config, nodes_to_exclude=others)
        quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _to_int8(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    others = tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales
