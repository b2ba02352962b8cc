"""A trained network as an ONNX file: weights in int8 with a scale for every output, which onnxruntime multiplies by.

onnxruntime fuses a DequantizeLinear with its MatMul, so that the weights stay in int8 in memory too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pocketlens._types import Float32s
from pocketlens_export.fit.networks import Network

OPSET, IR_VERSION = 20, 10
PRECISION = "8-bit weights"


def write_network(network: Network, path: Path) -> None:
    """Write embedding float32 (n, dim), of unit length, to pseudo_tokens float32 (n, tokens, token_dim)."""
    graph = NetworkGraph()
    value = "embedding"
    if network.shift is not None:
        shift = graph.constant("shift", network.shift.cpu().numpy())
        moved = graph.add("Sub", "moved", value, shift)
        value = graph.add("LpNormalization", "unit", moved, axis=-1, p=2)
    for number, layer in enumerate(network.linears):
        weight: Float32s = layer.weight.detach().cpu().numpy().T  # (inputs, outputs)
        bias = graph.constant(f"layer{number}.bias", layer.bias.detach().cpu().numpy())
        product = graph.add("MatMul", f"layer{number}.product", value, graph.weight(f"layer{number}.weight", weight))
        value = graph.add("Add", f"layer{number}.sum", product, bias)
        if number < len(network.linears) - 1:
            value = graph.add("Gelu" if network.activation == "gelu" else "Relu", f"layer{number}.out", value)
    shape = graph.constant("shape", np.array([-1, network.tokens, network.token_dim], dtype=np.int64))
    graph.add("Reshape", "pseudo_tokens", value, shape)
    graph.save(path, "embedding", [network.linears[0].in_features], [network.tokens, network.token_dim])


def run_network(path: Path, given: Float32s) -> Float32s:
    """Return what a written network makes of its one input, float32 (n, tokens, token_dim), by onnxruntime."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: Float32s = session.run(["pseudo_tokens"], {session.get_inputs()[0].name: given})[0]
    return found


class NetworkGraph:
    """A graph in the making, of a network that gives pseudo-tokens; a method that adds returns its value's name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Hold a constant as it is."""
        self._tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, name: str, value: Float32s) -> str:
        """Hold a weight (inputs, outputs) as int8 with a scale per output; its error is at most half a step."""
        largest = np.abs(value).max(axis=0)
        scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        codes = self.constant(f"{name}.int8", np.rint(value / scales).astype(np.int8))
        return self.add("DequantizeLinear", name, codes, self.constant(f"{name}.scale", scales), axis=1)

    def add(self, op_type: str, out: str, *inputs: str, **attributes: Any) -> str:
        """Add a node whose one output is `out`."""
        self._nodes.append(helper.make_node(op_type, inputs, [out], name=f"{out}.{op_type}", **attributes))
        return out

    def save(self, path: Path, name: str, sizes: Sequence[int], tokens: Sequence[int]) -> None:
        """Write the graph of input `name`, float32 (n, *sizes), to pseudo_tokens, float32 (n, *tokens)."""
        given = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *sizes])
        made = helper.make_tensor_value_info("pseudo_tokens", TensorProto.FLOAT, ["n", *tokens])
        graph = helper.make_graph(self._nodes, "inversion", [given], [made], self._tensors)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="pocketlens")
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
