"""An ONNX graph as a differentiable torch function.

Constants are folded once, products fused with their offsets, and values dropped after their last reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from pocketlens.errors import FormatError
from pocketlens_export.fit.operators import HOST_INPUTS, Function, function_of

_HOST_VALUES = 16  # integer constants up to this size are shapes, axes and limits, which are read on the host


@dataclass(frozen=True, slots=True)
class _Step:
    """One operator: reads the named values, writes others, after which `dead` are read no more."""

    function: Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    host: frozenset[int]
    dead: tuple[str, ...]


class Interpreter:
    """Runs a graph in torch, float32. Gradients flow to whatever input asks for them; the weights ask for none.

    Args:
        model: a graph without sub-graphs and functions.
        device: where its values live.

    Raises:
        FormatError: an operator is unknown here; the message names it.
    """

    def __init__(self, model: onnx.ModelProto, *, device: torch.device) -> None:
        self._device = device
        self._several = device.type != "cpu"
        self._output = model.graph.output[0].name
        self._constants = {tensor.name: _tensor(tensor) for tensor in model.graph.initializer}
        nodes = self._fold([node for node in model.graph.node if node.op_type != "Constant" or self._keep(node)])
        nodes = self._fuse_offsets(nodes)
        self._steps = self._schedule(nodes)
        used = {name for step in self._steps for name in step.inputs} | {self._output}
        self._constants = {name: self._place(value) for name, value in self._constants.items() if name in used}

    def run(self, feeds: Mapping[str, Tensor]) -> Tensor:
        """Return the graph's first output."""
        values: dict[str, Any] = {**self._constants, **feeds, "": None}
        for step in self._steps:
            inputs = [values[name] for name in step.inputs]
            if self._several:
                inputs = self._gathered(inputs, step.host)
            found = step.function(*inputs)
            if len(step.outputs) == 1:
                values[step.outputs[0]] = found
            else:
                values.update(zip(step.outputs, found, strict=False))
            for name in step.dead:
                del values[name]
        result: Tensor = values[self._output]
        return result

    def _keep(self, node: onnx.NodeProto) -> bool:
        """Take a Constant node's value; none is left to run."""
        (attribute,) = node.attribute
        value = helper.get_attribute_value(attribute)
        is_tensor = isinstance(value, onnx.TensorProto)
        self._constants[node.output[0]] = _tensor(value) if is_tensor else torch.tensor(value)
        return False

    def _fold(self, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Run whatever depends on constants alone, and return the other nodes."""
        left = []
        for node in nodes:
            if node.input and all(name == "" or name in self._constants for name in node.input):
                function = function_of(node.op_type, _attributes(node))
                found = function(*(self._constants.get(name) for name in node.input))
                outputs = [found] if len(node.output) == 1 else found
                self._constants.update(zip(node.output, outputs, strict=False))
            else:
                left.append(node)
        return left

    def _fuse_offsets(self, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Make one node of a MatMul by a constant matrix and the Add of a constant row that alone reads it."""
        readers = Counter(name for node in nodes for name in node.input) + Counter([self._output])
        products = {
            node.output[0]: node
            for node in nodes
            if node.op_type == "MatMul" and readers[node.output[0]] == 1 and self._rank(node.input[1]) == 2
        }
        fused: dict[str, onnx.NodeProto] = {}
        for node in nodes:
            for value, offset in ((0, 1), (1, 0)) if node.op_type == "Add" else ():
                product = products.get(node.input[value])
                if product is not None and self._rank(node.input[offset]) == 1:
                    names = [product.input[0], f"{product.input[1]}.turned", node.input[offset]]
                    self._constants[names[1]] = self._constants[product.input[1]].T.contiguous()
                    fused[product.output[0]] = fused[node.output[0]] = helper.make_node(_LINEAR, names, node.output)
                    break
        return [fused.get(node.output[0], node) for node in nodes if node.output[0] not in fused or _adds(node)]

    def _rank(self, name: str) -> int | None:
        value = self._constants.get(name)
        return None if value is None else value.ndim

    def _schedule(self, nodes: Sequence[onnx.NodeProto]) -> list[_Step]:
        last = {name: position for position, node in enumerate(nodes) for name in node.input if name}
        last |= {name: position for position, node in enumerate(nodes) for name in node.output if name not in last}
        steps = []
        for position, node in enumerate(nodes):
            names = dict.fromkeys([*node.input, *node.output])
            dead = tuple(n for n in names if n and last[n] == position and n not in self._constants)
            linear = node.op_type == _LINEAR
            function = functional.linear if linear else function_of(node.op_type, _attributes(node))
            host = frozenset(HOST_INPUTS.get(node.op_type, ()))
            outputs = tuple(node.output)
            steps.append(_Step(function, tuple(node.input), outputs, host, tuple(d for d in dead if d != self._output)))
        return steps

    def _place(self, value: Tensor) -> Tensor:
        if value.is_floating_point() and value.dtype != torch.float32:
            raise FormatError(f"the graph computes in {value.dtype}, expected float32")
        return value if value.dtype == torch.int64 and value.numel() <= _HOST_VALUES else value.to(self._device)

    def _gathered(self, inputs: list[Any], host: frozenset[int]) -> list[Any]:
        """Bring a node's inputs to the device where one of them is there, but for those that are read on the host."""
        values = [value for i, value in enumerate(inputs) if i not in host and value is not None]
        if all(value.device.type == "cpu" for value in values):
            return inputs
        return [v if v is None or i in host else v.to(self._device) for i, v in enumerate(inputs)]


_LINEAR = "Linear"  # no operator of ONNX: a product by a turned constant matrix, plus a constant row


def _adds(node: onnx.NodeProto) -> bool:
    return node.op_type == "Add"


def _tensor(tensor: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(np.array(numpy_helper.to_array(tensor)))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        found[attribute.name] = _tensor(value) if isinstance(value, onnx.TensorProto) else value
    return found
