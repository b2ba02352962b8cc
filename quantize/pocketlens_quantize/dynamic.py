"""Dynamic int8: every product finds the range of its input when it runs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from pocketlens_quantize.graph import copy_of, quiet


def quantize_dynamic_int8(model: onnx.ModelProto, nodes: Sequence[str], *, reduce_range: bool) -> onnx.ModelProto:
    """Return the graph with the named MatMuls in int8, a scale per output channel.

    The range is that of the whole batch: an embedding depends on what else is in its batch and on padding. Convolutions
    are never touched: ConvInteger is slow on CPUs or cannot run at all (onnxruntime issues 12854, 15888).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="pocketlens-dynamic-") as folder, quiet():
        out = Path(folder) / "int8.onnx"
        quantize_dynamic(
            copy_of(model),
            out,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=[*nodes],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(str(out))
