"""One tower as torch, as onnxruntime's own quantizers make it in one call, and as a file: all behind one function.

What cannot be made or run stays in the comparison with the reason, so that a table always has the same rows.
"""

from __future__ import annotations

import dataclasses
import io
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx

from pocketlens._types import Float32s
from pocketlens.model import Model
from pocketlens_quantize.graph import quiet
from pocketlens_quantize.session import Feed, open_session

TowerName: TypeAlias = Literal["text", "image"]
Encode: TypeAlias = Callable[[Feed], Float32s]
_CALIBRATED = 128  # inputs that plain static quantization takes its ranges from


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to run a tower.

    Attributes:
        encode: from a feed to embeddings, float32 (n, dim); None when it could not be made or run.
        megabytes: of its file.
        remark: how it was made, or why it was not.
        graph: the ONNX graph, where there is one.
    """

    encode: Encode | None
    megabytes: float | None
    remark: str = ""
    graph: onnx.ModelProto | None = None


def attempt(make: Callable[[], Contender], feeds: Sequence[Feed]) -> Contender:
    """Return what `make` makes, once it has encoded `feeds`; or a contender that only says why it cannot run."""
    try:
        made = make()
        for feed in feeds:
            assert made.encode is not None
            made.encode(feed)
    except Exception as error:  # torch, onnx and onnxruntime raise a dozen kinds; the table says which
        reason = " ".join(str(error).split())[:120]
        return Contender(None, None, f"fails: {type(error).__name__}: {reason}")
    return made


def of_graph(graph: onnx.ModelProto, remark: str = "") -> Contender:
    """Return an ONNX graph with the runtime's session options, on one thread."""
    session = open_session(graph)
    return Contender(
        lambda feed: np.asarray(session.run(["embedding"], feed)[0]), graph.ByteSize() / 1e6, remark, graph
    )


def plain_dynamic(model: Model, tower: TowerName) -> Contender:
    """Return what one call of onnxruntime's quantize_dynamic makes of the exported file."""
    from onnxruntime.quantization import quantize_dynamic

    operators = ["MatMul", "Gather"] if tower == "text" else ["MatMul"]  # its ConvInteger cannot run
    with tempfile.TemporaryDirectory(prefix="pocketlens-bench-") as folder, quiet():
        out = Path(folder) / "int8.onnx"
        quantize_dynamic(file_of(model, tower), out, op_types_to_quantize=operators, per_channel=True)
        return of_graph(onnx.load(str(out)), ", ".join(operators))


def plain_static(model: Model, tower: TowerName, feeds: Sequence[Feed]) -> Contender:
    """Return what onnxruntime's quantize_static makes of the file after quant_pre_process, as its guide says."""
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="pocketlens-bench-") as folder, quiet():
        prepared, out = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(file_of(model, tower), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            out,
            _Reader(feeds[:_CALIBRATED]),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return of_graph(onnx.load(str(out)), "QDQ, U8S8, MinMax, all operators")


def torch_eager(clip: Any, model: Model, tower: TowerName) -> Contender:
    """Return open_clip's own model in eager mode; a text always takes its whole context: its forward knows no other."""
    import torch

    spec = model.manifest.text
    content = io.BytesIO()
    torch.save((clip.model.text if tower == "text" else clip.model.visual).state_dict(), content)

    def encode(feed: Feed) -> Float32s:
        with torch.inference_mode():
            if tower == "image":
                return np.asarray(clip.encode_pixels(feed["pixels"]))
            assert spec is not None
            ids = feed["input_ids"]
            room = spec.context_length - ids.shape[1]
            return np.asarray(clip.encode_ids(np.pad(ids, ((0, 0), (0, room)), constant_values=spec.pad_id)))

    return Contender(encode, content.tell() / 1e6)


def torch_int8(clip: Any, model: Model, tower: TowerName) -> Contender:
    """Return the same with what torch can quantize by itself: every Linear, dynamic int8."""
    from torch import float32, nn, qint8
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own module deprecated
        small = quantize_dynamic(clip.model, {nn.Linear}, dtype=qint8)  # type: ignore[no-untyped-call]
        for module in small.modules():
            module.int8_original_dtype = float32  # where open_clip looks for a type when a Linear has no weight
        made = torch_eager(dataclasses.replace(clip, model=small), model, tower)
    part = small.text if tower == "text" else small.visual
    names = [f"{type(module).__module__}.{type(module).__name__}" for module in part.modules()]
    count = sum(".quantized." in name and name.endswith(".Linear") for name in names)
    return dataclasses.replace(made, remark=f"{count} Linear layers")


def file_of(model: Model, tower: TowerName) -> Path:
    """Return a tower's ONNX file."""
    spec = model.manifest.text if tower == "text" else model.manifest.image
    assert spec is not None
    return model.file(spec.file)


class _Reader:
    """onnxruntime's CalibrationDataReader over feeds."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)
