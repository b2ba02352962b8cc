"""Array types shared by the runtime's modules. Shapes are in the docstrings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Float16s = NDArray[np.float16]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]
Int8s = NDArray[np.int8]
Uint8s = NDArray[np.uint8]
