from __future__ import annotations

import io
import json
import os
import tarfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pocketlens.decoders import SERVER, with_formats
from pocketlens.errors import BadQuery, FormatError
from pocketlens.listing import Skipped, list_files
from pocketlens_export.gallery.sources.columns_kept import read_kept
from pocketlens_export.gallery.sources.entry import Entry
from pocketlens_export.gallery.sources.expand import Reading, expand_braces, open_sources
from pocketlens_export.gallery.sources.parquet import RowReader
from tests.export.gallery.made import picture

RED, BLUE = picture((200, 0, 0)), picture((0, 0, 200))


def listed(*names: str | Path, keep: str | None = None, column: str | None = None) -> list[Entry | Skipped]:
    reading = Reading(SERVER, read_kept(keep), column)
    return [entry for source in open_sources(names, reading) for entry in source.entries()]


def told(entries: list[Entry | Skipped]) -> list[tuple[str, str | None]]:
    return [(entry.id, entry.reason if isinstance(entry, Skipped) else None) for entry in entries]


def content(entry: Entry | Skipped) -> bytes:
    """Read what an entry says that it is, without any of our code."""
    assert isinstance(entry, Entry)
    place = entry.place
    if place.kind == "row":
        value = parquet.read_table(place.path).column(place.column)[place.start].as_py()
        return value["bytes"] if isinstance(value, dict) else value  # type: ignore[no-any-return]
    whole = Path(place.path).read_bytes()
    return whole if place.kind == "file" else whole[place.start : place.start + place.size_bytes]


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, each in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(each)
            archive.addfile(about, io.BytesIO(each))
    return path


# A folder


def test_a_folder_is_listed_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a.png", "a-b/x.jpg", "a!/y.webp", "a/b/c.jpg", ".git/x.png", "A.png", "n.txt",
                 "old/bundle.json", "old/gallery/gallery.json", "old/gallery/x.png", "a0.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    expected = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path)]
    entries = listed(tmp_path)
    assert [entry.id for entry in entries] == expected
    assert dict(told(entries))["n.txt"] == "not a picture"
    assert dict(told(entries))["linked"] == dict(told(entries))["lost"] == "linked folder"


@given(st.lists(st.lists(st.sampled_from(["a", "a!", "a-", "a0", "b", "a.b"]), min_size=1, max_size=3), max_size=12))
def test_any_folder_is_listed_in_the_order_of_its_paths(paths: list[list[str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for parts in paths:
            folder.joinpath(*parts[:-1]).mkdir(parents=True, exist_ok=True)
            folder.joinpath(*parts[:-1], f"{parts[-1]}.png").write_bytes(b"")
        assert [entry.id for entry in listed(folder)] == sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*.png") if path.is_file()
        )


def test_a_folder_within_that_cannot_be_read_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "c/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(RED)
    scan = os.scandir

    def deny(folder: Path) -> Any:
        if folder.name == "b":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", deny)
    assert told(listed(tmp_path)) == [("a/1.jpg", None), ("b/", "unreadable"), ("c/3.jpg", None)]
    with pytest.raises(FormatError, match="b cannot be read: Permission denied; expected a folder of pictures"):
        listed(tmp_path / "b")


# A tar archive


def test_pictures_of_a_tar_are_found_with_what_lies_beside_them(tmp_path: Path) -> None:
    about = {"caption": "a cat", "year": 2020, "nsfw": False, "nested": {"x": 1}}
    path = write_tar(tmp_path / "shard-0.tar", {
        "000.jpg": RED, "000.json": json.dumps(about).encode(), "000.txt": b" a text\n", "000.cls": b"7",
        "sub/001.PNG": BLUE, "002.heic": b"x", "003.json": b"{", "003.jpg": RED, "._000.jpg": b"x",
    })  # fmt: skip
    entries = listed(path, keep="caption,year:integer,txt,cls:integer,nsfw,absent")
    assert told(entries) == [
        ("shard-0/000.jpg", None),
        ("shard-0/sub/001.PNG", None),
        ("shard-0/002.heic", "unsupported format"),
        ("shard-0/003.jpg", None),
    ]
    assert isinstance(entries[0], Entry)
    assert entries[0].attributes == {"caption": "a cat", "year": 2020, "txt": "a text", "cls": 7, "nsfw": "false"}
    assert entries[0].uri == "shard-0.tar#000.jpg"
    assert [content(entries[n]) for n in (0, 1, 3)] == [RED, BLUE, RED]
    assert isinstance(entries[3], Entry) and entries[3].attributes == {}


def test_names_in_a_tar_are_only_ids(tmp_path: Path) -> None:
    names = ["../../evil.jpg", "/etc/passwd.jpg", "./plain.jpg", "../../evil.jpg"]
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in names:
            about = tarfile.TarInfo(name)
            about.size = len(RED)
            archive.addfile(about, io.BytesIO(RED))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    entries = listed(tmp_path / "s.tar")
    ids = ["s/../../evil.jpg", "s//etc/passwd.jpg", "s/plain.jpg", "s/../../evil.jpg", "s/link.jpg"]
    assert told(entries) == [(id, "unreadable" if "link" in id else None) for id in ids]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.tar"]


@pytest.mark.parametrize("kept", [600, 1_500, 2_100, 5_000, 9_000])
def test_a_tar_that_ends_early_gives_what_is_whole_and_says_so(tmp_path: Path, kept: int) -> None:
    pictures = {f"{n}.jpg": picture((n, 9, 9), end=bytes(n)) for n in range(8)}
    whole = write_tar(tmp_path / "s.tar", pictures)
    every = [entry for entry in listed(whole) if isinstance(entry, Entry)]
    whole.write_bytes(whole.read_bytes()[:kept])
    entries = listed(whole)
    assert entries[-1] == Skipped("s.tar", "archive ends early", entries[-1].detail)  # type: ignore[union-attr]
    found = entries[:-1]
    assert found == every[: len(found)]
    in_full = [entry for entry in every if entry.place.start + entry.place.size_bytes <= kept]
    assert len(in_full) <= len(found) <= len(in_full) + 1  # the last one may be cut: whoever reads it will see


def test_a_tar_without_its_end_is_told_of(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"0.jpg": RED})
    path.write_bytes(path.read_bytes()[:1_536])  # a header and a picture of one block or two, but no zeros
    assert told(listed(path))[-1] == ("s.tar", "archive ends early")


@pytest.mark.parametrize("harm", [b"", b"no archive at all" * 99, b"\x1f\x8b\x08 gzip" * 99])
def test_what_is_no_tar_is_refused(tmp_path: Path, harm: bytes) -> None:
    (tmp_path / "s.tar").write_bytes(harm)
    with pytest.raises(FormatError, match=r"s\.tar is no plain tar archive"):
        listed(tmp_path / "s.tar")


# Parquet


def write_parquet(file: Path, group: int | None = None, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), file, row_group_size=group)
    return file


@pytest.mark.parametrize("kind", ["bytes", "structs", "paths"])
def test_pictures_of_parquet_are_bytes_structs_or_paths(tmp_path: Path, kind: str) -> None:
    (tmp_path / "red.jpg").write_bytes(RED)
    (tmp_path / "blue.jpg").write_bytes(BLUE)
    kinds: dict[str, dict[str, Any]] = {
        "bytes": {"jpg": [RED, BLUE]},
        "structs": {"image": [{"bytes": RED, "path": "x"}, {"bytes": BLUE, "path": None}]},
        "paths": {"path": ["red.jpg", str(tmp_path / "blue.jpg")]},
    }
    times = [datetime(2020, 5, 1), None]
    path = write_parquet(tmp_path / "t.parquet", key=["r", "b"], year=[2020, None], when=times, **kinds[kind])
    entries = listed(path, keep="year,when")
    assert told(entries) == [("r", None), ("b", None)]
    assert [content(entry) for entry in entries] == [RED, BLUE]
    assert [entry.attributes for entry in entries if isinstance(entry, Entry)] == [
        {"year": 2020, "when": datetime(2020, 5, 1)}, {},
    ]  # fmt: skip


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", image=[RED, BLUE])
    assert told(listed(path)) == [("t/00000000", None), ("t/00000001", None)]
    path = write_parquet(tmp_path / "u.parquet", id=[7, None], mine=[RED, BLUE])
    assert told(listed(path, column="mine")) == [("7", None), ("u/00000001", None)]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"a": [1]}, {}, r"columns are 'a', expected one of image, jpg, .*; name another with --image-column"),
        ({"image": [RED]}, {"column": "photo"}, r"columns are 'image', expected one called 'photo'"),
        ({"image": [1.5]}, {}, r"column 'image' is of type double, expected bytes, paths or structs"),
        ({"image": [RED]}, {"keep": "year"}, r"columns are 'image', expected one called 'year'"),
    ],
)
def test_a_parquet_file_without_the_column_is_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, str], message: str
) -> None:
    path = write_parquet(tmp_path / "t.parquet", **columns)
    with pytest.raises(FormatError, match=rf"t\.parquet: {message}"):
        listed(path, **options)


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(FormatError, match=r"t\.parquet is not Parquet that can be read"):
        listed(tmp_path / "t.parquet")


@pytest.mark.parametrize("group", [1, 7, 100])
def test_rows_are_read_as_a_stream_from_anywhere(tmp_path: Path, group: int) -> None:
    pictures = [picture((n, 0, 0)) if n % 9 else None for n in range(60)]
    entries = listed(write_parquet(tmp_path / "t.parquet", group, image=pa.array(pictures, pa.binary())))
    reader = RowReader()
    for n in [*range(5, 30), *range(50, 60), 3, 4]:
        entry = entries[n]
        assert isinstance(entry, Entry)
        if pictures[n] is None:
            with pytest.raises(FormatError, match="the row has no image"):
                reader.read(entry.place)
        else:
            assert reader.read(entry.place) == pictures[n]


# A list of paths


def test_a_list_names_pictures_from_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ж.jpg").write_bytes(RED)
    text = f"\ufeffж.jpg\r\n\n{tmp_path}/absent.jpg\n../sub/ж.jpg".encode()
    (tmp_path / "sub" / "l.txt").write_bytes(text + b"\n\xff.jpg\n")
    entries = listed(tmp_path / "sub" / "l.txt")
    assert told(entries) == [
        ("ж.jpg", None), (f"{tmp_path}/absent.jpg", None), ("../sub/ж.jpg", None), ("?.jpg", "name is not text"),
    ]  # fmt: skip
    assert content(entries[0]) == content(entries[2]) == RED


# Names of sources


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("s-{08..11}.tar", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
        ("s-{9..11}.tar", ["s-9.tar", "s-10.tar", "s-11.tar"]),
        ("{b,a}/{1..2}", ["b/1", "b/2", "a/1", "a/2"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{no}{0..1}", ["{no}0", "{no}1"]),
        ("a{,b}", ["a", "ab"]),
    ],
)
def test_braces_are_expanded_as_a_shell_does(text: str, expected: list[str]) -> None:
    assert expand_braces(text) == expected


def test_braces_have_an_end() -> None:
    with pytest.raises(FormatError, match="more than 1000000 names"):
        expand_braces("{0..99999999}")
    with pytest.raises(FormatError, match="more than 1000000 names"):
        expand_braces("{0..9999}{0..9999}")


def test_globs_are_sorted_and_files_taken_literally(tmp_path: Path) -> None:
    for name in ("s-2.tar", "s-10.tar", "s-1.tar", "[x].tar"):
        write_tar(tmp_path / name, {"0.jpg": RED})
    found = [source.name for source in open_sources([f"{tmp_path}/s-*.tar"], Reading(SERVER))]
    assert found == [f"{tmp_path}/s-1.tar", f"{tmp_path}/s-10.tar", f"{tmp_path}/s-2.tar"]
    assert told(listed(f"{tmp_path}/[x].tar")) == [("[x]/0.jpg", None)]
    assert len(listed(f"{tmp_path}/s-{{1..2}}.tar")) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "absent is not a folder; expected a folder of pictures, or a .tar, .parquet or .txt file: nothing"),
        ("s-{0..1}.tar", "s-0.tar is not a folder; expected .*: nothing is there"),
        ("x*.tar", r"x\*.tar matches no file"),
        ("photo.jpg", "photo.jpg is not a folder; expected a folder of pictures, or a .tar"),
        ("shard.tar.gz", "compressed archives cannot be gone through in parts, so unpack it to a .tar first"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(RED)
    (tmp_path / "shard.tar.gz").write_bytes(b"x")
    with pytest.raises(FormatError, match=message):
        listed(f"{tmp_path}/{name}")


def test_a_source_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is given twice; expected each source once"):
        listed(tmp_path, tmp_path)


@pytest.mark.parametrize("keep", ["a=b", "year:number", "width", "a,a"])
def test_kept_columns_are_attributes(keep: str) -> None:
    with pytest.raises(BadQuery, match=r"'a=b'|number|--keep width|'a' twice"):
        read_kept(keep)


def test_formats_that_are_asked_for_are_taken_from_archives_too(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"0.gif": b"x"})
    assert told(listed(path)) == [("s/0.gif", "unsupported format")]
    limits = with_formats(SERVER, ["gif"])
    assert isinstance(next(iter(open_sources([path], Reading(limits))[0].entries())), Entry)
