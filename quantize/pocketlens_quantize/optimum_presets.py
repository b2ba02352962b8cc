"""The quantization presets of Hugging Face's optimum as one strategy among others; needs the extra `optimum`.

A preset says which eight-bit types a CPU multiplies fast; optimum hands it to onnxruntime's quantizers. Calibration is
done here with onnxruntime, because optimum's own takes a `datasets.Dataset`. The result is not measured here: whether
it is good enough is the caller's to find out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from onnxruntime.quantization.calibrate import create_calibrator

from pocketlens.errors import MissingPart, Refused
from pocketlens.files import write_file
from pocketlens_quantize.graph import quiet
from pocketlens_quantize.session import Feed, FeedReader

# Not Conv: dynamic quantization turns it into ConvInteger, which onnxruntime's kernels run slowly or not at all.
DYNAMIC_OPERATORS = ("MatMul", "Gather")


def quantize_with_optimum(
    source: Path, *, out: Path, preset: Literal["arm64", "avx2", "avx512_vnni"], feeds: Sequence[Feed] | None
) -> None:
    """Write the ONNX graph `source` to `out`, quantized by one of optimum's presets with a scale per channel.

    Args:
        source: a self-contained float32 ONNX file.
        out: file to write, replaced if it exists.
        preset: weights become int8 (avx2: uint8) and activations uint8.
        feeds: inputs to run the graph on, each a mapping of every input's name to an array of its dtype and shape.
            Given, the ranges of activations are fixed to the least and largest values met, and all operators that
            onnxruntime can quantize are. None: ranges are found at each run, of MatMul and Gather alone.

    Raises:
        MissingPart: the extra is not installed.
        ValueError: `feeds` is empty.
        Refused: the graph cannot be calibrated or quantized.
    """
    if feeds is not None and not feeds:
        raise ValueError("static quantization takes at least one feed, found none; pass None for dynamic")
    try:
        from optimum.onnxruntime.configuration import AutoQuantizationConfig
        from optimum.onnxruntime.quantization import ORTQuantizer
    except ImportError as error:
        raise MissingPart('quantization by optimum\'s presets needs: pip install "pocketlens[optimum]"') from error
    presets = {
        "arm64": AutoQuantizationConfig.arm64,
        "avx2": AutoQuantizationConfig.avx2,
        "avx512_vnni": AutoQuantizationConfig.avx512_vnni,
    }
    operators = None if feeds is not None else list(DYNAMIC_OPERATORS)
    config = presets[preset](is_static=feeds is not None, per_channel=True, operators_to_quantize=operators)
    with tempfile.TemporaryDirectory() as name, quiet():
        # Alone in a folder: optimum tries to load whatever configuration or tokenizer lies beside the graph.
        folder = Path(name)
        try:
            shutil.copy(source, folder / "graph.onnx")
            ranges = None if feeds is None else _ranges(folder / "graph.onnx", feeds, config.operators_to_quantize)
            quantizer = ORTQuantizer.from_pretrained(folder, file_name="graph.onnx")
            quantizer.quantize(config, folder / "out", file_suffix=None, calibration_tensors_range=ranges)
            content = (folder / "out" / "graph.onnx").read_bytes()
        except Exception as error:  # onnx, onnxruntime and optimum raise a dozen kinds
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise Refused(f"{source} cannot be quantized by optimum's preset {preset}: {reason}") from error
    write_file(out, content)


def _ranges(graph: Path, feeds: Iterable[Feed], operators: Sequence[str]) -> Any:
    calibrator = create_calibrator(graph, operators, augmented_model_path=str(graph.with_name("augmented.onnx")))
    calibrator.collect_data(FeedReader(feeds))
    return calibrator.compute_data()
