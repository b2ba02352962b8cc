"""From a torch module to one self-contained ONNX file with the names, types and dynamic sizes of the contract."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from pocketlens.errors import Refused
from pocketlens_export.towers import slow_attention

OPSET = 20
DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft"})
EMBEDDING, FEATURES = "embedding", "features"


def write_image_graph(tower: nn.Module, path: Path, *, side: int, features: bool = False) -> None:
    """Write an image tower: pixels uint8 (n, side, side, 3) -> embedding float32 (n, dim).

    Args:
        tower: the module.
        path: file to write.
        side: height and width of its input, in pixels.
        features: whether it gives features, float32 (n, channels, height, width), as a second output.

    Raises:
        Refused: the graph is not self-contained, or uses operators outside the allowed domains.
    """
    pixels = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    outputs = (EMBEDDING, FEATURES) if features else (EMBEDDING,)
    _write(tower, path, {"pixels": pixels}, {"pixels": {0: torch.export.Dim("n")}}, outputs)


def write_text_graph(tower: nn.Module, path: Path, *, length: int, dynamic_length: bool, token_dim: int) -> None:
    """Write a text tower: input_ids int64 (n, l), pseudo_tokens float32 (n, p, d) -> embedding float32 (n, dim).

    Args:
        tower: the module.
        path: file to write.
        length: the tower's context length.
        dynamic_length: whether l may be anything up to `length`; otherwise it is `length`.
        token_dim: d, the width of a token embedding.

    Raises:
        Refused: the graph is not self-contained, or uses operators outside the allowed domains.
    """
    traced = min(length, 9) if dynamic_length else length
    ids = torch.ones((2, traced), dtype=torch.int64)
    ids[:, 1:3] = -1
    n, p = torch.export.Dim("n"), torch.export.Dim("p")
    lengths = {1: torch.export.Dim("l", max=length)} if dynamic_length else {}
    inputs = {"input_ids": ids, "pseudo_tokens": torch.zeros((2, 2, token_dim))}
    _write(tower, path, inputs, {"input_ids": {0: n, **lengths}, "pseudo_tokens": {0: n, 1: p}}, (EMBEDDING,))


def _write(
    tower: nn.Module,
    path: Path,
    inputs: Mapping[str, torch.Tensor],
    dynamic: Mapping[str, Any],
    outputs: Sequence[str],
) -> None:
    try:
        _trace(tower, path, inputs, dynamic, outputs)
    except Exception as error:  # torch.export and the exporter raise a dozen kinds
        reason = " ".join(str(error).split())[:300]
        raise Refused(f"the tower cannot be traced into {path.name}: {type(error).__name__}: {reason}") from error
    model = onnx.load(str(path), load_external_data=False)
    _rename(model, outputs)
    _strip(model)
    check_graph(model, path)
    onnx.save_model(model, str(path))


def _trace(
    tower: nn.Module,
    path: Path,
    inputs: Mapping[str, torch.Tensor],
    dynamic: Mapping[str, Any],
    outputs: Sequence[str],
) -> None:
    with slow_attention(), torch.no_grad(), _silent():
        torch.onnx.export(
            tower,
            (),
            str(path),
            kwargs=dict(inputs),
            input_names=list(inputs),
            # Not "embedding": the token embedding's operator gets a value of that name, and onnxruntime refuses
            # duplicates.
            output_names=[_while_tracing(name) for name in outputs],
            dynamic_shapes=dict(dynamic),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
        )


def check_graph(model: onnx.ModelProto, path: Path) -> None:
    """Raise unless a graph is valid, self-contained and made of allowed operators alone.

    Raises:
        Refused: it is not; the message says what was found.
    """
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise Refused(f"{path.name}: tensor {tensor.name!r} lies outside the file, expected a self-contained graph")
    nodes = [*_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    domains = {node.domain for node in nodes} | {entry.domain for entry in model.opset_import}
    if model.functions or not domains <= DOMAINS | {"ai.onnx"}:
        found = sorted(domains - DOMAINS) + sorted(function.name for function in model.functions)
        raise Refused(f"{path.name}: operators of {', '.join(found)}, expected only {sorted(DOMAINS)}")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())[:300]
        raise Refused(f"{path.name} is not a valid ONNX graph: {reason}") from error


def _while_tracing(output: str) -> str:
    return f"traced_{output}"


def _rename(model: onnx.ModelProto, outputs: Sequence[str]) -> None:
    """Give the outputs their names, after whatever already has one was renamed."""
    renamed = {name: f"{name}_rows" for name in outputs} | {_while_tracing(name): name for name in outputs}
    graph = model.graph
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in [*graph.initializer, *graph.value_info, *graph.output]:
        value.name = renamed.get(value.name, value.name)


def _strip(model: onnx.ModelProto) -> None:
    """Drop what says where and how the graph was traced (stack traces with the paths of this machine)."""
    del model.metadata_props[:]
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for item in [*_nodes(model.graph), *model.graph.input, *model.graph.output, *model.graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]


def _nodes(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterable[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in _nodes(graph):
        for attribute in node.attribute:
            yield from (
                attribute.t,
                attribute.sparse_tensor.values,
                attribute.sparse_tensor.indices,
                *attribute.tensors,
            )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter's progress off standard output and its remarks on its own internals off standard error."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
