"""`--same`: pictures of one thing are drawn to each other's vectors, worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketlens.errors import FormatError
from pocketlens_export.architecture import Preprocessing
from pocketlens_export.distill.learning import Learning, Student
from pocketlens_export.distill.recipes import DISTILLATIONS
from pocketlens_export.distill.reinforced import ReinforcedSet
from pocketlens_export.distill.same import read_same
from pocketlens_export.embeddings import Embeddings
from pocketlens_export.fit.recipe import check_values
from pocketlens_export.split import Split

X, Y, Z, NONE = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0))
IDS = ("a/cat.png", "b/cat.png", "c/cat.png", "a/dog.png", "b/dog.png", "a/ant.png")
VECTORS = np.array([X, Y, Z, X, Y, Z], dtype=np.float32)
TABLE = "file,thing\na/cat.png,cat\nb/cat.png,cat\nc/cat.png,cat\na/dog.png,dog\nb/dog.png,dog\na/ant.png,ant\n"
ROWS = np.arange(6)
HALF = math.sqrt(0.5)


def embeddings() -> Embeddings:
    return Embeddings(VECTORS, IDS, tuple(f"{row:064x}" for row in range(6)), tuple(map(Path, IDS)), 0, {})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "same.csv"
    path.write_text(TABLE)
    return path


def test_others_are_the_rest_of_the_thing(table: Path) -> None:
    others = read_same(table, embeddings(), ROWS, pull=0.5)
    expected = [(0, HALF, HALF), (HALF, 0, HALF), (HALF, HALF, 0), Y, X, NONE]
    np.testing.assert_allclose(others.means, expected, atol=1e-6)
    assert others.count == 5


def test_nothing_is_learnt_from_pictures_that_are_not_trained_on(table: Path) -> None:
    """Row 2 is held out: it is in nobody's mean, and is itself drawn to those that are trained on. So for dogs."""
    others = read_same(table, embeddings(), np.array([0, 1, 3]), pull=0.5)
    np.testing.assert_allclose(others.means, [Y, X, (HALF, HALF, 0), NONE, X, NONE], atol=1e-6)


def test_a_vector_is_drawn_as_far_as_pull_says(table: Path) -> None:
    others = read_same(table, embeddings(), ROWS, pull=0.75)
    drawn = others.draw(VECTORS[[3, 5]], np.array([3, 5]))
    length = math.hypot(0.25, 0.75)
    np.testing.assert_allclose(drawn, [(0.25 / length, 0.75 / length, 0), Z], atol=1e-6)
    np.testing.assert_array_equal(read_same(table, embeddings(), ROWS, pull=0).draw(VECTORS, ROWS), VECTORS)


def test_the_loss_is_that_of_the_drawn_vectors(table: Path) -> None:
    """The tower answers x to everything; |x - target|^2 is 2 - 2 x.target, a mean over the batch."""
    pixels = np.zeros((6, 1, 2, 2, 3), dtype=np.uint8)
    views = ReinforcedSet(pixels, VECTORS[:, np.newaxis].astype(np.float16), "0" * 64)
    linear = nn.Linear(12, 3)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor(X, dtype=torch.float32))
    student = Student(nn.Sequential(nn.Flatten(), linear), Preprocessing(2, "squash", "bicubic", (0, 0, 0), (1, 1, 1)))
    split, chosen = Split(ROWS, ROWS, ROWS), DISTILLATIONS["fitnet"]
    values = check_values(chosen.recipe, {})
    others = read_same(table, embeddings(), ROWS, pull=1.0)
    learning = Learning(student, views, split, chosen, values, batch=6, others=others)
    alone = Learning(student, views, split, chosen, values, batch=6)
    assert learning.loss(ROWS).item() == pytest.approx(np.mean([2, 2 - 2 * HALF, 2 - 2 * HALF, 2, 0, 2]), abs=1e-3)
    assert alone.loss(ROWS).item() == pytest.approx(np.mean([0, 2, 2, 0, 2, 2]), abs=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,name\na/cat.png,cat\n", r"columns \['file', 'name'\], expected file, thing"),
        (b"", "columns None, expected file, thing"),
        (b"\xff\xfe", "cannot be read as a table"),
        (TABLE.encode() + b"b/cat.png,dog\n", "names b/cat.png twice"),
        (b"file,thing\na/cat.png,cat\nb/cat.png,dog\n", "no two pictures of the same thing among 6 .* a/cat.png"),
        (b"file,thing\n/elsewhere/cat.png,cat\n", "such as a/cat.png; its first file is /elsewhere/cat.png"),
    ],
)
def test_a_wrong_table_is_a_format_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "same.csv"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_same(path, embeddings(), ROWS, pull=0.5)
    with pytest.raises(FormatError, match="cannot be read"):
        read_same(tmp_path / "missing.csv", embeddings(), ROWS, pull=0.5)
