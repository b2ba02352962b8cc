from __future__ import annotations

import numpy as np

from pocketlens_bench.latency import compare


def test_encoders_are_compared_on_every_input_alone() -> None:
    inputs = np.array([[1.0, 0.0], [0.6, 0.8]], dtype=np.float32)
    seen: list[int] = []

    def turned(batch: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        return batch[:, ::-1]

    rows = compare({"base": lambda batch: batch, "turned": turned}, inputs, "base", rounds=2, about={"tower": "t"})
    assert [row["encoder"] for row in rows] == ["base", "turned"]
    assert [row["least cosine with base"] for row in rows] == [1.0, 0.0]  # of 0 and 0.96
    assert set(seen) == {1}
    assert rows[0]["time over base"] == 1.0
