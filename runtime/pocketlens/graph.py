"""An ONNX graph in a session of onnxruntime, checked against what a manifest says of it.

The session options are those of a small device: CPU, no spinning threads, no arena, which would keep the memory of the
largest batch for good.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from pocketlens._native import ort
from pocketlens._types import Float32s
from pocketlens.errors import BadQuery, FormatError

_MAX_THREADS = 4
_Shape: TypeAlias = tuple[int | None, ...]


def default_threads() -> int:
    """Return the number of threads a graph runs with unless told otherwise: the usable cores, at most 4."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MAX_THREADS)


def check_threads(threads: Any) -> None:
    """Raise `BadQuery` unless `threads` is None or an integer from 1 on."""
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise BadQuery(f"threads is {threads!r}, expected an integer from 1 on")


class Graph:
    """An ONNX file in a session, whose declared names and shapes are those of the manifest.

    Args:
        path: the file, whose hash the caller has checked.
        threads: threads inside one run.
        inputs: the expected inputs with their shapes; None stands for a size that must be left open.
        output: name of the output that is read.
        shape: its shape; the first size is that of every input.
    """

    def __init__(
        self, path: Path, threads: int | None, inputs: Mapping[str, _Shape], output: str, shape: _Shape
    ) -> None:
        self._path = path
        self._output = output
        self._shape = shape
        self.session = _open_session(path, threads)
        found = {value.name: tuple(value.shape) for value in self.session.get_inputs()}
        outputs = {value.name: tuple(value.shape) for value in self.session.get_outputs()}
        if set(found) != set(inputs) or output not in outputs:
            names = f"{tuple(sorted(found))} to {list(outputs)}"
            raise FormatError(f"{path} maps {names}, expected {tuple(sorted(inputs))} to an output {output!r}")
        for name, expected in inputs.items():
            _check_shape(path, name, found[name], expected)
        _check_shape(path, output, outputs[output], shape)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Float32s:
        """Return the output, float32 (n, ...), of n inputs."""
        try:
            output: Float32s = self.session.run([self._output], feeds)[0]
        except Exception as error:  # onnxruntime's own exceptions share no public base
            given = ", ".join(f"{name} {values.dtype} {values.shape}" for name, values in feeds.items())
            raise FormatError(f"{self._path} fails on {given}: {_one_line(error)}") from error
        expected = (len(next(iter(feeds.values()))), *self._shape[1:])
        if output.shape != expected:
            raise FormatError(f"{self._path} gives {self._output} of {output.shape}, expected {expected}")
        return output


def _check_shape(path: Path, name: str, found: Sequence[int | str | None], expected: _Shape) -> None:
    sizes = [size if isinstance(size, int) else None for size in found]
    fits = [size is None or size == wanted for size, wanted in zip(sizes, expected, strict=False)]
    if len(sizes) != len(expected) or not all(fits):
        shapes = [
            f"({', '.join('any' if size is None else str(size) for size in shape)})" for shape in (found, expected)
        ]
        raise FormatError(f"{path}: {name} has shape {shapes[0]}, expected {shapes[1]}")


def _open_session(path: Path, threads: int | None) -> Any:
    check_threads(threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads if threads is not None else default_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no public base
        reason = _one_line(error)
        raise FormatError(f"{path} is no ONNX graph that onnxruntime {ort.__version__} can run: {reason}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
