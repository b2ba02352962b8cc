"""Smaller weights in an ONNX graph, each way a small function over a loaded model.

`store_float16` and `store_int8` change what the file holds, not what runs: the weights are cast back by nodes that
onnxruntime folds when it opens the file, so compute stays float32 and latency does not change. `quantize_matmuls` and
`quantize_table` change what runs: eight-bit weights stay eight-bit in memory, with the activations quantized per row by
the kernel (MatMulNBits) and per looked-up row (the token table). Neither depends on the batch or its padding, which
onnxruntime's dynamic quantization does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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
    for name in names:
        weight = _take(model, name)
        if np.abs(weight).max() > np.finfo(np.float16).max:
            raise ValueError(f"{name}: a weight of {np.abs(weight).max():.3g} does not fit float16")
        _add(model, f"{name}.float16", weight.astype(np.float16))
        _prepend(model, [helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT)])


def store_int8(model: onnx.ModelProto, names: Iterable[str], *, axis: int) -> None:
    """Hold the named float32 initializers as int8 with a scale per index of `axis`, multiplied back at opening.

    Changes `model`. The error of a weight is at most half a step: 1/254 of the largest in its slice.
    """
    for name in names:
        codes, scales = _to_int8(_take(model, name), axis)
        _add(model, f"{name}.int8", codes)
        _add(model, f"{name}.scale", scales)
        cast = helper.make_node("Cast", [f"{name}.int8"], [f"{name}.cast"], to=TensorProto.FLOAT)
        _prepend(model, [cast, helper.make_node("Mul", [f"{name}.cast", f"{name}.scale"], [name])])


def quantize_table(model: onnx.ModelProto, name: str) -> None:
    """Hold the float32 (tokens, width) table that Gather nodes read as int8 with a scale per token. Changes `model`.

    Raises:
        ValueError: something other than a Gather over the first axis reads the table.
    """
    codes, scales = _to_int8(_take(model, name), axis=0)
    _add(model, f"{name}.int8", codes)
    _add(model, f"{name}.scale", scales)
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
    _replace_nodes(model, nodes)


def quantize_matmuls(model: onnx.ModelProto, *, block: int = 128) -> onnx.ModelProto:
    """Return the model with every MatMul by a constant held in 8 bits: a scale and zero point per `block` weights.

    accuracy_level 4 lets the kernel multiply int8 by int8 (onnxruntime, MatMulNBits).
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=False, accuracy_level=4, bits=8)
    logging.getLogger(MatMulNBitsQuantizer.__module__).setLevel(logging.WARNING)  # it reports every node
    quantizer = MatMulNBitsQuantizer(model, algo_config=config)
    quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _to_int8(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    others = tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales


def _take(model: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weight = numpy_helper.to_array(tensor).copy()
    model.graph.initializer.remove(tensor)
    return weight


def _add(model: onnx.ModelProto, name: str, value: NDArray[np.generic]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))


def _prepend(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    _replace_nodes(model, [*nodes, *model.graph.node])


def _replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]  # before `del` empties them
    del model.graph.node[:]
    model.graph.node.extend(copies)
