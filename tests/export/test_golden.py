from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from pocketlens_export import golden
from pocketlens_export.clip import Clip
from pocketlens_export.samples import GOLDEN_TEXTS
from tests.export.conftest import Load, sample_pixels


@pytest.mark.parametrize("name", ["tiny", "bidirectional", "tiny-bert"])
def test_golden_values_are_the_references(load: Load, exported: Path, name: str) -> None:
    model = load(name)
    with np.load(exported / name / "golden.npz", allow_pickle=False) as file:
        arrays = dict(file)
    blob, offsets = arrays["text_utf8"].tobytes(), arrays["text_offsets"]
    texts = [blob[a:b].decode() for a, b in itertools.pairwise(offsets)]
    assert texts == list(GOLDEN_TEXTS)
    assert {key: (value.dtype.name, value.ndim) for key, value in arrays.items()} == {
        "text_utf8": ("uint8", 1),
        "text_offsets": ("int64", 1),
        "text_ids": ("int64", 2),
        "text_embedding": ("float32", 2),
        "pixels": ("uint8", 4),
        "image_embedding": ("float32", 2),
        **{f"{tower}_{bar}": ("float32", 0) for tower in ("text", "image") for bar in ("min_cosine", "max_abs")},
    }
    np.testing.assert_allclose(arrays["text_embedding"], model.encode_ids(arrays["text_ids"]), atol=1e-6)
    np.testing.assert_allclose(arrays["image_embedding"], model.encode_pixels(arrays["pixels"]), atol=1e-6)
    assert arrays["pixels"].shape == (4, 32, 32, 3)


def test_a_model_without_a_tokenizer_has_ids_and_no_texts(clip: Clip) -> None:
    ids = np.ones((2, 77), dtype=np.int64)
    assert set(golden.text_arrays((), ids, clip.encode_ids(ids))) == {
        "text_ids",
        "text_embedding",
        "text_min_cosine",
        "text_max_abs",
    }


def test_the_same_arrays_give_the_same_bytes(clip: Clip, tmp_path: Path) -> None:
    pixels = sample_pixels(clip.architecture, 2)
    for name in ("a.npz", "b.npz"):
        golden.write_golden(tmp_path / name, golden.image_arrays(pixels, clip.encode_pixels(pixels)))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
