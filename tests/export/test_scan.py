from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pocketlens.decoders import SERVER
from pocketlens.errors import FormatError
from pocketlens.model import PictureSpec
from pocketlens_export.gallery.scan import Loaded, Skipped, list_files, load_all

SPEC = PictureSpec("image.onnx", "float32", opset=18, side=8, mode="shortest", interpolation="bilinear", features=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One picture and one of everything that is none."""
    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (30, 20), "red").save(tmp_path / "pictures" / "sub" / "red.png")
    Image.new("RGB", (30, 20), "blue").save(tmp_path / "elsewhere" / "blue.png")
    for name in ("notes.txt", "photo.heic", ".hidden.png", "broken.jpg"):
        (tmp_path / "pictures" / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pictures" / "pipe.jpg")
    (tmp_path / "pictures" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pictures" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for name in ("bundle.json", "gallery/gallery.json", "gallery/a.png"):  # an older result inside the pictures
        path = tmp_path / "pictures" / "old-bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "pictures"


def test_every_file_has_one_outcome_in_order(folder: Path) -> None:
    outcomes = list(load_all(folder, list_files(folder), SPEC, ahead=2))
    assert [(outcome.id, getattr(outcome, "reason", None)) for outcome in outcomes] == [
        ("broken.jpg", "unsupported format"),
        ("gone.png", "unreadable"),
        ("linked", "linked folder"),
        ("notes.txt", "not a picture"),
        ("photo.heic", "unsupported format"),
        ("pipe.jpg", "unreadable"),
        ("sub/red.png", None),
    ]


def test_a_loaded_picture_has_its_size_and_pixels(folder: Path) -> None:
    loaded = [outcome for outcome in load_all(folder, list_files(folder), SPEC) if isinstance(outcome, Loaded)]
    assert (loaded[0].width, loaded[0].height) == (30, 20)
    assert loaded[0].pixels.shape == (8, 8, 3)
    assert loaded[0].pixels[0, 0].tolist() == [255, 0, 0]


def test_a_large_file_and_a_name_that_is_no_text_are_skipped(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "large.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    limits = replace(SERVER, file_bytes=10)
    outcomes = list(load_all(tmp_path, list_files(tmp_path), SPEC, limits=limits))
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Skipped)] == ["too large", "name is not text"]


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected a folder of pictures"):
        list_files(tmp_path / "missing")
