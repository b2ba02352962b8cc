from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from pocketlens.decoders import SERVER, with_formats
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


def test_more_formats_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    for name in ("a.gif", "b.bmp", "c.tif", "d.png"):
        Image.new("RGB", (30, 20), "red").save(tmp_path / name)
    (tmp_path / "e.gif").write_bytes((tmp_path / "b.bmp").read_bytes())  # the content counts

    def outcomes(*formats: str) -> list[str | None]:
        limits = with_formats(SERVER, formats)
        return [getattr(one, "reason", None) for one in load_all(tmp_path, list_files(tmp_path), SPEC, limits=limits)]

    no = "unsupported format"
    assert outcomes() == [no, no, no, None, no]
    assert outcomes("gif", "TIFF") == [None, no, None, None, no]
    assert outcomes("gif", "bmp") == [None, None, no, None, None]
    first = next(load_all(tmp_path, list_files(tmp_path), SPEC))
    assert isinstance(first, Skipped) and first.detail == ".gif is read with --formats gif"


def test_what_is_recorded_is_of_the_file_and_the_whole_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:07:31 18:30:00"
    Image.new("RGB", (400, 300), "red").save(tmp_path / "a.jpg", exif=exif)  # 12 times the side and more: it is reduced
    (loaded,) = load_all(tmp_path, list_files(tmp_path), SPEC)
    assert isinstance(loaded, Loaded)
    assert (loaded.width, loaded.height, loaded.taken) == (300, 400, "2024:07:31 18:30:00")
    assert loaded.size_bytes == (tmp_path / "a.jpg").stat().st_size
