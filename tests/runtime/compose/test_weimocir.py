from __future__ import annotations

import numpy as np

from pocketlens._types import Int64s
from pocketlens.compose import Scores, Text
from pocketlens.compose.weimocir import CAPTIONED
from tests.runtime.compose.by_hand import NAMES, ROWS, Y, composed_by, fused, hand_kit, vector

KIT = hand_kit({"y": Y})
Q = np.array([0.2, 0.8, 0]) / 0.68**0.5


def test_weimocir_by_hand() -> None:
    composed = composed_by("weimocir", KIT, Text("y"))
    np.testing.assert_allclose(composed.vectors, [Q], atol=1e-6)
    scores = Scores(composed.vectors @ ROWS.T, vector(0), vector(1), lambda rows: ROWS[rows])
    # (0.6, 0.8, 0) is nearest to itself, the cube and the ball, whose cosines with the query are these:
    captions = np.array([0.76 / 0.68**0.5, 0.8 / 0.68**0.5, 0.2 / 0.68**0.5]).mean()
    np.testing.assert_allclose(fused(composed, scores)[0], 0.9 * 0.76 / 0.68**0.5 + 0.1 * captions, atol=1e-6)
    heavy = composed_by("weimocir", KIT, Text("y"), image_weight=4.0)  # 4 : 1 against 1 : 4
    np.testing.assert_allclose(heavy.vectors, [[0.5**0.5, 0.5**0.5, 0]], atol=1e-6)


def test_without_captions_it_is_a_vector_and_needs_no_vocabulary() -> None:
    kit = hand_kit({"y": Y})
    composed = composed_by("weimocir", kit, Text("y"), values={"caption_share": 0.0})
    assert composed.fuse is None and not kit.touched


def test_only_the_best_rows_are_looked_at_and_ties_keep_row_order() -> None:
    looked: list[Int64s] = []
    rows = np.tile(ROWS, (100, 1))  # a hundred of each

    def look(wanted: Int64s) -> np.ndarray:
        looked.append(wanted)
        return rows[wanted]

    composed = composed_by("weimocir", KIT, Text("y"))
    found = fused(composed, Scores(composed.vectors @ rows.T, vector(0), vector(1), look))
    assert len(looked) == 1
    # 0.76 for rows 0, 4, ..., then 0.52 for rows 3, 7, ...; 0.2 and -0.76 get the vocabulary's mean for captions
    assert sorted(looked[0]) == sorted([*range(0, 400, 4), *range(3, 400, 4)]) and len(looked[0]) == CAPTIONED
    rest = 0.9 * np.array([0.2, -0.76]) / 0.68**0.5 + 0.1 * (NAMES.mean @ Q)
    np.testing.assert_allclose(found[1:3], rest, atol=1e-6)

    rows = np.tile(ROWS[:1], (300, 1))
    found = fused(composed, Scores(composed.vectors @ rows.T, vector(0), vector(1), look))
    assert looked[1].tolist() == list(range(CAPTIONED)) and (np.diff(found)[: CAPTIONED - 1] == 0).all()


def test_a_vocabulary_of_two_names() -> None:
    kit = hand_kit({"y": Y})
    kit._concepts = type(NAMES)(NAMES.names[:2], NAMES.vectors[:2], NAMES.vectors[:2].mean(axis=0), NAMES.subspace)
    composed = composed_by("weimocir", kit, Text("y"), values={"caption_share": 1.0})
    found = fused(composed, Scores(composed.vectors @ ROWS.T, vector(0), vector(1), lambda rows: ROWS[rows]))
    np.testing.assert_allclose(found, np.full(4, 0.5 / 0.68**0.5), atol=1e-6)
