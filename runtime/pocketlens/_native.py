"""The one place that fixes the import order of the native libraries: onnxruntime before usearch and its kernels.

usearch 2.26.2 to 2.26.6 crash the interpreter (SIGSEGV) when imported before onnxruntime. pyproject.toml holds usearch
below them; the order is kept all the same, so that somebody who overrides the range is not killed by an import.
"""

from __future__ import annotations

import onnxruntime as ort  # isort: skip
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel  # isort: skip
import usearch.index as usearch  # isort: skip
import numkong  # isort: skip

__all__ = ["NoKernel", "numkong", "ort", "usearch"]
