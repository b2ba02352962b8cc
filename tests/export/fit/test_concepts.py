from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketlens._types import Float32s
from pocketlens.concepts import read_concepts
from pocketlens.encoder import TextEncoder
from pocketlens.errors import EncoderMismatch, FormatError, MissingPart, Refused
from pocketlens.inspect import verify
from pocketlens.model import Model, Space
from pocketlens_export.fit.concepts import (
    CONTRAST,
    Request,
    check_codes,
    contrastive_subspace,
    fit_concepts,
    read_names,
    to_scaled_codes,
)
from pocketlens_export.fit.data import read_texts
from tests.colours import write_colours
from tests.folders import edit_json


def ignore(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("# colours\nred\ngreen\nblue\nred\nwhite\nred  green\nblüe\n", encoding="utf-8")
    return path


def fit(folder: Path, names: Path, out: Path, *, into: Path | None = None, contrast: Path = CONTRAST) -> Path:
    model = Model.open(folder)
    request = Request(model, Model.open(into) if into else model, names, contrast, "by hand", 1)
    fit_concepts(request, out, replace=False, progress=ignore)
    return out


def test_a_folder_with_a_vocabulary(tmp_path: Path, colours: Path, names: Path) -> None:
    out = fit(colours, names, tmp_path / "out")
    made = Model.open(out)
    vocabulary = made.manifest.concepts
    assert vocabulary is not None
    assert (vocabulary.count, vocabulary.source, vocabulary.file) == (6, "by hand", "concepts.npz")
    found = read_concepts(made.file(vocabulary.file), 4)
    assert found.names == ("red", "green", "blue", "white", "red green", "blüe")
    expected = TextEncoder(Model.open(colours)).encode(list(found.names))
    np.testing.assert_allclose(found.vectors, expected, atol=1 / 254)
    np.testing.assert_allclose(found.subspace @ found.subspace.T, np.eye(len(found.subspace)), atol=1e-6)
    assert made.manifest.quality["concepts_mean_cosine"] > 0.999
    assert set(Model.open(colours).manifest.files) < set(made.manifest.files)
    assert verify(out)


def test_the_same_names_give_the_same_bytes(tmp_path: Path, colours: Path, names: Path) -> None:
    files = [fit(colours, names, tmp_path / name) / "concepts.npz" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_subspace_in_another_way() -> None:
    """Names differ along two axes, the contrast along one of them and a third: the other one is left."""
    rng = np.random.default_rng(0)
    a = np.zeros((400, 5), dtype=np.float32)
    a[:, 0], a[:, 1] = 0.3 * rng.standard_normal(400), 0.2 * rng.standard_normal(400)
    b = np.zeros((300, 5), dtype=np.float32)
    b[:, 1], b[:, 2] = rng.standard_normal(300), rng.standard_normal(300)
    found = contrastive_subspace(a, b)
    assert found.shape == (1, 5) and found.dtype == np.float32
    assert abs(found[0, 0]) > 0.99


def test_subspace_by_definition(rng: np.random.Generator) -> None:
    a: Float32s = rng.standard_normal((60, 12)).astype(np.float32)
    b: Float32s = (rng.standard_normal((30, 12)) * np.linspace(0.1, 4, 12)).astype(np.float32)
    found = contrastive_subspace(a, b).astype(np.float64)
    mean = a.astype(np.float64).mean(axis=0)
    c = 0.8 * np.cov(a.astype(np.float64).T) - 0.2 * sum(np.outer(row - mean, row - mean) for row in b) / 29
    values = np.array([row @ c @ row for row in found])
    np.testing.assert_allclose(c @ found.T, found.T * values, atol=1e-5)  # eigenvectors
    assert (values > 0).all() and (np.diff(values) <= 1e-9).all()
    assert len(found) == (np.linalg.eigvals(c).real > 0).sum()


def test_at_most_250_directions(rng: np.random.Generator) -> None:
    a: Float32s = rng.standard_normal((700, 300)).astype(np.float32)
    assert contrastive_subspace(a, np.zeros((2, 300), dtype=np.float32)).shape == (250, 300)


def test_codes_are_rounded_and_checked() -> None:
    vectors = np.array([[0.35, -0.8, 0.0], [1.0, 0.001, 0.0]], dtype=np.float32)
    codes, scales = to_scaled_codes(vectors)
    assert codes.tolist() == [[56, -127, 0], [127, 0, 0]]
    assert scales.tolist() == pytest.approx([0.8 / 127, 1 / 127])
    assert check_codes(vectors, codes, scales) > 0.9999
    with pytest.raises(Refused, match=r"mean cosine of 0\.\d+ to their vectors"):
        check_codes(vectors, codes[:, ::-1], scales)


def test_the_built_in_contrast_can_be_read() -> None:
    texts = read_texts(CONTRAST)
    assert len(set(texts)) == len(texts) > 140


@pytest.mark.parametrize("content", ["", "# nothing\n\n"])
def test_no_names(tmp_path: Path, colours: Path, names: Path, content: str) -> None:
    names.write_text(content)
    with pytest.raises(FormatError, match=r"names\.txt holds no text"):
        fit(colours, names, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_that_do_not_do(tmp_path: Path, colours: Path, bundle: Path, names: Path) -> None:
    other = write_colours(tmp_path / "other", space=Space("other@" + "0" * 64, 4))
    with pytest.raises(EncoderMismatch, match="is of space other@"):
        fit(colours, names, tmp_path / "out", into=other)
    with pytest.raises(MissingPart, match="no text tower"):
        fit(colours, names, tmp_path / "out", into=bundle / "image")
    with pytest.raises(MissingPart, match="no text tower"):
        fit(bundle / "image", names, tmp_path / "out", into=colours)
    with pytest.raises(FormatError, match="exists already"):
        fit(colours, names, other)


def test_rounding_gives_no_direction(rng: np.random.Generator) -> None:
    contrast: Float32s = rng.standard_normal((5, 12)).astype(np.float32)  # leaves directions untouched
    name = rng.standard_normal((1, 12))
    assert contrastive_subspace(name.astype(np.float32), contrast).shape == (0, 12)
    alike = (name + 1e-7 * rng.standard_normal((5, 12))).astype(np.float32)
    assert contrastive_subspace(alike, contrast).shape == (0, 12)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dog\ndog\n", r"names\.txt holds the name 'dog' alone; expected two or more"),
        ("dog\n\u200b\ncat\n", r"names\.txt: line 2 is '\\u200b', of which the model reads nothing"),
        ("dog\n&nbsp;\ncat\n", r"names\.txt: line 2 is '&nbsp;'"),
        ("# of things\ndog\nc\0t\n", r"names\.txt: line 3 holds NUL"),
    ],
)
def test_names_that_do_not_do(tmp_path: Path, colours: Path, names: Path, content: str, message: str) -> None:
    names.write_text(content, encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        fit(colours, names, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_may_be_a_sign_or_not_as_the_model_reads(tmp_path: Path, colours: Path, names: Path) -> None:
    names.write_text("dog\n!?\n")
    assert read_names(names, Model.open(colours)) == ["dog", "!?"]
    other = shutil.copytree(colours, tmp_path / "other")
    edit_json(other / "model.json", text__clean="canonicalize")
    with pytest.raises(FormatError, match=r"line 2 is '!\?', of which"):
        read_names(names, Model.open(other))
