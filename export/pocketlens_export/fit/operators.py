"""ONNX operators in torch: each takes a node's attributes and returns the function over its inputs.

Semantics are those of the ONNX operator specification at opsets 18 to 20, which the exporters write. Inputs that say
where and how much (shapes, axes, limits) are read on the host; all others may carry gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional

from pocketlens.errors import FormatError

Attributes: TypeAlias = Mapping[str, Any]
Function: TypeAlias = Callable[..., Any]

DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.BOOL: torch.bool,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
}

HOST_INPUTS = {
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Unsqueeze": (1,), "Squeeze": (1,), "CumSum": (1,),
    "ReduceSum": (1,), "ReduceL2": (1,), "ReduceMean": (1,), "Split": (1,), "ConstantOfShape": (0,),
    "Range": (0, 1, 2), "Shape": (0,),
}  # fmt: skip
"""Inputs of an operator that stay where they are when its values live on an accelerator."""


def function_of(op_type: str, attributes: Attributes) -> Function:
    """Return what a node computes.

    Raises:
        FormatError: the operator is unknown here.
    """
    maker = _MAKERS.get(op_type)
    if maker is None:
        raise FormatError(f"the graph holds the operator {op_type}, which cannot be trained through")
    return maker(attributes)


def _plain(function: Function) -> Callable[[Attributes], Function]:
    return lambda attributes: function


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _fold(function: Function) -> Function:
    return lambda *values: functools.reduce(function, values)


def _reshape(attributes: Attributes) -> Function:
    keeps_zero = not attributes.get("allowzero", 0)

    def apply(x: Tensor, shape: Tensor) -> Tensor:
        sizes = shape.tolist()
        if keeps_zero and 0 in sizes:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return apply


def _transpose(attributes: Attributes) -> Function:
    perm = attributes.get("perm")
    return lambda x: x.permute(perm if perm is not None else tuple(reversed(range(x.ndim))))


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    first, last = starts.tolist(), ends.tolist()
    where = range(len(first)) if axes is None else axes.tolist()
    strides = [1] * len(first) if steps is None else steps.tolist()
    if min(strides, default=1) < 1:
        raise FormatError(f"the graph holds a Slice with step {min(strides)}, expected steps from 1 on")
    parts = [slice(None)] * x.ndim
    for axis, start, end, step in zip(where, first, last, strides, strict=True):
        parts[axis] = slice(*slice(start, end, step).indices(x.shape[axis]))  # an end of 2^63 - 1 means the last
    return x[tuple(parts)]


def _shape(attributes: Attributes) -> Function:
    start, end = attributes.get("start", 0), attributes.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def _cast(attributes: Attributes) -> Function:
    dtype = DTYPES.get(attributes["to"])
    if dtype is None:
        raise FormatError(f"the graph holds a Cast to ONNX type {attributes['to']}, which cannot be trained through")
    return lambda x: x.to(dtype)


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    sizes = shape.tolist()
    sizes = [1] * (x.ndim - len(sizes)) + sizes
    own = [1] * (len(sizes) - x.ndim) + list(x.shape)
    return x.expand([had if wanted == 1 else wanted for had, wanted in zip(own, sizes, strict=True)])


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in axes.flatten().tolist()):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.flatten().tolist()))


def _gather(attributes: Attributes) -> Function:
    axis = attributes.get("axis", 0)

    def apply(x: Tensor, indices: Tensor) -> Tensor:
        along = axis % x.ndim
        indices = torch.where(indices < 0, indices + x.shape[along], indices)
        if along == 0 and x.ndim == 2:
            return functional.embedding(indices, x)
        found = x.index_select(along, indices.flatten())
        return found.reshape(*x.shape[:along], *indices.shape, *x.shape[along + 1 :])

    return apply


def _gather_elements(attributes: Attributes) -> Function:
    axis = attributes.get("axis", 0)
    return lambda x, indices: x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _gather_nd(attributes: Attributes) -> Function:
    if attributes.get("batch_dims", 0):
        raise FormatError("the graph holds a GatherND with batch_dims, which cannot be trained through")
    return lambda x, indices: x[tuple(indices.unbind(-1))]


def _clip(x: Tensor, least: Tensor | None = None, most: Tensor | None = None) -> Tensor:
    return x.clamp(least, most)


def _cumulate(attributes: Attributes) -> Function:
    if attributes.get("reverse", 0) or attributes.get("exclusive", 0):
        raise FormatError("the graph holds a reversed or exclusive CumSum, which cannot be trained through")
    return lambda x, axis: x.cumsum(int(axis))


def _reduce(function: Function) -> Callable[[Attributes], Function]:
    def make(attributes: Attributes) -> Function:
        keep, noop = bool(attributes.get("keepdims", 1)), attributes.get("noop_with_empty_axes", 0)

        def apply(x: Tensor, axes: Tensor | None = None) -> Tensor:
            over = axes.flatten().tolist() if axes is not None else []
            if not over and noop:
                return x
            result: Tensor = function(x, tuple(over) or tuple(range(x.ndim)), keep)
            return result

        return apply

    return make


def _norm(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=keep)
    return norm


def _layer_norm(attributes: Attributes) -> Function:
    axis, epsilon = attributes.get("axis", -1), attributes.get("epsilon", 1e-5)
    return lambda x, scale, bias=None: functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


def _unit(attributes: Attributes) -> Function:
    axis, order = attributes.get("axis", -1), attributes.get("p", 2)
    return lambda x: x / torch.linalg.vector_norm(x, ord=order, dim=axis, keepdim=True)


def _gelu(attributes: Attributes) -> Function:
    approximate = attributes.get("approximate", "none")
    return lambda x: functional.gelu(x, approximate=approximate)


def _gemm(attributes: Attributes) -> Function:
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    turn_a, turn_b = attributes.get("transA", 0), attributes.get("transB", 0)

    def apply(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = (a.T if turn_a else a), (b.T if turn_b else b)
        return alpha * (a @ b) if c is None else torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return apply


def _arg_max(attributes: Attributes) -> Function:
    axis, keep = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
    if attributes.get("select_last_index", 0):
        raise FormatError("the graph holds an ArgMax of last indices, which cannot be trained through")
    return lambda x: x.argmax(axis, keepdim=keep)


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _split(attributes: Attributes) -> Function:
    axis, count = attributes.get("axis", 0), attributes.get("num_outputs", 1)

    def apply(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        each = -(-x.shape[axis] // count) if sizes is None else sizes.tolist()
        return torch.split(x, each, axis)

    return apply


def _constant_of_shape(attributes: Attributes) -> Function:
    value = attributes.get("value", torch.zeros(1))
    return lambda shape: value.expand(shape.tolist())


def _concat(attributes: Attributes) -> Function:
    axis = attributes["axis"]
    return lambda *values: torch.cat(values, axis)


def _softmax(attributes: Attributes) -> Function:
    axis = attributes.get("axis", -1)
    return lambda x: x.softmax(axis)


_MAKERS: dict[str, Callable[[Attributes], Function]] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "ArgMax": _arg_max,
    "Cast": _cast,
    "Clip": _plain(_clip),
    "Concat": _concat,
    "Constant": lambda attributes: lambda: attributes["value"],
    "ConstantOfShape": _constant_of_shape,
    "CumSum": _cumulate,
    "Div": _plain(_divide),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": _plain(_expand),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "Identity": _plain(lambda x: x),
    "LayerNormalization": _layer_norm,
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "LpNormalization": _unit,
    "MatMul": _plain(torch.matmul),
    "Max": _plain(_fold(torch.maximum)),
    "Min": _plain(_fold(torch.minimum)),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "Pow": _plain(torch.pow),
    "Range": _plain(_range),
    "ReduceL2": _reduce(_norm),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _plain(_slice),
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _plain(_squeeze),
    "Sub": _plain(torch.sub),
    "Sum": _plain(_fold(torch.add)),
    "Tanh": _plain(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _plain(_unsqueeze),
    "Where": _plain(torch.where),
}
