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

from pocketlens._native import NoKernel, ort
from pocketlens._types import Float32s
from pocketlens.errors import BadQuery, FormatError
from pocketlens.forks import Process, keep_after_fork

_MAX_THREADS = 4
_EXACT = "session.x64quantprecision"
PROCESSOR = "CPUExecutionProvider"
_Shape: TypeAlias = tuple[int | None, ...]
FIXED = -1  # a size that the graph must state


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
        inputs: the expected inputs with their shapes; None stands for a size that must be left open, FIXED for one
            that must not.
        outputs: the outputs that may be read, with their shapes; the first size is that of every input.
        provider: of onnxruntime, that runs what it can; the processor runs the rest.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None,
        inputs: Mapping[str, _Shape],
        outputs: Mapping[str, _Shape],
        *,
        provider: str = PROCESSOR,
    ) -> None:
        self._path = path
        self._outputs = outputs
        self._process = Process()
        # An inversion network's int8 products open in the exact form, and then fail as they run.
        self.session = _open_session(path, threads, provider, exact="embedding" in outputs)
        keep_after_fork(self, self.session)
        found = {value.name: tuple(value.shape) for value in self.session.get_inputs()}
        given = {value.name: tuple(value.shape) for value in self.session.get_outputs()}
        if set(found) != set(inputs) or not set(outputs) <= set(given):
            names, wanted = f"{tuple(sorted(found))} to {list(given)}", " and ".join(map(repr, outputs))
            raise FormatError(f"{path} maps {names}, expected {tuple(sorted(inputs))} to an output {wanted}")
        for name, expected in inputs.items():
            _check_shape(path, name, found[name], expected)
        for name, expected in outputs.items():
            _check_shape(path, name, given[name], expected)
        self.input_shapes = found

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[Float32s]:
        """Return these outputs, float32 (n, ...) each, of n inputs; what is not asked for is not handed out."""
        self._process.check(str(self._path))
        try:
            results: list[Float32s] = self.session.run(list(outputs), feeds)
        except Exception as error:  # onnxruntime's own exceptions share no public base
            given = ", ".join(f"{name} {values.dtype} {values.shape}" for name, values in feeds.items())
            raise FormatError(f"{self._path} fails on {given}: {_one_line(error)}") from error
        count = len(next(iter(feeds.values())))
        for name, result in zip(outputs, results, strict=True):
            expected = (count, *self._outputs[name][1:])
            if result.shape != expected:
                raise FormatError(f"{self._path} gives {name} of {result.shape}, expected {expected}")
        return results


def _check_shape(path: Path, name: str, found: Sequence[int | str | None], expected: _Shape) -> None:
    sizes = [size if isinstance(size, int) else None for size in found]
    fits = [_fits(size, wanted) for size, wanted in zip(sizes, expected, strict=False)]
    if len(sizes) != len(expected) or not all(fits):
        shapes = [f"({', '.join(map(_word, shape))})" for shape in (found, expected)]
        raise FormatError(f"{path}: {name} has shape {shapes[0]}, expected {shapes[1]}")


def _fits(found: int | None, wanted: int | None) -> bool:
    return found is not None if wanted == FIXED else found is None or found == wanted


def _word(size: int | str | None) -> str:
    return "any" if size is None else "a number" if size == FIXED else str(size)


def open_exactly(content: bytes | str, options: Any, *, providers: Sequence[str] = (PROCESSOR,)) -> Any:
    """Return a session whose 8-bit sums do not overflow on x86-64 without VNNI, where onnxruntime can help it.

    Two products of 8 bits do not fit into 16 there, so weights of 8 bits are unsigned (x64quantprecision of
    onnxruntime); weights of 7 bits stay as they are. MatMulIntegerToFloat of int8, made for ARM, has no such form.

    Args:
        content: a graph, or the path of one.
        options: the session options, to which this is added.
        providers: of onnxruntime, the first one first.
    """
    options.add_session_config_entry(_EXACT, "1")
    try:
        return ort.InferenceSession(content, options, providers=list(providers))
    except NoKernel:
        options.add_session_config_entry(_EXACT, "0")
        return ort.InferenceSession(content, options, providers=list(providers))


def _open_session(path: Path, threads: int | None, provider: str, *, exact: bool) -> Any:
    check_threads(threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads if threads is not None else default_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    providers = list(dict.fromkeys([provider, PROCESSOR]))
    try:
        if exact:
            return open_exactly(str(path), options, providers=providers)
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions share no public base
        reason = _one_line(error)
        raise FormatError(f"{path} is no ONNX graph that onnxruntime {ort.__version__} can run: {reason}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
