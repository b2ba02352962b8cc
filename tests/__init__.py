"""The tests. Loaded before NumPy, whose own threads would fight for the cores with those of the encoders."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
