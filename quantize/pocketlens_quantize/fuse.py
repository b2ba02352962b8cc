"""Several nodes become one of onnxruntime's own, where its optimizer does not see it.

For a query of ten tokens the bookkeeping takes as long as the arithmetic: attention is written out as reshapes,
transposes, two products and a softmax, and every int8 product is followed by a sum with its bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pocketlens_quantize.graph import add_constant, constants, consumers, producers, prune, replace_nodes
from pocketlens_quantize.storage import MIN_VALUES

_HEADS, _HEADS_TURNED = (0, 2, 1, 3), (0, 2, 3, 1)  # (n, l, heads, d) as (n, heads, l, d) and as (n, heads, d, l)
_MOVES = ("Mul", "Reshape", "Transpose")  # what lies between a projection and a head's product


@dataclass(frozen=True, slots=True)
class _Factor:
    """One factor of a head's product: the projection (n, l, width) it is cut from, into how many heads, times what."""

    projection: str
    heads: int
    scale: float


@dataclass(frozen=True, slots=True)
class _Attention:
    """One attention: query, key and value, an additive mask or "", and the value (n, l, width) it ends in."""

    query: _Factor
    key: _Factor
    value: _Factor
    mask: str
    result: str


def fuse_attention(model: onnx.ModelProto) -> int:
    """Replace written-out attention over three projections (n, l, width) by MultiHeadAttention; return how many.

    Changes `model`. Attention of another form (a packed projection, sequence first) is left as it is.
    """
    shapes = _shapes(model)
    found = [attention for node in model.graph.node if (attention := _match(model, node, shapes)) is not None]
    if not found:
        return 0
    by_result = {attention.result: attention for attention in found}
    makers = producers(model)
    nodes = []
    for node in model.graph.node:
        attention = by_result.get(node.output[0])
        nodes.append(node if attention is None else _fused(model, makers, attention))
    replace_nodes(model, nodes)
    _use_contributed(model)
    prune(model)
    return len(found)


def fuse_products(model: onnx.ModelProto) -> int:
    """Replace static int8 products and the sums with their biases by MatMulIntegerToFloat; return how many.

    onnxruntime makes the same of the product when it opens the file, but leaves the bias outside. Changes `model`.
    """
    makers, known, readers = producers(model), constants(model), consumers(model)
    outputs = {value.name for value in model.graph.output}
    replaced: dict[str, onnx.NodeProto] = {}  # by the name of the node whose place it takes
    for node in model.graph.node:
        factors = [makers.get(name) for name in node.input] if node.op_type == "MatMul" else []
        if len(factors) != 2 or any(factor is None or factor.op_type != "DequantizeLinear" for factor in factors):
            continue
        (value, scale, zero), (weight, weight_scale, weight_zero) = (factor.input for factor in factors if factor)
        if weight not in known:
            continue
        last, bias, after = node, "", readers.get(node.output[0], [])
        if len(after) == 1 and after[0].op_type == "Add" and node.output[0] not in outputs:
            other = next(name for name in after[0].input if name != node.output[0])
            if other in known and len(known[other].dims) == 1:
                last, bias = after[0], other
        inputs = [value, weight, scale, weight_scale, zero, weight_zero, bias]
        replaced[last.output[0]] = helper.make_node(
            "MatMulIntegerToFloat", inputs, last.output, name=node.name, domain="com.microsoft"
        )
    if replaced:
        replace_nodes(model, [replaced.get(node.output[0], node) for node in model.graph.node])
        _use_contributed(model)
        prune(model)
    return len(replaced)


def _use_contributed(model: onnx.ModelProto) -> None:
    if all(entry.domain != "com.microsoft" for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the known shapes of values, 0 for a length that depends on the input."""
    small = [
        tensor for tensor in model.graph.initializer if np.prod(tensor.dims) < MIN_VALUES
    ]  # weights give no shapes
    graph = helper.make_graph(model.graph.node, "shapes", model.graph.input, model.graph.output, small)
    light = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    known = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(light).graph.value_info
        if value.type.tensor_type.HasField("shape")
    }
    return known | {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


def _match(model: onnx.ModelProto, softmax: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> _Attention | None:
    if softmax.op_type != "Softmax" or _attribute(softmax, "axis", -1) not in (-1, 3):
        return None
    makers, readers = producers(model), consumers(model)
    scores, mask = makers[softmax.input[0]], ""
    if scores.op_type == "Add" and scores.input[0] in makers:
        scores, mask = makers[scores.input[0]], scores.input[1]
    after = readers.get(softmax.output[0], [])
    if scores.op_type != "MatMul" or len(after) != 1 or after[0].op_type != "MatMul":
        return None
    result = _merged_heads(readers, after[0].output[0])
    places = ((scores.input[0], _HEADS), (scores.input[1], _HEADS_TURNED), (after[0].input[1], _HEADS))
    query, key, value = (_factor(model, makers, name, order) for name, order in places)
    shape = shapes.get(mask, [0] * 4)
    if len(shape) != 4 or shape[2] == 1:
        return None  # the kernel spreads a mask over texts and heads, not over rows
    if result is None or query is None or key is None or value is None:
        return None
    different = len({factor.projection for factor in (query, key, value)}) == 3  # a packed one is cut by other means
    alike = query.heads == key.heads == value.heads and value.scale == 1
    return _Attention(query, key, value, mask, result) if different and alike else None


def _merged_heads(readers: dict[str, list[onnx.NodeProto]], name: str) -> str | None:
    """Return the value (n, l, width) that the heads' results (n, heads, l, d) are merged into."""
    for op_type in ("Transpose", "Reshape"):
        after = readers.get(name, [])
        if len(after) != 1 or after[0].op_type != op_type:
            return None
        if op_type == "Transpose" and tuple(_attribute(after[0], "perm", ())) != _HEADS:
            return None
        name = after[0].output[0]
    return name


def _factor(
    model: onnx.ModelProto, makers: dict[str, onnx.NodeProto], name: str, wanted: tuple[int, ...]
) -> _Factor | None:
    """Walk back from a factor of a head's product to the projection; None when something else lies between.

    `wanted` is the order that the axes (n, l, heads, d) must have arrived in.
    """
    known, heads, scale, order = constants(model), None, 1.0, (0, 1, 2, 3)
    while name in makers and makers[name].op_type in _MOVES:
        node = makers[name]
        if node.op_type == "Reshape":
            heads = _split_heads(known, makers, node.input[1]) or heads
        if node.op_type == "Mul":
            if node.input[1] not in known or numpy_helper.to_array(known[node.input[1]]).size != 1:
                return None
            scale *= float(numpy_helper.to_array(known[node.input[1]]).item())
        if node.op_type == "Transpose":
            moved = tuple(_attribute(node, "perm", ()))
            moved = (0, 1, 3, 2) if moved == (0, 2, 1) else moved  # of (n * heads, l, d)
            if len(moved) != 4:
                return None
            order = tuple(moved[axis] for axis in order)
        name = node.input[0]
    if heads is None or order != wanted or name not in makers or makers[name].op_type not in ("Add", "MatMul"):
        return None
    return _Factor(name, heads, scale)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(found) for found in node.attribute if found.name == name), default)


def _split_heads(known: dict[str, onnx.TensorProto], makers: dict[str, onnx.NodeProto], shape: str) -> int | None:
    """Return the number of heads when a Reshape's shape is (n, l, heads, d) with both last known, else None."""
    maker = makers.get(shape)
    if maker is None or maker.op_type != "Concat" or len(maker.input) != 4:
        return None
    heads, width = (known.get(part) for part in maker.input[2:])
    return None if heads is None or width is None else int(numpy_helper.to_array(heads).item())


def _fused(model: onnx.ModelProto, makers: dict[str, onnx.NodeProto], attention: _Attention) -> onnx.NodeProto:
    query, key, value = attention.query, attention.key, attention.value
    inputs, bias = [query.projection, key.projection, value.projection], ""
    known, adds = constants(model), [makers[name] for name in inputs]
    if all(node.op_type == "Add" and node.input[1] in known for node in adds):  # it adds them as it reads
        inputs, bias = [node.input[0] for node in adds], f"{attention.result}.bias"
        add_constant(model, bias, np.concatenate([numpy_helper.to_array(known[node.input[1]]) for node in adds]))
    return helper.make_node(
        "MultiHeadAttention",
        [*inputs, bias, "", attention.mask],
        [attention.result],
        name=f"{attention.result}.attention",
        domain="com.microsoft",
        num_heads=query.heads,
        scale=query.scale * key.scale,
    )
