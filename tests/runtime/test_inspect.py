from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pocketlens.errors import CorruptFile, FormatError
from pocketlens.inspect import describe, tower_manifest, verify
from tests.folders import add_concepts, add_inversion, edit_json, flip, sign


@pytest.fixture
def own(colours: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may change."""
    return Path(shutil.copytree(colours, tmp_path / "own"))


@pytest.fixture
def gallery(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the gallery that a test may change."""
    return Path(shutil.copytree(bundle / "gallery", tmp_path / "gallery"))


def change_golden(folder: Path, **changes: Callable[[Any], Any]) -> None:
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    np.savez(folder / "golden.npz", **{**arrays, **{name: change(arrays[name]) for name, change in changes.items()}})
    sign(folder / "model.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space__dim": 3}, r"golden\.npz: text_embedding is float32 \(4, 4\), expected float32 \(4, 3\)"),
        ({"image__side": 9}, r"image\.onnx: pixels has shape \(n, 8, 8, 3\), expected \(any, 9, 9, 3\)"),
        ({"text__token_dim": 5}, r"text\.onnx: pseudo_tokens has shape \(n, p, 4\), expected \(any, any, 5\)"),
        (
            {"text__context_length": 7},
            r"golden\.npz: text_ids is int64 \(4, 6\), expected int64 \(4, 7\)",
        ),
        (
            {"text__context_length": 5, "text__tokenizer": None},
            r"golden\.npz: text_ids is int64 \(4, 6\), expected int64 \(4, 5\)",
        ),
    ],
)
def test_a_manifest_that_its_graphs_and_golden_values_contradict_is_refused(
    own: Path, change: dict[str, Any], message: str
) -> None:
    edit_json(own / "model.json", **change)
    with pytest.raises(FormatError, match=message):
        verify(own)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("text_embedding", lambda a: a[:, :3], r"text_embedding is float32 \(4, 3\), expected float32 \(4, 4\)"),
        ("text_embedding", lambda a: a[:3], r"text_embedding is float32 \(3, 4\), expected float32 \(4, 4\)"),
        ("image_embedding", lambda a: a[:2], r"image_embedding is float32 \(2, 4\), expected float32 \(3, 4\)"),
        ("pixels", lambda a: a[:, :7], r"pixels is uint8 \(3, 7, 8, 3\), expected uint8 \(3, 8, 8, 3\)"),
        ("pixels", lambda a: a.astype(np.float32), r"pixels is float32 \(3, 8, 8, 3\), expected uint8"),
        ("pixels", lambda a: a[:0], r"pixels is empty, expected at least one row"),
        ("text_offsets", lambda a: a[:-1], r"text_offsets is int64 \(4,\), expected int64 \(5,\)"),
        ("text_utf8", lambda a: a[:-1], r"text_utf8 is uint8 \(17,\), expected uint8 \(18,\)"),
        ("text_utf8", lambda a: a | 128, r"text_utf8 is not UTF-8: "),
        ("text_offsets", lambda a: a.astype(float), r"text_offsets is float64 \(5,\), expected int64 \(5,\)"),
        ("text_max_abs", lambda a: np.zeros(2, np.float32), r"text_max_abs is float32 \(2,\), expected float32 \(\)"),
    ],
)
def test_golden_values_of_another_shape_are_refused(own: Path, name: str, change: Any, message: str) -> None:
    change_golden(own, **{name: change})
    with pytest.raises(FormatError, match=rf"golden\.npz: {message}"):
        verify(own)


def test_a_tower_without_a_tokenizer_is_replayed_from_golden_ids(own: Path) -> None:
    edit_json(own / "model.json", text__tokenizer=None)
    assert any(line.endswith("there is no tokenizer") and "4 golden texts replayed" in line for line in verify(own))
    change_golden(own, text_embedding=lambda a: -a)
    with pytest.raises(CorruptFile, match="golden text embeddings at cosine -1"):
        verify(own)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE items SET row = 999", "row 999 has an item, but no code; the index has 4 rows"),
        ("UPDATE items SET row = 0 WHERE row = 3", "row 3 has no item; the index has 4 rows"),
        ("UPDATE items SET row = -1 WHERE id = 'red.png'", "row -1 has an item, but no code"),
        ("UPDATE items SET row = 'x'", "row is 'x', expected a value of type int"),
        ("UPDATE items SET width = 3.5 WHERE row = 1", "width is 3.5, expected a value of type int"),
        ("UPDATE items SET uri = x'ff'", "uri is .* expected a value of type str"),
        ("UPDATE items SET uri = CAST(x'ff' AS TEXT)", "cannot be read: Could not decode to UTF-8"),
        ("UPDATE items SET attributes = '[]'", r"attributes are '\[\]', expected a JSON object"),
        ("UPDATE items SET attributes = '{'", r"attributes are '{', expected a JSON object"),
        ("ALTER TABLE items DROP COLUMN width", "cannot be read: no such column: width"),
    ],
)
def test_items_that_do_not_fit_the_rows_or_cannot_be_read_are_refused(
    gallery: Path, statement: str, message: str
) -> None:
    with closing(sqlite3.connect(gallery / "items.sqlite")) as connection, connection:
        connection.execute(statement)
    sign(gallery / "gallery.json")
    with pytest.raises(FormatError, match=rf"items\.sqlite: .*{message}"):
        verify(gallery)


@pytest.fixture
def composing(colours: Path, tmp_path: Path) -> Path:
    """A model with a network and names that a test may change."""
    folder = Path(shutil.copytree(colours, tmp_path / "composing"))
    add_inversion(folder, "lincir", tokens=2)
    add_concepts(folder, ["red", "green", "blue"], np.eye(3, 4, dtype=np.float32))
    return folder


def test_networks_and_names_are_verified_and_described(composing: Path) -> None:
    lines = verify(composing)
    assert lines[-2:] == [f"{composing}: inversion network lincir gives 2 pseudo-token(s)", f"{composing}: 3 names"]
    described = describe(composing)
    assert described["inversion"]["lincir"]["tokens"] == 2
    assert described["concepts"] == {"file": "concepts.npz", "count": 3, "source": "by hand"}
    manifest = tower_manifest(composing, "text")
    assert manifest is not None and list(manifest.inversion) == ["lincir"]


def test_a_network_that_gives_no_numbers_is_found(composing: Path) -> None:
    path = composing / "inversion" / "lincir.onnx"
    graph = onnx.load(str(path))
    matrix = next(tensor for tensor in graph.graph.initializer if tensor.name == "matrix")
    matrix.CopyFrom(onnx.numpy_helper.from_array(np.full((4, 8), np.nan, dtype=np.float32), "matrix"))
    onnx.save(graph, str(path))
    sign(composing / "model.json")
    with pytest.raises(FormatError, match=r"lincir\.onnx gives NaN or infinity for a unit vector"):
        verify(composing)


def test_another_number_of_names_is_found(composing: Path) -> None:
    edit_json(composing / "model.json", concepts__count=4)
    with pytest.raises(FormatError, match=r"concepts\.npz holds 3 names, expected 4"):
        verify(composing)


@pytest.mark.parametrize("name", ["inversion/lincir.onnx", "inversion/lincir.md", "concepts.npz"])
def test_a_damaged_file_of_a_network_or_of_names_is_found(composing: Path, name: str) -> None:
    flip(composing / name, 3)
    with pytest.raises(CorruptFile, match=f"{re.escape(name)} is damaged"):
        verify(composing)
