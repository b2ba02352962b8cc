from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketlens_bench.ceiling import Ceiling, distance, macs, measure_ceiling, weight_bytes
from pocketlens_quantize.session import Feed

CEILING = Ceiling(float32=100.0, int8=400.0, memory=10.0)
CONVOLUTION = 8 * 4 * 4 * 2 * 3 * 3  # 8 channels of 4 x 4 results, each of 2 channels a group and a 3 x 3 kernel
FLAT = 8 * 4 * 4
PRODUCT, GEMM = FLAT * 5, 5 * 7


def _graph(*, half: bool = False) -> onnx.ModelProto:
    """A grouped convolution, a product of each picture, and a Gemm with its weight transposed."""
    weight = np.ones((FLAT, 5), np.float16 if half else np.float32)
    known = {
        "k": np.ones((8, 2, 3, 3), np.float32),
        "flat": np.array([0, FLAT]),
        "w.float16" if half else "w": weight,
        "g": np.ones((7, 5), np.float32),
        "table": np.ones((2_000, 7), np.float32),
        "row": np.array([3]),
    }
    nodes = [helper.make_node("Cast", ["w.float16"], ["w"], to=TensorProto.FLOAT)] if half else []
    nodes += [
        helper.make_node("Conv", ["x", "k"], ["c"], group=2, pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Reshape", ["c", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Gemm", ["m", "g"], ["n"], transB=1),
        helper.make_node("Gather", ["table", "row"], ["t"]),
        helper.make_node("Add", ["n", "t"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "worked by hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in known.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _feed(count: int = 1) -> Feed:
    return {"x": np.ones((count, 4, 8, 8), np.float32)}


def test_multiplications_of_a_graph_worked_out_by_hand() -> None:
    assert macs(_graph(), _feed()) == CONVOLUTION + PRODUCT + GEMM == 2304 + 640 + 35
    assert macs(_graph(half=True), _feed()) == 2979


def test_multiplications_grow_with_the_batch() -> None:
    graph = _graph()
    graph.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([-1, FLAT]), "flat"))
    assert macs(graph, _feed(3)) == 3 * macs(graph, _feed())


def test_weights_are_counted_as_they_lie_in_memory_without_the_table_of_tokens() -> None:
    weights = 4 * (8 * 2 * 3 * 3 + FLAT * 5 + 7 * 5)
    others = 8 * (2 + 1)  # a shape and a row number
    assert weight_bytes(_graph()) == weight_bytes(_graph(half=True)) == weights + others


def test_the_distance_is_of_the_rounds_that_were_timed() -> None:
    graph = _graph()
    float32 = distance(graph, counted=graph, feeds=[_feed()], elapsed_ms=[0.001, 0.002, 0.004], int8=False)
    int8 = distance(graph, counted=graph, feeds=[_feed()], elapsed_ms=[0.002], int8=True)
    row, small = CEILING.with_shares([float32, int8])
    assert row["GOP/s"] == pytest.approx(2 * 2979 / 1e6 / 0.002, rel=1e-3)
    assert row["share"] == pytest.approx(2 * 2979 / 1e6 / 0.002 / 100, rel=1e-2)
    assert row["share of memory"] == pytest.approx(weight_bytes(graph) / 1e6 / 0.002 / 10, rel=1e-2)
    assert (small["ceiling"], row["ceiling"]) == ("int8", "float32")
    assert small["share"] == pytest.approx(float(row["share"] or 0) / 4, rel=1e-2)


def test_the_ceiling_is_the_highest_that_was_reached() -> None:
    assert CEILING.or_more(Ceiling(90.0, 500.0, 11.0)) == Ceiling(100.0, 500.0, 11.0)


def test_a_machine_multiplies_and_reads() -> None:
    found = measure_ceiling(size=64, rounds=3)
    assert min(found.float32, found.int8, found.memory) > 0
    assert [row["what"] for row in found.rows()] == [
        "float32 product, GFLOP/s",
        "uint8 x int8 product, GOP/s",
        "reading memory, GB/s",
    ]
