"""Reading and changing ONNX graphs: who makes a value, who reads it, and the form that every strategy starts from."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from logging import ERROR, disable, root
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pocketlens._types import Float32s

Array: TypeAlias = NDArray[Any]

PRODUCTS = ("MatMul", "Gemm")
WEIGHTED = ("Conv", *PRODUCTS)
CLAMPS = ("Clip", "Relu")  # run inside the convolution before them
_BLOCKED = -1e4  # as low as a mask needs to be: exp gives exactly 0
_MASK = -1e30  # what is lower is a mask and no weight


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


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph that strategies work on: constants folded, products' weights (k, n), no infinite masks.

    The folding is onnxruntime's (basic level, the same on every processor), with the shapes inferred by onnx.
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
    _soften_masks(prepared)
    inferred = onnx.shape_inference.infer_shapes(prepared)
    del inferred.metadata_props[:]
    used = {node.domain for node in inferred.graph.node}
    for entry in [entry for entry in inferred.opset_import if entry.domain not in used]:
        inferred.opset_import.remove(entry)  # onnxruntime writes down every domain that it knows
    return inferred


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
