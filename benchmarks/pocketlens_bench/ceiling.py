"""What one thread of this machine can do, and how much of it a tower takes: products per second, memory read.

A product that runs thousands of times from the same small weights ends at the multipliers; a short text, which reads
every weight once for a few tokens, ends at the memory. Both bounds are measured here, by onnxruntime and NumPy.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pocketlens_bench.measure import Row, alternate, significant
from pocketlens_quantize.graph import PRODUCTS, WEIGHTED, constants, consumers, expose
from pocketlens_quantize.session import Feed, open_session

_MEASURED_MB = 256  # eight times this machine's last cache
_TABLE_ROWS = 1_000  # a Gather of more rows reads a few of them


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that one thread reached, in 1e9 operations (two a multiplication) or bytes a second."""

    float32: float
    int8: float
    memory: float

    def or_more(self, other: Ceiling) -> Ceiling:
        """Return the higher of two measurements, each by itself: a shared machine only ever takes away."""
        higher = (max(self.float32, other.float32), max(self.int8, other.int8), max(self.memory, other.memory))
        return Ceiling(*higher)

    def with_shares(self, rows: Iterable[Row]) -> list[Row]:
        """Return rows of `distance` with the share of the ceiling that each reaches."""
        found = []
        for row in rows:
            limit = self.int8 if row["ceiling"] == "int8" else self.float32
            shares: Row = {"share": significant(float(row["GOP/s"] or 0) / limit, 3)}
            shares["share of memory"] = significant(float(row["weights read, GB/s"] or 0) / self.memory, 3)
            found.append(row | shares)
        return found

    def rows(self) -> list[Row]:
        """Return the three as a table."""
        found = (("float32 product, GFLOP/s", self.float32), ("uint8 x int8 product, GOP/s", self.int8))
        rows: list[Row] = [{"what": what, "measured": significant(value)} for what, value in found]
        return [*rows, {"what": "reading memory, GB/s", "measured": significant(self.memory)}]


def measure_ceiling(*, size: int = 1024, rounds: int = 20) -> Ceiling:
    """Return the best of the rounds, with matrices of size x size, float32 and int8 by turns."""
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(2, size, size)).astype(np.float32)
    codes = generator.integers(0, 255, (size, size)).astype(np.uint8)
    large = open_session(_float_product(right))
    small = open_session(_int8_product((right * 30).clip(-127, 127).astype(np.int8)))
    runs: dict[str, Callable[[], object]] = {
        "float32": lambda: large.run(None, {"a": left}),
        "int8": lambda: small.run(None, {"a": codes}),
    }
    best_ms = {name: min(times) for name, times in alternate(runs, rounds=rounds).items()}
    operations = 2 * size**3 / 1e6
    return Ceiling(operations / best_ms["float32"], operations / best_ms["int8"], _memory_read(rounds))


def macs(model: onnx.ModelProto, feed: Feed) -> int:
    """Return the multiplications of Conv, MatMul and Gemm for `feed`, with the shapes that it gives."""
    nodes = [node for node in model.graph.node if node.op_type in WEIGHTED]
    known = {name: tuple(tensor.dims) for name, tensor in constants(model).items()}
    known |= {name: value.shape for name, value in feed.items()}
    asked = sorted({name for node in nodes for name in (*node.input[:2], node.output[0])} - known.keys())
    if asked:
        values = open_session(expose(_without_outputs(model), asked)).run(asked, dict(feed))
        known |= {name: value.shape for name, value in zip(asked, values, strict=True)}
    return sum(_macs_of(node, known[node.input[0]], known[node.input[1]], known[node.output[0]]) for node in nodes)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of the weights that every run reads, as they lie in memory: not the rows of a token table.

    Weights that are cast to float32 when the file is opened count as float32.
    """
    readers, total = consumers(model), 0
    for name, tensor in constants(model).items():
        kinds = {node.op_type for node in readers.get(name, [])}
        if kinds == {"Gather"} and tensor.dims and tensor.dims[0] >= _TABLE_ROWS:
            continue
        total += math.prod(tensor.dims) * 4 if kinds == {"Cast"} else numpy_helper.to_array(tensor).nbytes
    return total


def distance(
    model: onnx.ModelProto,
    *,
    counted: onnx.ModelProto,
    feeds: Sequence[Feed],
    elapsed_ms: Sequence[float],
    int8: bool,
) -> Row:
    """Return the operations and the bytes of weights a second that a graph reaches.

    Args:
        model: the graph that ran.
        counted: the float32 graph, whose multiplications count.
        feeds: what went through in each round, from the first again when there are fewer.
        elapsed_ms: the time of each round.
        int8: whether its products are int8.
    """
    by_shape: dict[tuple[tuple[int, ...], ...], int] = {}
    counts: list[int] = []
    for feed in itertools.islice(itertools.cycle(feeds), len(elapsed_ms)):
        shape = tuple(value.shape for value in feed.values())
        if shape not in by_shape:
            by_shape[shape] = macs(counted, feed)
        counts.append(by_shape[shape])
    reached = float(np.median([2 * count / 1e6 / ms for count, ms in zip(counts, elapsed_ms, strict=True)]))
    read = weight_bytes(model)
    return {
        "million products": significant(float(np.median(counts)) / 1e6),
        "GOP/s": significant(reached),
        "ceiling": "int8" if int8 else "float32",
        "weights MB": significant(read / 1e6),
        "weights read, GB/s": significant(read / 1e6 / float(np.median(elapsed_ms))),
    }


def _macs_of(node: onnx.NodeProto, left: Sequence[int], right: Sequence[int], out: Sequence[int]) -> int:
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(right[1:])  # each result: the channels of a group times the kernel
    turned = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
    assert node.op_type in PRODUCTS
    return math.prod(out) * left[0 if turned else -1]


def _without_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without outputs, so that a value is not asked for twice."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.output[:]
    return copied


def _memory_read(rounds: int) -> float:
    array = np.ones(_MEASURED_MB * 250_000, np.float32)
    best = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        np.dot(array, array)
        best = min(best, time.perf_counter() - start)
    return array.nbytes / best / 1e9


def _float_product(right: np.ndarray) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    return _graph(node, {"b": right}, TensorProto.FLOAT)


def _int8_product(right: np.ndarray) -> onnx.ModelProto:
    scale = np.array(0.01, np.float32)
    known = {"b": right, "s": scale, "za": np.array(128, np.uint8), "zb": np.array(0, np.int8)}
    node = helper.make_node("MatMulIntegerToFloat", ["a", "b", "s", "s", "za", "zb"], ["c"], domain="com.microsoft")
    return _graph(node, known, TensorProto.UINT8)


def _graph(node: onnx.NodeProto, known: dict[str, np.ndarray], kind: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("a", kind, [None, known["b"].shape[0]])],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in known.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
