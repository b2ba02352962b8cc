from __future__ import annotations

import numpy as np

from pocketlens_export.samples import GOLDEN_TEXTS, PROMPTS, sample_pictures


def test_pictures_differ_from_each_other() -> None:
    small = [np.asarray(picture.resize((16, 16)), dtype=np.float64) for picture in sample_pictures(60)]
    distances = [np.abs(a - b).mean() for i, a in enumerate(small) for b in small[:i]]
    assert min(distances) > 3


def test_pictures_are_the_same_every_time_and_do_not_depend_on_how_many_are_asked_for() -> None:
    for a, b in zip(sample_pictures(9), sample_pictures(12), strict=False):
        assert (a.mode, a.size) == ("RGB", b.size)
        assert a.tobytes() == b.tobytes()
    assert sample_pictures(1, seed=1)[0].tobytes() != sample_pictures(1)[0].tobytes()


def test_pictures_are_of_both_orientations() -> None:
    assert {picture.width > picture.height for picture in sample_pictures(20)} == {True, False}


def test_texts_differ() -> None:
    assert len({*GOLDEN_TEXTS, *PROMPTS}) == len(GOLDEN_TEXTS) + len(PROMPTS)
