from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketlens.contents import Contents
from pocketlens.errors import BadQuery, CorruptFile, FormatError
from pocketlens.filter import parse_filter
from pocketlens.gallery import Counts, Gallery
from pocketlens.gallery_writer import GalleryWriter, write_gallery
from pocketlens.inspect import verify
from pocketlens.items import Item, Items, write_items
from pocketlens.model import Model, Space
from pocketlens_export.gallery.build import build_bundle
from pocketlens_export.gallery.scan import list_files
from tests.colours import unit
from tests.folders import edit_json, files_below, flip, positions, sign
from tests.galleries import item_of

DIM = 8


@pytest.fixture
def vectors(rng: np.random.Generator) -> np.ndarray:
    return unit(rng.standard_normal((30, DIM)) + 1)


def write(folder: Path, vectors: np.ndarray, **options: Any) -> Path:
    folder.mkdir()
    items = [Item(f"{row}.png", row, f"{row}.png", 4, 3, "0" * 64, {"n": row}) for row in range(len(vectors))]
    counts = Counts(len(items), len(items), 0, {})
    write_gallery(folder, vectors, items, space=Space("s@1", DIM), model="m", counts=counts, **options)
    return folder


@pytest.mark.parametrize("rescore", [True, False])
def test_a_written_gallery_is_read_back(tmp_path: Path, vectors: np.ndarray, rescore: bool) -> None:
    gallery = Gallery.open(write(tmp_path / "g", vectors, rescore=rescore))
    assert gallery.manifest.rescore is rescore
    assert gallery.manifest.index.rows == gallery.items.count == 30
    np.testing.assert_allclose(gallery.index.vectors(), vectors, atol=1e-3 if rescore else 2e-2)
    assert gallery.index.search(vectors[:5], k=1).rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert gallery.items.of_row(7) == [Item("7.png", 7, "7.png", 4, 3, "0" * 64, {"n": 7})]
    assert gallery.sample(4).shape == (4, DIM)
    gallery.close()
    assert (tmp_path / "g" / "rescore.f16").exists() is rescore
    verify(tmp_path / "g")


def test_z_scores_are_deviations_from_the_mean_over_the_gallery(tmp_path: Path, vectors: np.ndarray) -> None:
    gallery = Gallery.open(write(tmp_path / "g", vectors))
    query = unit(np.arange(DIM) - 2.0)
    scores = vectors.astype(np.float64) @ query
    expected = (scores - scores.mean()) / scores.std()
    np.testing.assert_allclose(gallery.z_scores(query, scores.astype(np.float32)), expected, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 5])
def test_in_a_gallery_of_like_pictures_no_z_is_large(tmp_path: Path, vectors: np.ndarray, rows: int) -> None:
    gallery = Gallery.open(write(tmp_path / "g", np.repeat(vectors[:1], rows, axis=0)))
    cosines = gallery.index.search(vectors[1:2], k=rows).scores[0]
    assert np.abs(gallery.z_scores(vectors[1], cosines)).max() < 1


@pytest.mark.parametrize("harm", ["empty", "nan", "zero", "wide"])
def test_vectors_that_are_none_are_refused(tmp_path: Path, vectors: np.ndarray, harm: str) -> None:
    bad = {"empty": vectors[:0], "wide": np.ones((2, DIM + 1), dtype=np.float32)}.get(harm, vectors.copy())
    if harm in ("nan", "zero"):
        bad[3] = np.nan if harm == "nan" else 0
    with pytest.raises(BadQuery):
        write(tmp_path / "g", bad)


def test_one_flipped_bit_in_any_file_is_found_at_opening(
    tmp_path: Path, vectors: np.ndarray, rng: np.random.Generator
) -> None:
    folder = write(tmp_path / "g", vectors)
    for name in ("index.usearch", "rescore.f16", "items.sqlite", "stats.npz"):
        size = (folder / name).stat().st_size
        for position in positions(size, rng):
            flip(folder / name, position)
            with pytest.raises(CorruptFile, match=f"{name} is damaged: found sha256"):
                Gallery.open(folder)
            flip(folder / name, position)
    Gallery.open(folder).close()


def _stats(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with np.load(folder / "stats.npz") as stats:
            arrays = {**stats, **changes}
        np.savez(folder / "stats.npz", **{name: value for name, value in arrays.items() if value is not None})

    return change


def _content(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


SIGNED_HARM: dict[str, tuple[Callable[[Path], None], str]] = {
    "rotation too wide": (_stats(rotation=np.eye(9, dtype=np.float32)), r"stats.npz: rotation is float32 \(9, 9\)"),
    "rotation of rank 1": (_stats(rotation=np.ones(DIM, dtype=np.float32)), r"rotation is float32 \(8,\), expected"),
    "rotation float64": (_stats(rotation=np.eye(DIM)), r"rotation is float64 \(8, 8\), expected finite float32 \(8, 8"),
    "rotation missing": (_stats(rotation=None), r"stats.npz is not an .npz file with the arrays rotation, mean, cov"),
    "mean too long": (_stats(mean=np.ones(9, dtype=np.float32)), r"mean is float32 \(9,\), expected .* \(8,\)"),
    "mean NaN": (_stats(mean=np.full(DIM, np.nan, dtype=np.float32)), "mean is .* expected finite"),
    "covariance flat": (_stats(covariance=np.ones(DIM, dtype=np.float32)), r"covariance is float32 \(8,\)"),
    "pickled": (_stats(mean=np.array([{}] * DIM)), r"stats.npz is not an .npz file"),
    "stats garbage": (_content("stats.npz", b"garbage"), r"stats.npz is not an .npz file"),
    "originals short": (_content("rescore.f16", b"\0" * 478), "rescore.f16 has 478 bytes, expected 480 for 30 x 8"),
    "originals long": (_content("rescore.f16", b"\0" * 482), "rescore.f16 has 482 bytes, expected 480 for 30 x 8"),
    "originals empty": (_content("rescore.f16", b""), "rescore.f16 has 0 bytes, expected 480"),
    "codes garbage": (_content("index.usearch", b"garbage" * 99), "index.usearch is not a USearch index"),
    "items garbage": (_content("items.sqlite", b"garbage" * 99), "items.sqlite is not a gallery's item database"),
    "items empty": (_content("items.sqlite", b""), "items.sqlite is not a gallery's item database: no such table"),
}


@pytest.mark.parametrize("name", SIGNED_HARM)
def test_what_has_the_right_hash_but_the_wrong_content_is_a_format_error(
    tmp_path: Path, vectors: np.ndarray, name: str
) -> None:
    folder = write(tmp_path / "g", vectors)
    harm, message = SIGNED_HARM[name]
    harm(folder)
    sign(folder / "gallery.json")
    with pytest.raises(FormatError, match=message):
        Gallery.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments__0__index__rows": 29}, "rescore.f16 has 480 bytes, expected 464 for 29 x 8"),
        ({"segments__0__index__rows": 0}, "gallery.json: segment 0: 0 rows of 8 dimensions"),
        ({"segments__0__index__probes": 0}, "gallery.json: segment 0: 0 probes of 1 partitions, expected 1 to 1"),
        ({"segments__0__index__probes": 2}, "gallery.json: segment 0: 2 probes of 1 partitions, expected 1 to 1"),
        ({"segments__0__index__rows": -1, "space__dim": -240}, "gallery.json: segment 0: -1 rows of -240 dimensions"),
        (
            {"space__dim": 16, "segments__0__index__rows": 15},
            r"rotation is float32 \(8, 8\), expected finite float32 \(16, 16\)",
        ),
        ({"rescore": False}, "gallery.json: files are .* expected "),
        ({"files": {}}, r"gallery.json: files are \[\], expected .*'index.usearch', 'items.sqlite', 'rescore.f16'"),
        (
            {"segments__0__index__kind": "tree"},
            "segments\\[0\\].index.kind is \"tree\", expected one of 'exhaustive', 'partitions'",
        ),
        ({"counts__skipped": {"x": "1"}}, 'counts.skipped.x is "1", expected a value of type int'),
        ({"version": 2}, "version is 2; this pocketlens reads version 1"),
        ({"format": "pocketlens-model"}, "format is 'pocketlens-model', expected 'pocketlens-gallery'"),
    ],
)
def test_a_wrong_manifest_is_a_format_error(
    tmp_path: Path, vectors: np.ndarray, changes: dict[str, Any], message: str
) -> None:
    folder = write(tmp_path / "g", vectors)
    edit_json(folder / "gallery.json", **changes)
    with pytest.raises(FormatError, match=message):
        Gallery.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts__seen": 31}, r"indexed \+ duplicates \+ skipped is 30, expected 31"),
        ({"counts__duplicates": 1, "counts__seen": 31}, "items is 30, expected 31"),
        ({"counts__indexed": 29, "counts__duplicates": 1}, "code rows is 30, expected 29"),
    ],
)
def test_verify_finds_counts_that_do_not_add_up(
    tmp_path: Path, vectors: np.ndarray, changes: dict[str, Any], message: str
) -> None:
    folder = write(tmp_path / "g", vectors)
    edit_json(folder / "gallery.json", **changes)
    with pytest.raises(FormatError, match=f"gallery.json: {message}"):
        verify(folder)


def test_a_name_outside_the_folder_is_never_followed(tmp_path: Path, vectors: np.ndarray) -> None:
    folder = write(tmp_path / "g", vectors)
    (tmp_path / "outside").write_bytes(b"")
    edit_json(folder / "gallery.json", files={"../outside": {"sha256": "", "size_bytes": 0}})
    with pytest.raises(FormatError, match=r"files are \['\.\./outside'\], expected"):
        Gallery.open(folder)


# Items


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    items = [
        Item("ж/ü '\"; DROP TABLE items.png", 1, "u", 10, 20, "ab", {"tags": ["x", None, 1.5], "ж": {"n": True}}),
        Item("b", 0, "v", 1, 2, "cd", {}),
        Item("a", 1, "w", 3, 4, "ab", {}),
    ]
    write_items(tmp_path / "i", items)
    read = Items(tmp_path / "i")
    assert read.count == 3
    assert read.of_row(1) == [items[2], items[0]]  # by id
    assert read.of_row(0) == [items[1]]
    assert read.of_row(2) == []
    read.close()


def test_items_are_opened_for_reading_whatever_the_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "a b%20c?d#e"
    folder.mkdir()
    write_items(folder / "i", [Item("a", 0, "u", 1, 1, "", {})])
    assert Items(folder / "i").of_row(0)[0].id == "a"
    assert files_below(folder) == ["i"]


# Building


def build(pictures: Path, out: Path, colours: Path, **options: Any) -> Counts:
    model = Model.open(colours)
    return build_bundle(pictures, out, model=model, query_model=model, **options)[0]


def test_every_file_is_accounted_for(pictures: Path, colours: Path, tmp_path: Path) -> None:
    counts = build(pictures, tmp_path / "b", colours)
    assert counts == Counts(seen=7, indexed=4, duplicates=1, skipped={"not a picture": 1, "truncated": 1})
    assert Gallery.open(tmp_path / "b" / "gallery").manifest.counts == counts


def test_building_twice_gives_the_same_bytes(bundle: Path, pictures: Path, colours: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "b", colours, threads=1)
    assert files_below(tmp_path / "b") == files_below(bundle)
    for name in files_below(bundle):
        assert (tmp_path / "b" / name).read_bytes() == (bundle / name).read_bytes(), name


def test_more_pictures_than_a_batch_keep_their_order(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for i in range(40):
        Image.new("RGB", (9, 9), (6 * i, 255 - 6 * i, 20)).save(tmp_path / "p" / f"{i:02}.png")
    seen: list[tuple[int, int]] = []
    build(tmp_path / "p", tmp_path / "b", colours, on_progress=lambda done, total: seen.append((done, total)))
    gallery = Gallery.open(tmp_path / "b" / "gallery")
    expected = unit(np.array([[6 * i / 255, 1 - 6 * i / 255, 20 / 255, 0.2] for i in range(40)]))
    np.testing.assert_allclose(gallery.index.vectors(), expected, atol=1e-3)
    assert [gallery.items.of_row(i)[0].id for i in range(40)] == [f"{i:02}.png" for i in range(40)]
    assert seen == [(i, 40) for i in range(1, 41)]


def test_hidden_files_are_left_out_and_the_order_is_that_of_the_paths(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a.png", ".hidden.png", ".git/x.png", "a/.y.png", "A.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path)] == [
        "A.png", "a.png", "a/z.png", "b.png",
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["nothing", "broken", "other files"])
def test_a_folder_without_a_readable_picture_writes_nothing(colours: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "p").mkdir()
    if content != "nothing":
        (tmp_path / "p" / f"a.{'jpg' if content == 'broken' else 'txt'}").write_bytes(b"broken")
    count = 0 if content == "nothing" else 1
    with pytest.raises(FormatError, match=f"p: no picture could be read, of {count} files; nothing was written"):
        build(tmp_path / "p", tmp_path / "b", colours)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("case", ["no folder", "a file", "out exists", "damaged model"])
def test_a_failing_build_leaves_nothing_behind(pictures: Path, colours: Path, tmp_path: Path, case: str) -> None:
    model, source, out = Path(shutil.copytree(colours, tmp_path / "m")), pictures, tmp_path / "b"
    if case == "no folder":
        source = tmp_path / "missing"
    elif case == "a file":
        source = pictures / "red.png"
    elif case == "out exists":
        out = model
    else:
        flip(model / "text.onnx", 50)  # found only when the towers are copied, after all was encoded
    before = files_below(tmp_path)
    with pytest.raises(FormatError):
        build(source, out, model)
    assert files_below(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_replacing_happens_only_on_request_and_only_at_the_end(pictures: Path, colours: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "b", colours)
    old = (tmp_path / "b" / "gallery" / "gallery.json").read_bytes()
    (tmp_path / "p").mkdir()
    with pytest.raises(FormatError, match="no picture could be read"):
        build(tmp_path / "p", tmp_path / "b", colours, replace=True)
    assert (tmp_path / "b" / "gallery" / "gallery.json").read_bytes() == old
    Image.new("RGB", (9, 9), "red").save(tmp_path / "p" / "only.png")
    with pytest.raises(FormatError, match="b exists already"):
        build(tmp_path / "p", tmp_path / "b", colours)
    assert build(tmp_path / "p", tmp_path / "b", colours, replace=True).indexed == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "p"]


def test_the_pictures_themselves_are_never_replaced(pictures: Path, colours: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(pictures, tmp_path / "p"))
    before = files_below(own)
    with pytest.raises(FormatError, match="is no file that pocketlens wrote"):
        build(own, own, colours, replace=True)
    assert files_below(own) == before


# Segments


def of_several(path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, rows: int, threads: int = 1) -> Path:
    """Write a gallery in segments of so many rows, with a copy of the first picture and of the last one."""
    monkeypatch.setattr("pocketlens.gallery_writer.SEGMENT_ROWS", rows)
    path.mkdir()
    last = len(vectors) - 1
    items = [item_of(row) for row in reversed(range(len(vectors)))]
    items += [item_of(0, id="copy of the first", width=50), item_of(last, id="a copy of the last", width=50)]
    counts = Counts(len(items), len(vectors), duplicates=2, skipped={})
    with GalleryWriter(path, space=Space("s@1", DIM), model="m", attributes={}, threads=threads) as writer:
        for start in range(0, len(vectors), 7):
            writer.add(vectors[start : start + 7])
        writer.finish(items, counts=counts)
    return path


@pytest.mark.parametrize("rows", [1, 4, 7, 15, 29])
def test_a_gallery_of_several_segments_is_as_one(
    tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    several = Gallery.open(of_several(tmp_path / "several", vectors, monkeypatch, rows))
    whole = Gallery.open(of_several(tmp_path / "whole", vectors, monkeypatch, 1_000))
    assert len(several.manifest.segments) == -(-30 // rows)
    assert verify(tmp_path / "several")
    assert several.items.read_all() == whole.items.read_all()
    assert [several.items.of_row(row) for row in (0, 29)] == [whole.items.of_row(row) for row in (0, 29)]
    assert several.items.find("a copy of the last") == whole.items.find("a copy of the last")
    np.testing.assert_array_equal(several.mean, whole.mean)
    np.testing.assert_array_equal(several.covariance, whole.covariance)
    for name in ("rows", "scores"):
        found, expected = (getattr(each.index.search(vectors, k=10), name) for each in (several, whole))
        np.testing.assert_array_equal(found, expected)
    narrow = parse_filter({"width": 50}, several.manifest.attributes)
    assert Contents(several).where(narrow).nearest(vectors[3], k=9).rows.tolist() == (
        Contents(whole).where(narrow).nearest(vectors[3], k=9).rows.tolist()
    )


@pytest.mark.parametrize("kind", ["exhaustive", "partitions"])
def test_threads_do_not_change_a_gallery_of_several_segments(
    tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "partitions":
        monkeypatch.setattr("pocketlens.index.CROSSOVER_ROWS", 4)
    folders = [of_several(tmp_path / str(n), vectors, monkeypatch, 4, threads=n) for n in (1, 3)]
    one, three = ({name: (folder / name).read_bytes() for name in files_below(folder)} for folder in folders)
    assert one == three
    assert Gallery.open(folders[1]).manifest.index.kind == kind


def test_a_flipped_bit_in_a_later_segment_is_found(
    tmp_path: Path, vectors: np.ndarray, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = of_several(tmp_path / "g", vectors, monkeypatch, 10)
    for name in files_below(folder / "2"):
        size = (folder / "2" / name).stat().st_size
        for position in positions(size, rng) if size else []:
            flip(folder / "2" / name, position)
            with pytest.raises(CorruptFile, match=f"2/{name} is damaged: found sha256"):
                Gallery.open(folder)
            flip(folder / "2" / name, position)
    Gallery.open(folder).close()
