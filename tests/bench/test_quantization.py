from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pocketlens.model import Model
from pocketlens_bench.contenders import attempt, plain_static, torch_eager, torch_int8
from pocketlens_bench.measure import Row
from pocketlens_bench.quantization import DYNAMIC, FLOAT, OURS, OVER, STATIC, bars_of, compare
from pocketlens_bench.subjects import Subject
from pocketlens_quantize.inputs import Side, read_sides

ROUNDS = {"text": 3, "image": 3}


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> tuple[Side, Side]:
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for number in range(130):
        noise = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((8, 8)).save(folder / f"{number}.png")
    texts = folder / "texts.txt"
    words = itertools.product(("red", "green", "blue", "white"), repeat=4)
    texts.write_text("".join(f"{' '.join(text)}\n" for text in itertools.islice(words, 130)))
    return read_sides(Model.open(colours), calibration=folder, measuring=None, texts=texts, progress=lambda line: None)


def test_every_tower_and_contender_has_a_row_with_time_beside_cosine(colours: Path, sides: tuple[Side, Side]) -> None:
    model = Model.open(colours)
    rows, near, (note,) = compare(Subject("colours", model, model), sides, rounds=ROUNDS, progress=lambda line: None)
    names = [FLOAT, DYNAMIC, STATIC, OURS]
    assert [(row["tower"], row["what"]) for row in rows] == [(tower, what) for tower in ROUNDS for what in names]
    for row in rows:
        assert (row["p50 ms"] is None) == (row["mean cosine"] is None)
        if row["what"] in (FLOAT, OURS):
            assert (row["mean cosine"], row["agreement@10"], row["how"]) == (1, 1, "float32" * (row["what"] == OURS))
            assert float(row["least alone and in batch"] or 0) >= 0.999999
    assert [row[OVER] for row in rows if row["what"] == FLOAT] == [1, 1]
    assert len({tuple(row) for row in rows}) == len({tuple(row) for row in near}) == 1
    assert [(row["tower"], row["what"]) for row in near] == [(t, what) for t in ROUNDS for what in (FLOAT, OURS)]
    assert "65 texts of 6 tokens in the median" in note and "65 pictures" in note


def test_a_refusal_is_a_row_and_a_missed_bar(colours: Path, sides: tuple[Side, Side]) -> None:
    subject = Subject("colours", Model.open(colours), "nothing reaches the gate")
    rows, near, _ = compare(subject, sides, rounds=ROUNDS, progress=lambda line: None)
    refused = [row for row in rows if row["what"] == OURS]
    assert [(row["p50 ms"], row["how"]) for row in refused] == [(None, "refused: nothing reaches the gate")] * 2
    assert [row["what"] for row in near] == [FLOAT, FLOAT]
    (bar,) = bars_of("colours", rows)
    assert not bar.met


def _row(tower: str, what: str, megabytes: float, **changes: str | float) -> Row:
    row: Row = {"tower": tower, "what": what, "MB": megabytes, OVER: 0.4, "how": "static int8, minmax"}
    row |= {"mean cosine": 0.996, "agreement@10": 0.96, "least alone and in batch": 1.0}
    return row | changes


def test_bars_of_made_up_rows() -> None:
    rows = [_row("text", FLOAT, 100), _row("text", OURS, 25), _row("image", FLOAT, 10), _row("image", OURS, 3)]
    assert [bar.met for bar in bars_of("m", rows)] == [True] * 9
    rows[1] = _row("text", OURS, 31, **{OVER: 0.46, "mean cosine": 0.994, "agreement@10": 0.9})
    rows[3] = _row("image", OURS, 5, how="float16 storage")
    bars = {bar.what: bar for bar in bars_of("m", rows)}
    assert [bar.what for bar in bars.values() if not bar.met] == [
        f"m: text, {OVER}", "m: text, mean cosine", "m: text, agreement@10", "m: text, size over float32",
    ]  # fmt: skip
    assert "m: image, size over float32" not in bars  # int8 does not win there


@dataclass(frozen=True)
class _Clip:
    model: Any

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.model.visual(torch.from_numpy(pixels).float().flatten(1)).numpy()
        return found

    def encode_ids(self, ids: np.ndarray) -> np.ndarray:
        raise RuntimeError(f"this tower takes no {ids.shape}")


def test_torch_int8_is_near_torch_and_says_what_it_reached(colours: Path) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"text": nn.Linear(4, 4), "visual": nn.Sequential(nn.Linear(192, 64), nn.Linear(64, 8))})
    clip, opened = _Clip(model), Model.open(colours)
    feed = {"pixels": np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)}
    eager = attempt(lambda: torch_eager(clip, opened, "image"), [feed])
    small = attempt(lambda: torch_int8(clip, opened, "image"), [feed])
    assert eager.encode is not None and small.encode is not None, small.remark
    np.testing.assert_allclose(small.encode(feed), eager.encode(feed), rtol=0.2, atol=2)
    assert small.remark == "2 Linear layers"
    assert small.megabytes is not None and eager.megabytes is not None and small.megabytes < eager.megabytes / 2


def test_what_fails_stays_with_its_reason_and_sees_the_whole_context(colours: Path) -> None:
    clip = _Clip(nn.ModuleDict({"text": nn.Linear(4, 4), "visual": nn.Linear(4, 4)}))
    opened = Model.open(colours)
    assert opened.manifest.text is not None
    failed = attempt(lambda: torch_eager(clip, opened, "text"), [{"input_ids": np.array([[2, 4, 3]])}])
    assert failed.encode is None and failed.megabytes is None
    assert failed.remark == f"fails: RuntimeError: this tower takes no (1, {opened.manifest.text.context_length})"


def test_static_quantization_without_inputs_fails_with_its_reason(colours: Path) -> None:
    found = attempt(lambda: plain_static(Model.open(colours), "image", []), [])
    assert found.encode is None and found.remark.startswith("fails: ")
