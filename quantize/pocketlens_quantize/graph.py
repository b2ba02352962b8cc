"""Reading and changing ONNX graphs: who makes a value, who reads it, what is constant."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from logging import ERROR, disable, root
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array: TypeAlias = NDArray[Any]

PRODUCTS = ("MatMul", "Gemm")
WEIGHTED = ("Conv", *PRODUCTS)
CLAMPS = ("Clip", "Relu")  # run inside the convolution before them


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the node that makes each value."""
    return {name: node for node in model.graph.node for name in node.output}


def consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the nodes that read each value, in graph order."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the graph's initializers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def weighted_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the convolutions and matrix products with a constant float32 weight, in graph order."""
    known = {name for name, tensor in constants(model).items() if tensor.data_type == onnx.TensorProto.FLOAT}
    return [node for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in known]


def add_constant(model: onnx.ModelProto, name: str, value: Array) -> None:
    """Add an initializer."""
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))


def take_constant(model: onnx.ModelProto, name: str) -> Array:
    """Remove an initializer and return its value."""
    tensor = constants(model)[name]
    value = numpy_helper.to_array(tensor).copy()
    model.graph.initializer.remove(tensor)
    return value


def replace_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make `nodes`, which may be the graph's own, all that the graph holds."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]  # before `del` empties them
    del model.graph.node[:]
    model.graph.node.extend(copies)


def prune(model: onnx.ModelProto) -> None:
    """Remove nodes and initializers that no output needs, and what shape inference noted."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    replace_nodes(model, reversed(kept))
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in needed]:
        model.graph.initializer.remove(tensor)
    del model.graph.value_info[:]


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a deep copy."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def expose(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy whose outputs also hold the named float32 values."""
    exposed = copy_of(model)
    given = {value.name for value in model.graph.output}
    exposed.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in given
    )
    return exposed


@contextmanager
def quiet() -> Iterator[None]:
    """Silence onnxruntime's quantizer, which prints, logs and warns about every node."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        before = root.manager.disable
        disable(ERROR)
        ort.set_default_logger_severity(4)
        try:
            yield
        finally:
            ort.set_default_logger_severity(2)  # its default; it cannot be asked
            disable(before)


def split_gemms(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Write the named Gemms as MatMul, which has 8-bit kernels that Gemm lacks, and Add. Changes `model`."""
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.name not in names:
            nodes.append(node)
            continue
        product = node.output[0] if len(node.input) < 3 else f"{node.output[0]}.product"
        nodes.append(helper.make_node("MatMul", node.input[:2], [product], name=node.name))
        if len(node.input) == 3:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}.bias"))
    replace_nodes(model, nodes)
