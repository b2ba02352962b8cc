from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlens.concepts import Concepts, read_concepts
from pocketlens.errors import FormatError
from tests.folders import add_concepts

NAMES = ["cat", "größe", "日本 castle"]


def arrays() -> dict[str, Any]:
    blobs = [name.encode() for name in NAMES]
    return {
        "names_utf8": np.frombuffer(b"".join(blobs), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, blobs)], dtype=np.int64),
        "codes": np.array([[127, 0], [0, -127], [100, 100]], dtype=np.int8),
        "scales": np.array([1 / 127, 1 / 127, 0.00707], dtype=np.float32),
        "subspace": np.array([[1, 0]], dtype=np.float32),
    }


def test_names_and_vectors_by_hand(tmp_path: Path) -> None:
    np.savez(tmp_path / "concepts.npz", **arrays())
    found = read_concepts(tmp_path / "concepts.npz", 2)
    assert found.names == tuple(NAMES)
    np.testing.assert_allclose(found.vectors, np.array([[1, 0], [0, -1], [0.707, 0.707]]), atol=1e-6)
    np.testing.assert_allclose(found.mean, [1.707 / 3, -0.293 / 3], atol=1e-6)
    np.testing.assert_array_equal(found.subspace, [[1, 0]])
    assert found.vectors.dtype == found.mean.dtype == np.float32


def test_written_vectors_come_back_within_a_step_of_their_codes(
    colours: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "model.json").write_bytes((colours / "model.json").read_bytes())
    for name in json.loads((tmp_path / "model.json").read_text())["files"]:
        (tmp_path / name).write_bytes((colours / name).read_bytes())
    vectors = rng.standard_normal((3, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    add_concepts(tmp_path, NAMES, vectors)
    found = read_concepts(tmp_path / "concepts.npz", 4)
    np.testing.assert_allclose(found.vectors, vectors, atol=0.51 / 127)
    np.testing.assert_allclose(found.subspace @ found.subspace.T, np.eye(2), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("names_utf8", np.zeros(5, dtype=np.uint8), r"names_utf8 is uint8 \(5,\), expected uint8"),
        ("names_utf8", np.full(23, 0xFF, dtype=np.uint8), "a name is not UTF-8"),
        ("offsets", np.array([0, 3, 23], dtype=np.int64), r"offsets is int64 \(3,\), expected int64 \(4,\)"),
        ("offsets", np.array([0, 3, 3, 23], dtype=np.int64), "rising offsets from 0"),
        ("offsets", np.array([1, 3, 4, 23], dtype=np.int64), "rising offsets from 0"),
        ("offsets", np.array([0, -3, 4, 23], dtype=np.int64), "rising offsets from 0"),
        ("offsets", np.int64(23), r"offsets is int64 \(\)"),
        ("offsets", np.array(["a"]), "names_utf8 is uint8"),
        ("codes", np.zeros((3, 3), dtype=np.int8), r"codes is int8 \(3, 3\), expected int8 \(3, 2\)"),
        ("codes", np.zeros((0, 2), dtype=np.int8), r"offsets is int64 \(4,\), expected int64 \(1,\)"),
        ("codes", np.int8(3), r"offsets is int64"),
        ("scales", np.array([1, 2, np.nan], dtype=np.float32), "finite scales"),
        ("scales", np.ones(3), r"scales is float64 \(3,\), expected float32 \(3,\)"),
        ("subspace", np.float32(1), r"subspace is float32 \(\)"),
        ("subspace", np.full((1, 2), np.inf, dtype=np.float32), "finite scales and subspace"),
    ],
)
def test_a_wrong_array_is_a_format_error(tmp_path: Path, name: str, value: Any, message: str) -> None:
    np.savez(tmp_path / "concepts.npz", **(arrays() | {name: value}))
    with pytest.raises(FormatError, match=message):
        read_concepts(tmp_path / "concepts.npz", 2)


def test_the_nearest_names_are_those_of_a_full_sort_and_are_found_once(rng: np.random.Generator) -> None:
    names = rng.standard_normal((40, 6)).astype(np.float32)
    concepts = Concepts(tuple(map(str, range(40))), names, names.mean(axis=0), np.eye(1, 6, dtype=np.float32))
    vectors = rng.standard_normal((9, 6)).astype(np.float32)
    for rows, count in ((vectors[:4], 3), (vectors[[3, 8, 8, 0]], 3), (vectors, 5), (vectors, 100)):
        places, products = concepts.nearest(rows, count)
        exact = rows.astype(np.float64) @ names.astype(np.float64).T
        wanted = np.argsort(-exact, axis=1)[:, :count]
        np.testing.assert_array_equal(places, wanted)
        np.testing.assert_allclose(products, np.take_along_axis(exact, wanted, axis=1), atol=1e-5)
    names[:] = 0.0  # what is remembered is not worked out again
    np.testing.assert_array_equal(concepts.nearest(vectors, 100)[0], wanted)
    assert (concepts.nearest(-vectors, 3)[1] == 0).all()
