"""From an ONNX file to onnxruntime's own format, and the list of operators that a minimal build of it needs.

A minimal onnxruntime, as phones carry it, opens .ort files alone and optimizes nothing at opening, so whatever shall be
fused is fused here. It depends on onnxruntime alone: one session writes the file and onnxruntime's own tool reads back
which operators and types it uses. Two things it cannot keep. Weights that `storage` made small are folded back to
float32, because only a full build can do so at opening. And the float convolutions of a full build on x86-64 run in a
layout of that very CPU, which no file for other machines may hold: there the .onnx file stays the faster one.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

from pocketlens.errors import Refused
from pocketlens.files import write_file

SUFFIX = ".ort"  # onnxruntime tells the two formats apart by the file's name


def convert_to_ort(source: Path, *, out: Path, target: Literal["x86-64", "arm64"]) -> None:
    """Write the ONNX graph `source` to `out` in ORT format, optimized for the CPUs of one architecture.

    The file runs on any CPU; `target` only chooses how int8 activations are multiplied. It computes what a session on
    `source` computes, bit for bit or to the last digits where the latter changes its layout.

    Args:
        source: a self-contained ONNX file of any precision.
        out: file to write, replaced if it exists; its name ends in .ort.
        target: where the file will run. arm64 keeps int8 activations; x86-64 shifts them to uint8, for which alone
            its kernels are fast.

    Raises:
        ValueError: `out` does not end in .ort.
        Refused: onnxruntime cannot read `source`, or has no kernel for one of its operators.
    """
    if out.suffix != SUFFIX:
        raise ValueError(f"{out} is to be written in ORT format, expected a name that ends in {SUFFIX}")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / out.name
        try:
            ort.InferenceSession(str(source), _options(written, target), providers=["CPUExecutionProvider"])
            content = written.read_bytes()
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise Refused(f"{source} cannot be converted to ORT format: {_one_line(error)}") from error
    write_file(out, content)


def write_operators(files: Sequence[Path], *, out: Path) -> None:
    """Write the operators and types that `files` need, together, in the text form that onnxruntime's build reads.

    The build takes it by `--include_ops_by_config`, with `--enable_reduced_operator_type_support` for the types.

    Args:
        files: files in ORT format, at least one.
        out: file to write, replaced if it exists; conventionally required_operators.config.

    Raises:
        ValueError: `files` is empty.
        Refused: one of them is missing or not in ORT format.
    """
    if not files:
        raise ValueError("write_operators takes at least one file, found none")
    create_config = _create_config()
    for file in files:
        if not file.is_file():  # before the tool, which names the file and nothing else
            raise Refused(f"{file} is missing, so its operators cannot be listed")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "operators"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # it leaves the files to be closed by themselves
                create_config(list(files), written, True)
        except Exception as error:  # RuntimeError for a foreign file, struct.error and others for a cut one
            names = ", ".join(map(str, files))
            raise Refused(f"the operators of {names} cannot be listed: {_one_line(error)}") from error
        lines = [line for line in written.read_text().splitlines() if not line.startswith("#")]
    # In place of the tool's header, which holds the paths of this machine.
    header = f"# Operators of {', '.join(sorted(file.name for file in files))}, onnxruntime {ort.__version__}"
    write_file(out, "\n".join([header, *lines, ""]).encode())


def _options(written: Path, target: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # The highest level that is free of the building machine's CPU; the next one blocks channels by the width of its
    # vectors. The tool's own default, that level without the blocking, measured no faster and needs more operators.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(written)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.qdqisint8allowed", "1" if target == "arm64" else "0")
    return options


def _create_config() -> Callable[[list[Path], Path, bool], Any]:
    """Import the tool when it is needed, for it imports torch where there is one and sets up the root logger."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    try:
        from onnxruntime.tools.ort_format_model import create_config_from_models
    finally:
        root.handlers[:] = handlers
    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)  # it reports the file that it wrote
    tool: Callable[[list[Path], Path, bool], Any] = create_config_from_models
    return tool


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
