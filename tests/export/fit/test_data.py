from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens.codes import to_units
from pocketlens.encoder import ImageEncoder
from pocketlens.errors import EncoderMismatch, FormatError, MissingPart
from pocketlens.files import sha256_of
from pocketlens.model import Model
from pocketlens_export.fit.data import held_out, read_data, read_texts
from tests.folders import edit_json


def ignore(stage: str, done: int, total: int) -> None:
    pass


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.txt", b"\xef\xbb\xbf# comment\n\n  a  red\tdog \r\nsnow\n", ["a red dog", "snow"]),
        ("a.txt", b"\xef\xbb\xbfred\n\xef\xbb\xbf# comment\nblue \xef\xbb\xbf\n\xef\xbb\xbf\n", ["red", "blue"]),
        ("a.tsv", b"a dog\tx.png\n\ty.png\n# no\tz\ncat", ["a dog", "cat"]),
        ("a.txt.gz", b"a dog\ncat\n", ["a dog", "cat"]),
        ("a.TSV.GZ", b"a dog\t1\n", ["a dog"]),
    ],
)
def test_texts(tmp_path: Path, name: str, content: bytes, texts: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    assert read_texts(path) == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a dog", r"neither a folder nor a file of texts; expected \.txt"),
        ("a.txt", b"a dog\n\xff\xfe\n", r"a\.txt: line 2 is not UTF-8"),
        ("a.txt", b"# nothing\n\n", "holds no text"),
        ("a.txt", b"a dog\nc\0at\n", "line 2 holds NUL"),
        ("a.txt", b"x\n" + b"y" * 4_097, "line 2 has 4097 characters, expected at most 4096"),
    ],
)
def test_files_that_do_not_do(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_texts(write(tmp_path / name, content))


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"a dog\n" * 100, mtime=0)[:-12]])
def test_broken_gzip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(FormatError, match="cannot be read"):
        read_texts(tmp_path / "a.txt.gz")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"none\.txt cannot be read"):
        read_texts(tmp_path / "none.txt")


@given(st.lists(st.binary(max_size=8), max_size=60, unique=True))
def test_a_part_of_every_set_is_held_out(contents: list[bytes]) -> None:
    out = held_out(contents)
    assert len(out) == len(contents)
    if len(contents) > 1:
        assert out.any() and not out.all()


def test_a_text_stays_on_its_side() -> None:
    contents = [f"text {i}".encode() for i in range(4_000)]
    whole = held_out(contents)
    assert 140 < whole.sum() < 260  # 200 on average
    assert (held_out(contents[1_000:3_000]) == whole[1_000:3_000]).all()


def test_sides_are_disjoint_and_copies_counted_once(tmp_path: Path, colours: Path) -> None:
    texts = [f"text {i}" for i in range(100)]
    first = write(tmp_path / "a.txt", "\n".join(texts).encode())
    (tmp_path / "more").mkdir()
    second = write(tmp_path / "more" / "a.txt", b"text 5\ntext new\n")
    data = read_data([first, second], Model.open(colours), progress=ignore)
    assert sorted([*data.texts, *data.held_texts]) == sorted([*texts, "text new"])
    assert data.held_texts
    assert data.sha256 == {"a.txt": sha256_of(first), "a.txt (2)": sha256_of(second)}
    assert data.pictures.shape == data.held_pictures.shape == (0, 4)


def test_pictures_of_a_folder(colours: Path, pictures: Path) -> None:
    told: list[tuple[str, int, int]] = []
    data = read_data([pictures], Model.open(colours), progress=lambda *stage: told.append(stage))
    assert told[-1] == (f"encoding {pictures.name}", 7, 7)
    found = np.concatenate([data.pictures, data.held_pictures])
    paths = [pictures / f"{name}.png" for name in ("red", "green", "blue", "white")]
    expected = ImageEncoder(Model.open(colours)).encode(paths)
    assert len(found) == 4  # the copy of the red one is left out
    assert np.sort(np.argmax(expected @ found.T, axis=1)).tolist() == [0, 1, 2, 3]
    assert list(data.sha256) == [pictures.name]


@pytest.mark.parametrize("part", ["", "gallery"])
def test_vectors_of_a_gallery(colours: Path, bundle: Path, part: str) -> None:
    data = read_data([bundle / part], Model.open(colours), progress=ignore)
    found = np.concatenate([data.pictures, data.held_pictures])
    assert len(found) == 4
    np.testing.assert_allclose(found, to_units(found), atol=1e-3)


def test_gallery_of_another_space(tmp_path: Path, colours: Path, bundle: Path) -> None:
    other = shutil.copytree(colours, tmp_path / "model")
    edit_json(other / "model.json", space__id="other@" + "0" * 64)
    with pytest.raises(EncoderMismatch, match="expected the model's, other@"):
        read_data([bundle], Model.open(other), progress=ignore)


def test_folder_without_pictures(tmp_path: Path, colours: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="no picture that can be read, and is no gallery"):
        read_data([tmp_path / "empty"], Model.open(colours), progress=ignore)


def test_pictures_need_an_image_tower(bundle: Path, pictures: Path) -> None:
    with pytest.raises(MissingPart, match="no image tower"):
        read_data([pictures], Model.open(bundle / "text"), progress=ignore)


def test_texts_that_are_cleaned_to_one_are_on_one_side(tmp_path: Path, colours: Path) -> None:
    texts = [f"text {i}" for i in range(200)]
    spellings = [*texts, *(text.title() for text in texts), *(f"$ {text}" for text in texts), "$", "$ $"]
    data = read_data([write(tmp_path / "a.txt", "\n".join(spellings).encode())], Model.open(colours), progress=ignore)
    assert sorted([*data.texts, *data.held_texts]) == sorted(texts)
    again = read_data(
        [write(tmp_path / "b.txt", "\n".join(spellings[200:]).encode())], Model.open(colours), progress=ignore
    )
    assert set(again.held_texts) == set(data.held_texts)
