"""Channels that are zero for every picture, as pruning leaves them, cut out of the convolutions around them.

A model that was made smaller by setting channels to zero keeps their weights in its file and multiplies by them.
Cutting them out changes no value: only zeros are left out of sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pocketlens_quantize.graph import add_constant, constants, consumers, prune, take_constant

_CLAMPS = ("Relu", "Clip")


@dataclass(frozen=True, slots=True)
class _Chain:
    """A convolution, the depthwise convolutions behind it, and the convolution that alone reads what they give."""

    first: onnx.NodeProto
    depthwise: tuple[onnx.NodeProto, ...]
    last: onnx.NodeProto


def cut_silent_channels(model: onnx.ModelProto) -> int:
    """Cut the channels between convolutions that are zero for every input; return how many. Changes `model`.

    Looked at are convolutions whose values pass through clamps and depthwise convolutions alone, to one convolution.
    What the graph gives as an output keeps its channels.
    """
    known, readers = constants(model), consumers(model)
    outputs = {value.name for value in model.graph.output}
    cut = 0
    for node in list(model.graph.node):
        chain = _follow(node, known, readers, outputs)
        if chain is None:
            continue
        live = _live(chain, known)
        if not live.any():
            live[0] = True  # a convolution needs a channel
        if not live.all():
            _cut(model, chain, live)
            cut += int((~live).sum())
            known = constants(model)
    if cut:
        prune(model)
    return cut


def _follow(
    node: onnx.NodeProto,
    known: dict[str, onnx.TensorProto],
    readers: dict[str, list[onnx.NodeProto]],
    outputs: set[str],
) -> _Chain | None:
    if not _is_plain(node, known, readers) or _group(node) != 1:
        return None
    depthwise: list[onnx.NodeProto] = []
    value = node.output[0]
    while value not in outputs and len(readers.get(value, ())) == 1:
        after = readers[value][0]
        if after.op_type in _CLAMPS and _keeps_zero(after, known):
            value = after.output[0]
        elif not _is_plain(after, known, readers) or after.input[0] != value:
            return None
        elif _group(after) == 1:
            return _Chain(node, tuple(depthwise), after)
        elif list(known[after.input[1]].dims)[:2] == [_group(after), 1]:
            depthwise.append(after)
            value = after.output[0]
        else:
            return None
    return None


def _is_plain(
    node: onnx.NodeProto, known: dict[str, onnx.TensorProto], readers: dict[str, list[onnx.NodeProto]]
) -> bool:
    """Return whether a node is a convolution with constant weights that no other node reads."""
    weights = [name for name in node.input[1:] if name]
    return node.op_type == "Conv" and all(name in known and len(readers[name]) == 1 for name in weights)


def _group(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _keeps_zero(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> bool:
    bounds = [float(numpy_helper.to_array(known[name])) if name in known else np.nan for name in node.input[1:] if name]
    return node.op_type == "Relu" or (len(bounds) == 2 and bounds[0] <= 0 <= bounds[1])


def _live(chain: _Chain, known: dict[str, onnx.TensorProto]) -> NDArray[np.bool_]:
    """Return, for each channel between the convolutions, whether it can be other than zero."""
    weight = numpy_helper.to_array(known[chain.first.input[1]])
    live = np.asarray(weight.any(axis=(1, 2, 3)))
    for node in (chain.first, *chain.depthwise):
        if len(node.input) == 3:
            live |= numpy_helper.to_array(known[node.input[2]]) != 0
    return live


def _cut(model: onnx.ModelProto, chain: _Chain, live: NDArray[np.bool_]) -> None:
    for node in (chain.first, *chain.depthwise):
        for name in node.input[1:]:
            add_constant(model, name, take_constant(model, name)[live])
    for node in chain.depthwise:
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.CopyFrom(helper.make_attribute("group", int(live.sum())))
    name = chain.last.input[1]
    add_constant(model, name, take_constant(model, name)[:, live])
