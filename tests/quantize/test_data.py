from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketlens.errors import FormatError
from pocketlens.model import PictureSpec
from pocketlens.picture import load_pixels
from pocketlens_quantize import data
from pocketlens_quantize.data import PictureSet, PictureSplit, TextSet, read_pictures, read_texts
from pocketlens_quantize.queries import sample_queries

SPEC = PictureSpec("image.onnx", "float32", 18, side=2, mode="squash", interpolation="bilinear", features=None)


def silent(_: str) -> None:
    raise AssertionError("nothing was to be reported")


def draw(path: Path, number: int) -> Path:
    """Write a picture of one colour; pictures of different numbers differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 3), (number % 256, number // 256, 90)).save(path)
    return path


def draw_all(folder: Path, numbers: range) -> Path:
    for number in numbers:
        draw(folder / f"{number % 3}" / f"{number}.png", number)
    return folder


def hashes(pictures: PictureSet) -> list[str]:
    return [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in pictures.pixels]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """131 different pictures; read-only."""
    return draw_all(tmp_path_factory.mktemp("many"), range(131))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three a side are enough, and five are the most."""
    monkeypatch.setattr(data, "MIN_A_SIDE", 3)
    monkeypatch.setattr(data, "MAX_PICTURES", 5)
    monkeypatch.setattr(data, "MAX_TEXTS", 5)


def test_one_folder_is_split_in_halves_by_hash(many: Path) -> None:
    split = read_pictures(many, None, SPEC, silent)
    assert (len(split.calibration.names), len(split.measuring.names)) == (65, 66)
    together = hashes(split.calibration) + hashes(split.measuring)
    assert together == sorted(set(together))
    assert split.unreadable == 0


def test_pixels_belong_to_their_names(many: Path) -> None:
    measuring = read_pictures(many, None, SPEC, silent).measuring
    assert measuring.pixels.dtype == np.uint8
    assert measuring.pixels.shape == (66, 2, 2, 3)
    for name, pixels in zip(measuring.names, measuring.pixels, strict=True):
        np.testing.assert_array_equal(pixels, load_pixels(many / name, SPEC))
    assert any("/" in name for name in measuring.names)


@given(st.lists(st.integers(0, 30), min_size=6, max_size=24), st.randoms())
@settings(max_examples=25, deadline=None)
def test_a_side_depends_on_pixels_alone(numbers: list[int], chance: random.Random) -> None:
    if len(set(numbers)) < 6:
        numbers = [*numbers, *range(6)]
    sides = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "MIN_A_SIDE", 3)
        patch.setattr(data, "MAX_PICTURES", 5)
        for _ in range(2):
            with TemporaryDirectory() as folder:
                chance.shuffle(numbers)
                for name, number in enumerate(numbers):
                    draw(Path(folder, f"{name}.png"), number)
                split = read_pictures(Path(folder), None, SPEC, silent)
            sides.append((hashes(split.calibration), hashes(split.measuring)))
    assert sides[0] == sides[1]
    calibration, measuring = sides[0]
    expected = {
        hashlib.sha256(np.full((2, 2, 3), (number, 0, 90), dtype=np.uint8).tobytes()).hexdigest() for number in numbers
    }
    assert calibration + measuring == sorted(expected)[:10]
    assert 0 <= len(measuring) - len(calibration) <= 1


@pytest.mark.usefixtures("small")
def test_a_folder_each_is_taken_whole_up_to_the_most(tmp_path: Path) -> None:
    calibration = draw_all(tmp_path / "calibration", range(4))
    measuring = draw_all(tmp_path / "measuring", range(4, 13))
    split = read_pictures(calibration, measuring, SPEC, silent)
    assert sorted(split.calibration.names) == ["0/0.png", "0/3.png", "1/1.png", "2/2.png"]
    pixels = [load_pixels(path, SPEC) for path in measuring.rglob("*.png")]
    assert hashes(split.measuring) == sorted(hashlib.sha256(picture.tobytes()).hexdigest() for picture in pixels)[:5]


@pytest.mark.usefixtures("small")
def test_copies_are_kept_once_under_their_first_name(tmp_path: Path) -> None:
    draw_all(tmp_path, range(6))
    draw(tmp_path / "0" / "00.png", 5)  # the pixels of 2/5.png
    split = read_pictures(tmp_path, None, SPEC, silent)
    names = {*split.calibration.names, *split.measuring.names}
    assert names == {"0/0.png", "0/00.png", "0/3.png", "1/1.png", "1/4.png", "2/2.png"}


@pytest.mark.usefixtures("small")
def test_what_is_hidden_or_no_picture_is_passed_over(tmp_path: Path) -> None:
    draw_all(tmp_path, range(6))
    draw(tmp_path / ".hidden.png", 7)
    draw(tmp_path / ".thumbnails" / "8.png", 8)
    draw(tmp_path / "9.JPG", 9)
    (tmp_path / "notes.txt").write_text("no picture")
    split = read_pictures(tmp_path, None, SPEC, silent)
    names = {*split.calibration.names, *split.measuring.names}
    assert names == {"0/0.png", "0/3.png", "1/1.png", "1/4.png", "2/2.png", "2/5.png", "9.JPG"}


@pytest.mark.usefixtures("small")
def test_unreadable_pictures_are_reported_and_counted(tmp_path: Path) -> None:
    calibration = draw_all(tmp_path / "calibration", range(3))
    measuring = draw_all(tmp_path / "measuring", range(3, 6))
    (calibration / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (calibration / "gone.png").symlink_to(tmp_path / "nowhere")
    Path(os.fsdecode(os.fsencode(measuring) + b"/\xff.png")).write_bytes((measuring / "0" / "3.png").read_bytes())
    lines: list[str] = []
    assert read_pictures(calibration, measuring, SPEC, lines.append).unreadable == 3
    assert [line.replace(str(tmp_path), "…") for line in lines] == [
        "…/calibration/broken.jpg: cannot be read as a picture: its first bytes promise a picture that does not follow",
        "…/calibration/gone.png: cannot be read as a picture: not a regular file",
        "…/measuring/?.png: cannot be read as a picture: its name is not valid UTF-8",
    ]


def test_the_sha256_of_a_set_is_that_of_its_pixels_in_any_order(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    found = PictureSet(("a", "b", "c"), pixels).sha256
    digests = sorted(hashlib.sha256(picture.tobytes()).digest() for picture in pixels)
    assert found == hashlib.sha256(b"".join(digests)).hexdigest()
    assert PictureSet(("d", "e", "f"), pixels[[2, 0, 1]]).sha256 == found
    assert PictureSet(("a", "b", "c"), 255 - pixels).sha256 != found
    assert PictureSet(("a", "b"), pixels[:2]).sha256 != found


def test_a_missing_folder_is_named(tmp_path: Path, many: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere is not a folder; expected a folder of pictures"):
        read_pictures(many, tmp_path / "nowhere", SPEC, silent)


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(FormatError, match=r"holds no pictures: found 1 other files, expected \.jpeg, .*\.webp"):
        read_pictures(tmp_path, None, SPEC, silent)


def test_127_pictures_are_too_few_for_one_folder(tmp_path: Path) -> None:
    draw_all(tmp_path, range(127))
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    lines: list[str] = []
    expected = (
        r"found 127 different readable pictures \(1 unreadable\), "
        r"expected at least 128: 64 that calibrate and 64 that measure, or a folder for each"
    )
    with pytest.raises(FormatError, match=expected):
        read_pictures(tmp_path, None, SPEC, lines.append)
    draw(tmp_path / "last.png", 127)
    split = read_pictures(tmp_path, None, SPEC, lines.append)
    assert (len(split.calibration.names), len(split.measuring.names)) == (64, 64)


@pytest.mark.parametrize(("steering", "proving", "role"), [(63, 64, "calibrate"), (64, 63, "measure")])
def test_63_pictures_are_too_few_for_a_side(tmp_path: Path, steering: int, proving: int, role: str) -> None:
    calibration = draw_all(tmp_path / "calibration", range(steering))
    measuring = draw_all(tmp_path / "measuring", range(200, 200 + proving))
    expected = rf"found 63 different readable pictures \(0 unreadable\), expected at least 64 that {role}$"
    with pytest.raises(FormatError, match=expected):
        read_pictures(calibration, measuring, SPEC, silent)


@pytest.mark.usefixtures("small")
def test_a_picture_in_both_folders_is_refused_even_beyond_the_most(tmp_path: Path) -> None:
    calibration = draw_all(tmp_path / "calibration", range(20))
    measuring = draw_all(tmp_path / "measuring", range(18, 40))
    expected = (
        r"calibration and measuring pictures must be disjoint: found 2 with the same pixels in both folders, "
        r"such as .*calibration/(0/18|1/19)\.png and .*measuring/\1\.png$"
    )
    with pytest.raises(FormatError, match=expected):
        read_pictures(calibration, measuring, SPEC, silent)


def write(tmp_path: Path, lines: list[str], start: bytes = b"") -> Path:
    file = tmp_path / "texts.tsv"
    file.write_bytes(start + "\n".join(lines).encode())
    return file


def contents(texts: TextSet) -> dict[str, tuple[str, ...]]:
    return dict(zip(texts.texts, texts.pictures, strict=True))


LINES = st.tuples(st.sampled_from("abcdefghijklmnop"), st.sampled_from(["", "\tx.png", "\tmore/y.png", "\t"]))


@given(st.lists(LINES, min_size=6, max_size=40), st.randoms())
@settings(max_examples=50, deadline=None)
def test_texts_are_split_in_halves_by_hash(lines: list[tuple[str, str]], chance: random.Random) -> None:
    lines += [(letter, "") for letter in "uvwxyz"]
    expected: dict[str, set[str]] = {}
    for text, label in lines:
        expected.setdefault(text, set()).update([label.strip()] if label.strip() else [])
    splits = []
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(data, "MIN_A_SIDE", 3)
        patch.setattr(data, "MAX_TEXTS", 5)
        for _ in range(2):
            chance.shuffle(lines)
            splits.append(read_texts(write(Path(folder), ["".join(line) for line in lines]), None))
    assert splits[0] == splits[1]
    calibration, measuring = splits[0].calibration, splits[0].measuring
    order = sorted(expected, key=lambda text: hashlib.sha256(text.encode()).digest())[:10]
    assert [*calibration.texts, *measuring.texts] == order
    assert 0 <= len(measuring.texts) - len(calibration.texts) <= 1
    for text, pictures in (contents(calibration) | contents(measuring)).items():
        assert pictures == tuple(sorted(expected[text]))


@pytest.mark.usefixtures("small")
def test_white_space_blank_lines_and_a_byte_order_mark_do_not_count(tmp_path: Path) -> None:
    lines = ["  red   car \r", "", " \t ", "red car\t a b.png ", "été", "c", "d", "e", "f\u2028g"]
    split = read_texts(write(tmp_path, lines, start=b"\xef\xbb\xbf"), None)
    found = contents(split.calibration) | contents(split.measuring)
    assert found == {"red car": ("a b.png",), "été": (), "c": (), "d": (), "e": (), "f g": ()}


@pytest.mark.usefixtures("small")
def test_the_pictures_of_a_text_are_sorted_and_named_once(tmp_path: Path) -> None:
    names = [f"{letter}.png" for letter in "hbdgacfeab"]
    split = read_texts(write(tmp_path, [*(f"red\t{name}" for name in names), *"abcde"]), None)
    found = contents(split.calibration) | contents(split.measuring)
    assert found["red"] == tuple(f"{letter}.png" for letter in "abcdefgh")


def placed(calibration: str, measuring: str) -> PictureSplit:
    """Return a split of pictures that are named by letters."""
    sides = [
        PictureSet(tuple(f"{letter}.png" for letter in side), np.zeros((len(side), 1, 1, 3), np.uint8))
        for side in (calibration, measuring)
    ]
    return PictureSplit(sides[0], sides[1], unreadable=0)


@pytest.mark.usefixtures("small")
def test_a_text_goes_to_the_side_of_its_first_picture_that_lies_on_one(tmp_path: Path) -> None:
    lines = [f"{side} {number}\t{side}.png" for side in "am" for number in range(2)]
    lines += ["both\ta.png", "both\tm.png", "late\tabsent.png", "late\tm.png", *(f"free {n}" for n in range(4))]
    split = read_texts(write(tmp_path, lines), placed("a", "m"))
    calibration, measuring = contents(split.calibration), contents(split.measuring)
    assert {"a 0", "a 1", "both"} <= set(calibration) and {"m 0", "m 1", "late"} <= set(measuring)
    assert len(calibration) == len(measuring) == 5  # the free ones, half each
    assert measuring["late"] == ("absent.png", "m.png")


@pytest.mark.usefixtures("small")
def test_labels_of_which_none_is_a_picture_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, ["red\tx.png", "blue\tw.png", *"abcdefgh"])
    expected = r"texts\.tsv: none of its pictures is among those read, for example 'w\.png'; paths are relative"
    with pytest.raises(FormatError, match=expected):
        read_texts(file, placed("a", "m"))
    assert len(read_texts(file, None).measuring.texts) == 5  # without an image tower labels do not count


def test_without_a_file_there_are_built_in_queries() -> None:
    split = read_texts(None, None)
    assert sorted([*split.calibration.texts, *split.measuring.texts]) == sorted(sample_queries(512))
    assert len(split.calibration.texts) == len(split.measuring.texts) == 256
    assert set(split.calibration.pictures) == {()}


def test_built_in_queries_are_read_alike_from_a_file(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, sample_queries(512)), None) == read_texts(None, None)


def test_a_side_has_a_thousand_texts_at_most(tmp_path: Path) -> None:
    split = read_texts(write(tmp_path, [f"text {number}" for number in range(2_100)]), None)
    assert len(split.calibration.texts) == len(split.measuring.texts) == 1_000


def test_127_texts_are_too_few(tmp_path: Path) -> None:
    expected = r"texts.tsv: found 127 different texts, expected at least 128: 64 that calibrate and 64 that measure"
    with pytest.raises(FormatError, match=expected):
        read_texts(write(tmp_path, [f"text {number % 127}" for number in range(300)]), None)
    split = read_texts(write(tmp_path, [f"text {number}" for number in range(128)]), None)
    assert len(split.calibration.texts) == len(split.measuring.texts) == 64


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a\tb.png\tc.png", "line 3: found 2 tabs, expected a query, or a query, a tab and a picture"),
        ("a" * 10_001, "line 3: found 10001 characters, expected at most 10000"),
        (" \ta.png", "line 3: found nothing before the tab, expected a query"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(FormatError, match=rf"texts\.tsv, {expected}"):
        read_texts(write(tmp_path, ["one", "", line]), None)


def test_the_longest_text_is_taken(tmp_path: Path) -> None:
    longest = "a" * 10_000
    split = read_texts(write(tmp_path, [longest, *(f"text {number}" for number in range(127))]), None)
    assert longest in {*split.calibration.texts, *split.measuring.texts}


def test_a_line_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "texts.tsv"
    file.write_bytes("été\nété\n".encode() + "été\n".encode("latin-1"))
    with pytest.raises(FormatError, match=r"texts\.tsv, line 3: 0xe9 is not UTF-8"):
        read_texts(file, None)


@pytest.mark.parametrize(("name", "reason"), [("nowhere", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(FormatError, match=rf"cannot be read: {reason}; expected a file of one query a line"):
        read_texts(tmp_path / name, None)
