from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pocketlens.errors import BadQuery, CorruptFile, FormatError
from pocketlens.files import sha256_of
from pocketlens.gallery import open_manifest
from pocketlens.update import UpdateFile, write_update
from tests.folders import flip
from tests.updates import next_generation, update_of

CHANGED = {"new.png": (1, 2, 3), "blue.png": (9, 9, 200)}


@pytest.fixture
def server(own_bundle: Path) -> Path:
    assert next_generation(own_bundle, CHANGED, ["green.png"]) == 2
    return own_bundle


@pytest.fixture
def update(server: Path, tmp_path: Path) -> Path:
    return update_of(server, tmp_path / "2.update", since=1)


def test_an_update_says_what_it_leads_from_and_to(bundle: Path, server: Path, update: Path) -> None:
    with UpdateFile(update) as file:
        manifest = file.manifest
        assert (manifest.base.number, manifest.next.number) == (1, 2)
        assert manifest.base.sha256 == sha256_of(bundle / "gallery" / "gallery.json")
        assert manifest.next.sha256 == sha256_of(server / "gallery" / "gallery.json")
        old, new = open_manifest(bundle / "gallery"), open_manifest(server / "gallery")
        assert set(manifest.files) == {"gallery.json"} | (new.files.keys() - old.files.keys())
        for name in manifest.files:
            assert b"".join(file.read(name)) == (server / "gallery" / name).read_bytes()


def test_an_update_may_span_generations(server: Path, tmp_path: Path) -> None:
    next_generation(server, {"more.png": (4, 5, 6)}, [])
    files = {}
    for since in (1, 2):
        with UpdateFile(update_of(server, tmp_path / f"{since}.update", since=since)) as file:
            files[since] = set(file.manifest.files)
    assert {name[0] for name in files[2] - {"gallery.json"}} == {"2"}
    assert {name[0] for name in files[1] - {"gallery.json"}} == {"1", "2"}


@pytest.mark.parametrize("since", [0, 2, 3, -1])
def test_only_what_the_gallery_continues_can_be_led_on_from(server: Path, tmp_path: Path, since: int) -> None:
    with pytest.raises(BadQuery, match=rf"generation 2 does not continue generation {since}, only 1; a device"):
        write_update(server / "gallery", tmp_path / "u", since=since)
    assert not (tmp_path / "u").exists()


def test_a_gallery_made_as_a_whole_has_no_updates(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BadQuery, match="only none: it was made as a whole"):
        write_update(bundle / "gallery", tmp_path / "u", since=1)


def test_a_damaged_gallery_makes_no_update(server: Path, tmp_path: Path) -> None:
    flip(server / "gallery" / "1" / "rescore.f16", 3)
    with pytest.raises(CorruptFile, match="rescore"):
        write_update(server / "gallery", tmp_path / "u", since=1)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_same_gallery_gives_the_same_bytes(server: Path, update: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(server, tmp_path / "copy"))
    assert update_of(copy, tmp_path / "again", since=1).read_bytes() == update.read_bytes()


def test_every_flipped_byte_is_noticed(update: Path) -> None:
    content = update.read_bytes()
    end = content.index(b"}\n", content.index(b"self_sha256")) + 2
    for at in sorted({*range(end), *range(end, len(content), 97), len(content) - 1}):
        changed = bytearray(content)
        changed[at] ^= (0x01, 0x80, 0xFF)[at % 3]
        update.write_bytes(bytes(changed))
        with pytest.raises(FormatError, match=r"2\.update"):
            UpdateFile(update)
    update.write_bytes(content)
    UpdateFile(update).__exit__()


@pytest.mark.parametrize("keep", [0, 10, 25, 100, -1, 0.5])
def test_one_that_ends_early_is_noticed(update: Path, keep: float) -> None:
    content = update.read_bytes()
    update.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else int(keep)])
    with pytest.raises(FormatError, match=r"2\.update"):
        UpdateFile(update)


def test_one_that_is_too_long_is_noticed(update: Path) -> None:
    update.write_bytes(update.read_bytes() + b"\0")
    with pytest.raises(CorruptFile, match="more bytes than it lists"):
        UpdateFile(update)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"pocketlens-update x\n{}", b"pocketlens-update 99999999\n{}"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "u").write_bytes(content)
    with pytest.raises(FormatError, match="/u "):
        UpdateFile(tmp_path / "u")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file or directory; expected an update file"):
        UpdateFile(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version is 2; this pocketlens reads version 1"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"base": None}, "base is null, expected an object"),
        ({"self_sha256": "0" * 64}, "is damaged: found other bytes"),
    ],
)
def test_its_manifest_is_strict(update: Path, changes: dict[str, object], message: str) -> None:
    content = update.read_bytes()
    head, _, rest = content.partition(b"\n")
    size = int(head.split()[1])
    manifest = json.loads(rest[:size]) | changes
    written = (json.dumps(manifest, indent=2) + "\n").encode()
    update.write_bytes(b"pocketlens-update %d\n" % len(written) + written + rest[size:])
    with pytest.raises(FormatError, match=message):
        UpdateFile(update)
