"""`pocketlens index --update`: the next generation is what a new bundle of the same pictures would hold."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketlens.errors import FormatError
from pocketlens.gallery import Counts, open_manifest
from pocketlens.inspect import verify
from pocketlens.lens import open_lens
from pocketlens_export.gallery import outcome, run_folder, updating
from pocketlens_export.gallery.indexing import make_shards
from tests.command import Result, Run
from tests.export.gallery.made import picture
from tests.folders import files_below


def colour_of(n: int) -> tuple[int, int, int]:
    return (n * 7 % 256, n * 13 % 256, n * 29 % 256)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 pictures, two of them alike."""
    (tmp_path / "p").mkdir()
    for n in range(20):
        (tmp_path / "p" / f"{n:02}.jpg").write_bytes(picture(colour_of(n)))
    (tmp_path / "p" / "copy.jpg").write_bytes(picture(colour_of(3)))
    return tmp_path / "p"


@pytest.fixture
def server(run: Run, folder: Path, colours: Path, tmp_path: Path) -> Path:
    assert run("index", folder, "--out", tmp_path / "b", "--model", colours).code == 0
    return tmp_path / "b"


def change(folder: Path) -> None:
    """Three new pictures, two of them alike, two changed, two gone, one touched."""
    for n in (50, 51):
        (folder / f"{n}.jpg").write_bytes(picture(colour_of(n)))
    (folder / "52.jpg").write_bytes(picture(colour_of(50)))
    for n in (4, 5):
        (folder / f"{n:02}.jpg").write_bytes(picture(colour_of(n + 60)))
    (folder / "06.jpg").unlink()
    (folder / "03.jpg").unlink()  # its copy stays
    (folder / "07.jpg").touch()


def update(run: Run, bundle: Path, colours: Path, *sources: object) -> dict[str, Any]:
    done = run("index", *sources, "--update", bundle, "--model", colours, "--json")
    assert done.code == 0, done.err
    values: dict[str, Any] = json.loads(done.out)
    return values


def told(bundle: Path) -> list[tuple[object, ...]]:
    """Return all that a bundle says of its pictures, but for rows."""
    with open_lens(bundle, threads=1) as lens:
        found = lens._collection.now().read_all()
    return sorted((item.id, item.uri, item.width, item.sha256, json.dumps(item.attributes)) for item in found)


def answers(bundle: Path) -> list[tuple[set[str], list[float]]]:
    """Return ids and cosines of the best pictures for some queries."""
    queries = np.random.default_rng(0).uniform(0.1, 1, (8, 4)).astype(np.float32)
    with open_lens(bundle, threads=1) as lens:
        found = [lens.search_vector(query, k=30) for query in queries]
    return [({hit.id for hit in hits}, [hit.cosine for hit in hits]) for hits in found]


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, body in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(body)
            file.addfile(about, io.BytesIO(body))


def content(bundle: Path) -> dict[str, bytes]:
    return {name: (bundle / name).read_bytes() for name in files_below(bundle)}


def test_the_next_generation_is_what_a_new_bundle_holds(
    run: Run, folder: Path, server: Path, colours: Path, tmp_path: Path
) -> None:
    device = Path(shutil.copytree(server, tmp_path / "device"))
    change(folder)
    found = update(run, server, colours, folder)
    assert found == {
        "generation": 2,
        "new": 3,
        "changed": 2,
        "gone": 2,
        "unchanged": 17,
        "kept": 0,
        "skipped": {},
        "seen": 22,
    }
    assert run("index", folder, "--out", tmp_path / "new", "--model", colours).code == 0
    assert verify(server)
    assert told(server) == told(tmp_path / "new")
    for (ids, cosines), (expected_ids, expected) in zip(answers(server), answers(tmp_path / "new"), strict=True):
        assert ids == expected_ids
        np.testing.assert_allclose(cosines, expected, atol=1e-3)
    run("pack", server, "--since", 1, "--out", tmp_path / "2.update")
    assert run("apply", device, tmp_path / "2.update").code == 0
    assert content(device) == content(server)
    assert {path.name for path in tmp_path.iterdir()} == {"p", "b", "device", "new", "2.update"}


def test_only_what_is_new_or_changed_is_encoded(
    run: Run, folder: Path, server: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[str] = []

    def spy(request: Any, work: Any, plan: Any, *rest: Any) -> Any:
        planned.extend(plan.ids())
        return make_shards(request, work, plan, *rest)

    monkeypatch.setattr(updating, "make_shards", spy)
    change(folder)
    update(run, server, colours, folder)
    assert planned == ["04.jpg", "05.jpg", "50.jpg", "51.jpg", "52.jpg"]


def test_what_did_not_change_is_left_alone(run: Run, folder: Path, server: Path, colours: Path) -> None:
    before, inode = content(server), server.stat().st_ino
    done = run("index", folder, "--update", server, "--model", colours)
    assert done.out == f"{server}: nothing changed since generation 1; 21 files seen, it stays as it is\n"
    assert (content(server), server.stat().st_ino) == (before, inode)
    change(folder)
    assert run("index", folder, "--update", server, "--model", colours).out == (
        f"{server}: generation 2: 3 new, 2 changed, 2 gone, 17 unchanged; 22 files seen\n"
    )
    assert update(run, server, colours, folder)["unchanged"] == 22
    assert not list(server.parent.glob(".*"))


def test_a_run_says_how_long_its_stages_took(
    run: Run, folder: Path, server: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder)
    done = run("index", folder, "--update", server, "--model", colours, "--json")
    last = json.loads(done.err.splitlines()[-1])
    assert (last["event"], last["resumed"]) == ("summary", 0)
    assert last["seconds"].keys() == {"listing", "encoding", "assembling"}
    monkeypatch.setattr(outcome, "_LONG_S", 0)
    done = run("index", folder, "--update", server, "--model", colours)
    assert "took" in done.err and "listing" in done.err


def test_pictures_may_only_go(run: Run, folder: Path, server: Path, colours: Path) -> None:
    (folder / "00.jpg").unlink()
    assert update(run, server, colours, folder)["gone"] == 1
    assert verify(server)
    for path in folder.iterdir():
        path.unlink()
    (folder / "no picture.txt").write_text("")
    done = run("index", folder, "--update", server, "--model", colours)
    assert (done.code, "no item is left" in done.err) == (1, True)
    assert len(told(server)) == 20


def test_what_cannot_be_read_any_more_stays_as_it_was(run: Run, folder: Path, server: Path, colours: Path) -> None:
    before = {entry[0]: entry for entry in told(server)}
    (folder / "02.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "new.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "01.jpg").unlink()
    found = update(run, server, colours, folder)
    assert (found["gone"], found["changed"], found["new"], found["kept"]) == (1, 0, 0, 1)
    assert sum(found["skipped"].values()) == 2
    after = {entry[0]: entry for entry in told(server)}
    assert after == {id: entry for id, entry in before.items() if id != "01.jpg"}
    assert verify(server)
    few = run("index", folder, "--update", server, "--model", colours, "--max-skipped", 1)
    assert few.code == 1 and f"{server} was written without them; 1 that could not be read stay as they" in few.err


def test_what_is_said_is_json_where_it_is_asked_for(run: Run, folder: Path, server: Path, colours: Path) -> None:
    for n in range(7):
        (folder / f"bad {n}.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "notes.txt").write_text("")
    table = folder / "t.csv"
    table.write_text("id,year:integer\n00.jpg,2020\nnowhere.jpg,2021\n")
    done = run(
        "index", folder, "--out", server, "--replace", "--model", colours, "--attributes", table, "--json",
        "--max-skipped", 50,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.err.splitlines()]
    events = [event for event in lines if event["event"] != "progress"]  # of which a slow machine prints some
    assert [event["event"] for event in events] == ["note", *["skipped"] * 5, "summary"]
    assert events[0]["text"] == f"{table}: 1 ids are no files and were left out, such as nowhere.jpg"
    assert events[1] | {"detail": ""} == {"event": "skipped", "id": "bad 0.jpg", "reason": "truncated", "detail": ""}
    assert json.loads(done.out)["skipped"] == {"not a picture": 2, "truncated": 7}


def test_what_cannot_be_listed_stays_as_it_was(
    run: Run, folder: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four folders below are a link, a link to nowhere, denied and gone; names that sort beside theirs go."""
    for name in ("linked", "lost", "denied", "gone", "denied-2", "denied/within"):
        (folder / name).mkdir()
        for n in (21, 22):
            (folder / name / f"{n}.jpg").write_bytes(picture(colour_of(n)))
    bundle, scan = tmp_path / "b", os.scandir
    assert run("index", folder, "--out", bundle, "--model", colours).code == 0
    before = told(bundle)
    (folder / "linked").rename(tmp_path / "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    shutil.rmtree(folder / "lost")
    (folder / "lost").symlink_to(tmp_path / "nowhere")
    shutil.rmtree(folder / "gone")
    shutil.rmtree(folder / "denied-2")
    (folder / "gone").write_text("")  # a file, and no folder any more
    (folder / "new.jpg").write_bytes(picture(colour_of(77)))

    def deny(path: Any) -> Any:
        if isinstance(path, Path) and path.name == "denied":
            raise OSError(5, "Input/output error")
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)
    table = tmp_path / "t.csv"
    table.write_text("id,taken\ndenied/21.jpg,2020-01-01\n")  # known, though it cannot be compared
    found = run("index", folder, "--update", bundle, "--model", colours, "--attributes", table)
    assert (found.code, "are no files" in found.err) == (0, False), found.err
    assert found.out == (
        f"{bundle}: generation 2: 1 new, 0 changed, 4 gone, 21 unchanged, 8 could not be read and stay as they were, "
        "2 linked folder, 1 not a picture, 1 unreadable; 26 files seen\n"
    )
    assert [entry for entry in told(bundle) if entry[0] != "new.jpg"] == [
        entry for entry in before if not str(entry[0]).startswith(("gone/", "denied-2/"))
    ]
    assert run("index", folder, "--update", bundle, "--model", colours).out == (
        f"{bundle}: nothing changed since generation 2, 8 could not be read and stay as they were, 2 linked folder, "
        "1 not a picture, 1 unreadable; 26 files seen, it stays as it is\n"
    )
    assert verify(bundle)


def test_an_archive_that_ends_early_keeps_what_it_had(run: Run, colours: Path, tmp_path: Path) -> None:
    archive, other = tmp_path / "s.tar", tmp_path / "s2.tar"
    bodies = {f"{n}.jpg": picture(colour_of(n)) for n in range(10)}
    write_tar(archive, bodies)
    write_tar(other, bodies)
    assert run("index", archive, other, "--out", tmp_path / "b", "--model", colours).code == 0
    before = told(tmp_path / "b")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 3])
    write_tar(other, {name: body for name, body in bodies.items() if name != "9.jpg"})
    found = update(run, tmp_path / "b", colours, archive, other)
    assert (found["gone"], found["unchanged"] + found["kept"]) == (1, 19)
    assert found["kept"] > 5
    assert found["skipped"]["archive ends early"] == 1
    assert told(tmp_path / "b") == [entry for entry in before if entry[0] != "s2/9.jpg"]


def test_pictures_of_a_format_that_is_not_asked_for_any_more_stay(
    run: Run, folder: Path, colours: Path, tmp_path: Path
) -> None:
    for n in range(3):
        Image.new("RGB", (12, 10), colour_of(n)).save(folder / f"{n}.gif")
    bundle = tmp_path / "b"
    assert run("index", folder, "--out", bundle, "--model", colours, "--formats", "gif").code == 0
    before = told(bundle)
    found = update(run, bundle, colours, folder)
    assert (found["gone"], found["unchanged"], found["kept"]) == (0, 21, 3)
    (folder / "0.gif").unlink()
    found = update(run, bundle, colours, folder)
    assert (found["gone"], found["kept"], found["skipped"]) == (1, 2, {"unsupported format": 2})
    assert told(bundle) == [entry for entry in before if entry[0] != "0.gif"]


def test_a_linked_folder_hides_nothing_of_another_source(run: Run, colours: Path, tmp_path: Path) -> None:
    """Two folders share the ids below `sub`: what the second lists is compared, and no id repeats."""
    for name in ("p", "q/sub"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "p" / "sub").symlink_to(tmp_path / "q" / "sub")
    for n in range(3):
        (tmp_path / "q" / "sub" / f"{n}.jpg").write_bytes(picture(colour_of(n)))
    sources = (tmp_path / "p", tmp_path / "q")
    assert run("index", *sources, "--out", tmp_path / "b", "--model", colours).code == 0
    (tmp_path / "q" / "sub" / "1.jpg").write_bytes(picture(colour_of(50)))
    found = update(run, tmp_path / "b", colours, *sources)
    assert (found["changed"], found["unchanged"], found["kept"]) == (1, 2, 0)
    assert found["skipped"] == {"linked folder": 1}


def counts(bundle: Path) -> Counts:
    return open_manifest(bundle / "gallery").counts


def test_every_entry_is_counted_once(run: Run, folder: Path, server: Path, colours: Path) -> None:
    """A damaged file whose picture stays is that picture; a new one that is damaged is skipped."""
    assert counts(server) == Counts(21, 20, 1, {})
    (folder / "02.jpg").write_bytes(picture(colour_of(2))[:200])
    (folder / "new.jpg").write_bytes(picture(colour_of(70)))
    found = update(run, server, colours, folder)
    assert found["skipped"] == {"truncated": 1}
    assert counts(server) == Counts(22, 21, 1, {})
    (folder / "broken.jpg").write_bytes(picture((1, 1, 1))[:200])
    (folder / "01.jpg").unlink()
    found = update(run, server, colours, folder)
    assert (found["seen"], found["skipped"]) == (len(list(folder.iterdir())), {"truncated": 2})
    assert counts(server) == Counts(found["seen"], 20, 1, {"truncated": 1})
    assert verify(server)


def test_ids_that_repeat_are_counted_beside_their_items(run: Run, folder: Path, colours: Path, tmp_path: Path) -> None:
    paths = tmp_path / "l.txt"
    paths.write_text("p/00.jpg\np/01.jpg\n")
    assert run("index", paths, "--out", tmp_path / "b", "--model", colours).code == 0
    (folder / "01.jpg").write_bytes(b"\xff\xd8\xff broken")
    paths.write_text("p/00.jpg\np/01.jpg\np/00.jpg\np/01.jpg\np/02.jpg\n")
    assert update(run, tmp_path / "b", colours, paths, "--max-skipped", 100)["seen"] == 5
    assert counts(tmp_path / "b") == Counts(5, 3, 0, {"id repeats": 2})


def test_attributes_are_compared_and_kept(run: Run, folder: Path, colours: Path, tmp_path: Path) -> None:
    table, bundle = tmp_path / "t.csv", tmp_path / "b"
    table.write_text("id,year:integer,tag:tags\n00.jpg,2020,a;b\n01.jpg,2021,\n02.jpg,2022,\n")
    assert run("index", folder, "--out", bundle, "--model", colours, "--attributes", table).code == 0
    assert update(run, bundle, colours, folder, "--attributes", table)["unchanged"] == 21
    assert update(run, bundle, colours, folder)["unchanged"] == 21  # no table, nothing to compare
    table.write_text("id,year:integer,tag:tags\n00.jpg,2020,b;a\n01.jpg,1999,\n")
    (folder / "02.jpg").write_bytes(picture((1, 2, 3)))
    found = update(run, bundle, colours, folder, "--attributes", table)
    assert (found["changed"], found["unchanged"]) == (2, 19)
    with open_lens(bundle, threads=1) as lens:
        years = {id: lens._collection.now().find(id).attributes.get("year") for id in ("00.jpg", "01.jpg", "02.jpg")}
        assert years == {"00.jpg": 2020, "01.jpg": 1999, "02.jpg": 2022}
        assert [hit.id for hit in lens.search(text="red", where={"year": 1999})] == ["01.jpg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,place\n00.jpg,sea\n", "attribute 'place' is given, which this gallery does not have; it has"),
        ("id,year:text\n00.jpg,2020\n", "attribute 'year' of '00.jpg' is '2020', expected an integer"),
        ("id,year\n00.jpg,soon\n", "attribute 'year' of '00.jpg' is 'soon', expected an integer"),
    ],
)
def test_attributes_must_fit_the_gallery(
    run: Run, folder: Path, colours: Path, tmp_path: Path, content: str, message: str
) -> None:
    table, bundle = tmp_path / "t.csv", tmp_path / "b"
    table.write_text("id,year:integer\n00.jpg,2020\n")
    assert run("index", folder, "--out", bundle, "--model", colours, "--attributes", table).code == 0
    table.write_text(content)
    done = run("index", folder, "--update", bundle, "--model", colours, "--attributes", table)
    assert (done.code, message in done.err) == (1, True), done.err
    assert not list(tmp_path.glob(".*"))


def test_ids_of_a_table_that_no_source_lists_are_told(
    run: Run, folder: Path, server: Path, colours: Path, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("id,taken\n00.jpg,2020-01-01\nnowhere.jpg,2020-01-01\nnew.jpg,2020-01-01\n")
    (folder / "new.jpg").write_bytes(picture((9, 9, 9)))
    done = run("index", folder, "--update", server, "--model", colours, "--attributes", table)
    assert done.code == 0, done.err
    assert "1 ids are no files and were left out, such as nowhere.jpg" in done.err
    assert "1 new, 1 changed" in done.out


def test_archives_are_compared_too(run: Run, folder: Path, colours: Path, tmp_path: Path) -> None:
    def write(skip: int, other: int) -> None:
        bodies = {f"{n}.jpg": picture(colour_of(n + 90 if n == other else n)) for n in range(10) if n != skip}
        write_tar(tmp_path / "s.tar", bodies)

    write(-1, -1)
    assert run("index", tmp_path / "s.tar", "--out", tmp_path / "b", "--model", colours).code == 0
    write(2, 8)
    found = update(run, tmp_path / "b", colours, tmp_path / "s.tar")
    assert found == {
        "generation": 2,
        "new": 0,
        "changed": 1,
        "gone": 1,
        "unchanged": 8,
        "kept": 0,
        "skipped": {},
        "seen": 9,
    }
    assert verify(tmp_path / "b")


def test_ids_that_repeat_are_skipped(run: Run, folder: Path, colours: Path, tmp_path: Path) -> None:
    paths = tmp_path / "l.txt"
    paths.write_text("p/00.jpg\np/01.jpg\n")
    assert run("index", paths, "--out", tmp_path / "b", "--model", colours).code == 0
    paths.write_text("p/00.jpg\np/01.jpg\np/00.jpg\np/02.jpg\np/02.jpg\n")
    found = update(run, tmp_path / "b", colours, paths)
    assert (found["new"], found["unchanged"], found["skipped"]) == (1, 2, {"id repeats": 2})


def test_a_run_that_stopped_goes_on_to_the_same_bytes(
    run: Run, folder: Path, server: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(server, tmp_path / "other"))
    change(folder)
    update(run, other, colours, folder)
    before = content(server)
    with monkeypatch.context() as patch:
        patch.setattr(updating, "_write_generation", lambda *_: (_ for _ in ()).throw(FormatError("the power went")))
        done = run("index", folder, "--update", server, "--model", colours)
        assert (done.code, "the same command goes on from here" in done.err) == (1, True)
    assert content(server) == before
    (folder / "late.jpg").write_bytes(picture((5, 5, 5)))  # too late for this run
    assert update(run, server, colours, folder)["new"] == 3
    assert content(server) == content(other)


def test_an_unfinished_run_of_another_generation_is_refused(
    run: Run, folder: Path, server: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder)
    with monkeypatch.context() as patch:
        patch.setattr(updating, "_write_generation", lambda *_: (_ for _ in ()).throw(FormatError("the power went")))
        run("index", folder, "--update", server, "--model", colours)
    with open_lens(server, threads=1) as lens:
        lens.remove(["00.jpg"])
        lens.compact()
    done = run("index", folder, "--update", server, "--model", colours)
    assert (done.code, "unfinished run with other settings: base is" in done.err) == (1, True), done.err
    assert run("index", folder, "--update", server, "--model", colours, "--restart").code == 0
    assert verify(server)


def test_another_model_is_refused(run: Run, folder: Path, server: Path) -> None:
    done = run("index", folder, "--update", server, "--model", "lens-base")
    assert (done.code, "encodes into space" in done.err) == (1, True)
    done = run("index", folder, "--update", server)  # the gallery's own, which does not ship
    assert (done.code, "colours: neither a model folder nor a model that ships" in done.err) == (1, True), done.err


def refuses_before_listing(
    run: Run, patch: pytest.MonkeyPatch, bundle: Path, message: str, folder: Path, colours: Path, *flags: object
) -> None:
    listed: list[object] = []
    patch.setattr(updating, "write_plan", lambda *rest, **_: listed.append(rest))
    done = run("index", folder, "--update", bundle, "--model", colours, *flags)
    assert (done.code, message in done.err) == (1, True), done.err
    assert not listed
    assert not list(bundle.parent.glob(".*"))


def test_a_report_that_cannot_be_written_is_told_at_once(
    run: Run, folder: Path, server: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder)
    path = tmp_path / "nowhere" / "x"
    refuses_before_listing(run, monkeypatch, server, f"{path} cannot be written", folder, colours, "--skipped", path)


def test_what_a_device_added_is_not_lost(
    run: Run, folder: Path, server: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_lens(server, threads=1) as lens:
        lens.add({"mine": picture((9, 9, 9))})
    change(folder)
    refuses_before_listing(
        run, monkeypatch, server, "local.sqlite holds what was added on this device", folder, colours
    )
    assert "mine" in {entry[0] for entry in told(server)}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --out BUNDLE for a new bundle, or --update BUNDLE"),
        (["--out", "x", "--update", "y"], "give --out BUNDLE for a new bundle, or --update BUNDLE"),
        (["--update", "y", "--replace"], "--query-model, --replace and --no-rescore are for a new bundle"),
        (["--update", "y", "--no-rescore"], "--query-model, --replace and --no-rescore are for a new bundle"),
    ],
)
def test_a_call_that_makes_no_sense(run: Run, folder: Path, flags: list[str], message: str) -> None:
    done: Result = run("index", folder, *flags)
    assert (done.code, message in done.err) == (2, True)


def test_a_missing_bundle_is_named(run: Run, folder: Path, colours: Path, tmp_path: Path) -> None:
    done = run("index", folder, "--update", tmp_path / "nowhere", "--model", colours)
    assert (done.code, "nowhere" in done.err) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p"]


def test_a_run_that_dies_after_the_switch_ends_well_when_it_goes_on(
    run: Run, folder: Path, server: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(path: Path, made: list[Path]) -> None:
        raise KeyboardInterrupt

    change(folder)
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "_remove", dies)
        with suppress(KeyboardInterrupt):
            run("index", folder, "--update", server, "--model", colours)
    assert (tmp_path / ".b.unfinished").is_dir()
    whole = content(server)
    found = update(run, server, colours, folder)
    assert found == {
        "generation": 2,
        "new": 0,
        "changed": 0,
        "gone": 0,
        "unchanged": 22,
        "kept": 0,
        "skipped": {},
        "seen": 22,
    }
    assert content(server) == whole
    assert not (tmp_path / ".b.unfinished").exists()
