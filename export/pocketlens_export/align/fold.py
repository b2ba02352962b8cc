"""A map as the last nodes of a tower's graph, whatever the precision of the nodes before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pocketlens.errors import FormatError
from pocketlens_export.align.maps import Map

OUTPUT = "embedding"


def load_tower(path: Path) -> onnx.ModelProto:
    """Return a tower's graph.

    Raises:
        FormatError: it is no ONNX file, such as one in onnxruntime's own format.
    """
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's own
        hint = "; a .ort file cannot be changed, give the folder with .onnx files" if path.suffix == ".ort" else ""
        raise FormatError(f"{path} is no ONNX graph that a map can be added to: {error}{hint}") from error


def fold_map(model: onnx.ModelProto, map: Map) -> None:
    """Let a tower's output `embedding`, float32 (n, light dim), be the mapped one, float32 (n, heavy dim), in place.

    Other outputs and all nodes before stay as they are. The map's weights become float32 initialisers; its operators
    are MatMul, Add, Relu and LpNormalization, which every opset from 13 on has.
    """
    graph = model.graph
    taken = _names(graph)
    light = _free("light_embedding", taken)
    _rename(graph, OUTPUT, light)
    fold = _Fold(graph, taken | {light})
    value = fold.add("Add", fold.add("MatMul", light, fold.constant("weight", map.weight)),
                     fold.constant("bias", map.bias))  # fmt: skip
    if map.hidden is not None:
        product = fold.add("MatMul", light, fold.constant("inner.weight", map.hidden.inner))
        active = fold.add("Relu", fold.add("Add", product, fold.constant("inner.bias", map.hidden.inner_bias)))
        value = fold.add("Add", value, fold.add("MatMul", active, fold.constant("outer.weight", map.hidden.outer)))
    graph.node.append(helper.make_node("LpNormalization", [value], [OUTPUT], name=fold.free(OUTPUT), axis=-1, p=2))
    for output in graph.output:
        if output.name == light:
            output.name = OUTPUT
            output.type.tensor_type.shape.dim[1].dim_value = map.weight.shape[1]


class _Fold:
    """Adds nodes to the end of a graph; every method returns the name of its value."""

    def __init__(self, graph: onnx.GraphProto, taken: set[str]) -> None:
        self._graph = graph
        self._taken = taken

    def constant(self, name: str, value: NDArray[np.float64]) -> str:
        name = self.free(f"map.{name}")
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    def add(self, op_type: str, *inputs: str) -> str:
        name = self.free(f"map.{op_type}")
        self._graph.node.append(helper.make_node(op_type, inputs, [name], name=name))
        return name

    def free(self, name: str) -> str:
        name = _free(name, self._taken)
        self._taken.add(name)
        return name


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in _nodes(graph):
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in [*graph.value_info, *graph.output]:
        value.name = new if value.name == old else value.name


def _names(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in _nodes(graph) for name in (node.name, *node.input, *node.output)}
    return names | {value.name for value in [*graph.initializer, *graph.input, *graph.output, *graph.value_info]}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _nodes(inner)


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    return free
