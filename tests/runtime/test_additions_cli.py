from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import pocketlens
from pocketlens.model import Space
from tests.colours import write_colours
from tests.command import Run
from tests.folders import edit_json
from tests.galleries import bundle_of
from tests.updates import next_generation


def picture(path: Path, colour: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(path)
    return path


def found(run: Run, bundle: Path, text: str, k: int = 10) -> list[str]:
    done = run("search", bundle, text, "--json", "-k", k)
    assert done.code == 0, done.err
    return [hit["id"] for hit in json.loads(done.out)["hits"]]


def counts(run: Run, *arguments: object) -> dict[str, object]:
    done = run("add", *arguments, "--json")
    assert done.code == 0, done.err
    values: dict[str, object] = json.loads(done.out)["counts"]
    return values


def test_a_folder_that_was_indexed_has_nothing_to_add(run: Run, own_bundle: Path, pictures: Path) -> None:
    done = run("add", own_bundle, pictures)
    assert done.out == f"{own_bundle}: 0 added, 0 replaced, 5 unchanged, 1 not a picture, 1 truncated\n"
    assert done.err == "skipped broken.jpg: truncated: " + done.err.partition("truncated: ")[2]
    assert run("compact", own_bundle).out.endswith(
        "nothing was added or removed since generation 1; it stays as it is\n"
    )


def test_pictures_are_added_seen_changed_and_removed(run: Run, own_bundle: Path, tmp_path: Path) -> None:
    new = picture(tmp_path / "new" / "a" / "purest red.png", (255, 0, 0)).parents[1]
    added = {"added": 1, "replaced": 0, "unchanged": 0, "skipped": {}}
    assert counts(run, own_bundle, new) == added
    assert found(run, own_bundle, "red", 1) == ["a/purest red.png"]
    assert counts(run, own_bundle, new) == {**added, "added": 0, "unchanged": 1}
    picture(new / "a" / "purest red.png", (0, 0, 255))
    assert counts(run, own_bundle, new) == {**added, "added": 0, "replaced": 1}
    assert found(run, own_bundle, "blue", 1) == ["a/purest red.png"]
    done = run("remove", own_bundle, "a/purest red.png", "red.png")
    assert (done.code, done.out) == (0, f"{own_bundle}: 2 removed, 4 pictures left\n")
    assert sorted(found(run, own_bundle, "red")) == ["blue.png", "green.png", "more/red copy.png", "white.png"]


def test_json_tells_every_outcome(run: Run, own_bundle: Path, pictures: Path, tmp_path: Path) -> None:
    picture(tmp_path / "new" / "red.png", (0, 0, 0))
    picture(tmp_path / "new" / "black.png", (0, 0, 0))
    (tmp_path / "new" / "green.png").write_bytes((pictures / "green.png").read_bytes())
    (tmp_path / "new" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "new" / "notes.txt").write_text("no picture")
    (tmp_path / "new" / "old.gif").write_bytes(b"GIF89a")
    os.close(os.open(os.fsencode(tmp_path / "new") + b"/\xff.png", os.O_CREAT | os.O_WRONLY))
    values = json.loads(run("add", own_bundle, tmp_path / "new", "--json").out)
    assert values["counts"] == {
        "added": 1, "replaced": 1, "unchanged": 1,
        "skipped": {"name is not text": 1, "not a picture": 1, "truncated": 1, "unsupported format": 1},
    }  # fmt: skip
    assert (values["added"], values["replaced"]) == (["black.png"], ["red.png"])
    assert [(entry["id"], entry["reason"]) for entry in values["skipped"]] == [
        ("old.gif", "unsupported format"), ("?.png", "name is not text"), ("broken.jpg", "truncated"),
    ]  # fmt: skip


def test_a_format_by_option_is_added(run: Run, own_bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "a.gif")
    assert run("add", own_bundle, tmp_path / "a.gif").code == 1
    assert counts(run, own_bundle, tmp_path / "a.gif", "--formats", "gif")["added"] == 1


def test_ids_of_files_folders_and_below_a_root(run: Run, own_bundle: Path, tmp_path: Path) -> None:
    red, blue = (
        picture(tmp_path / "p" / "x" / "1.png", (255, 0, 0)),
        picture(tmp_path / "p" / "y" / "1.png", (0, 0, 255)),
    )
    run("add", own_bundle, red)
    assert found(run, own_bundle, "red", 1) == ["1.png"]
    clash = run("add", own_bundle, red, blue)
    assert (clash.code, clash.out) == (1, "")
    assert (
        clash.err == f"pocketlens: {red} and {blue} get the same id '1.png'; give a root folder that tells them apart\n"
    )
    assert counts(run, own_bundle, red, blue.parent, "--root", tmp_path / "p")["added"] == 2
    assert found(run, own_bundle, "blue", 1) == ["y/1.png"]
    outside = run("add", own_bundle, red, "--root", tmp_path / "p" / "y")
    assert (outside.code, "is not below" in outside.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("add", "{bundle}", "{tmp}/nothing.png"), 1, "nothing.png does not exist; expected a picture or a folder of"),
        (("add", "{tmp}", "{pictures}"), 1, "expected"),
        (("add", "{bundle}"), 2, "Missing argument 'PICTURES...'"),
        (("add", "{bundle}", "{pictures}/broken.jpg"), 1, "no picture could be read, of 1 files; nothing was added"),
        (("remove", "{bundle}", "red.png", "nobody.png"), 1, "no item has the id 'nobody.png'; nothing was removed"),
        (("remove", "{bundle}"), 2, "Missing argument 'IDS...'"),
        (("remove", "{tmp}", "red.png"), 1, "expected"),
        (("compact", "{tmp}"), 1, "expected"),
        (("add", "{bundle}", "{pictures}", "--model", "nobody"), 1, "nobody: neither a model folder nor a model that"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(
    run: Run, own_bundle: Path, pictures: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run(*(each.format(bundle=own_bundle, tmp=tmp_path, pictures=pictures) for each in arguments))
    assert (done.code, done.out) == (code, "")
    assert message in done.err.splitlines()[-1]
    assert "red.png" in found(run, own_bundle, "red")


def test_a_light_tower_adds_and_one_of_another_space_is_refused(
    run: Run, own_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    write_colours(tmp_path / "light", name="light colours")
    write_colours(tmp_path / "other", name="other", space=Space("elsewhere@" + "1" * 64, 4))
    refused = run("add", own_bundle, pictures / "red.png", "--model", tmp_path / "other")
    assert (refused.code, "other encodes into space elsewhere@" in refused.err) == (1, True)
    new = picture(tmp_path / "n.png", (9, 9, 9))
    assert counts(run, own_bundle, new, "--model", tmp_path / "light")["added"] == 1
    assert counts(run, own_bundle, picture(tmp_path / "m.png", (99, 9, 9)))["added"] == 1
    run("remove", own_bundle, "red.png")
    local = json.loads(run("info", own_bundle, "--json").out)["local"]
    assert local == {"added": 2, "removed": 1, "encoders": {"colours": 1, "light colours": 1}}
    assert "local.sqlite: 2 additions and 1 removals have their checksums\n" in run("verify", own_bundle).out
    run("compact", own_bundle)
    assert "local" not in json.loads(run("info", own_bundle, "--json").out)


def test_a_bundle_without_an_image_tower_takes_a_model(
    run: Run, pictures: Path, colours: Path, tmp_path: Path, own_bundle: Path
) -> None:
    run("pack", "--gallery", own_bundle / "gallery", "--text", colours, "--out", tmp_path / "b")
    refused = run("add", tmp_path / "b", pictures / "red.png")
    assert (refused.code, "no image tower to add pictures with; give a model" in refused.err) == (1, True)
    new = picture(tmp_path / "n.png", (255, 0, 0))
    assert counts(run, tmp_path / "b", new, "--model", colours)["added"] == 1


def test_compacting_says_what_it_did_and_keeps_the_answers(run: Run, own_bundle: Path, tmp_path: Path) -> None:
    run("add", own_bundle, picture(tmp_path / "red.png", (255, 0, 0)), picture(tmp_path / "n.png", (1, 1, 1)))
    run("remove", own_bundle, "green.png")
    before = found(run, own_bundle, "red")
    done = run("compact", own_bundle, "--json")
    assert json.loads(done.out) == {"items": 5, "added": 2, "gone": 2, "generation": 2, "before": 1}
    assert found(run, own_bundle, "red") == before
    assert run("verify", own_bundle).code == 0
    assert not (own_bundle / "local.sqlite").exists()
    run("remove", own_bundle, "n.png")
    assert (
        run("compact", own_bundle).out
        == f"{own_bundle}: 4 pictures in generation 3; 0 were added, 1 removed or replaced\n"
    )


def test_damage_of_what_was_added_is_found_by_verify_and_info(run: Run, own_bundle: Path, tmp_path: Path) -> None:
    run("add", own_bundle, picture(tmp_path / "n.png", (1, 1, 1)))
    content = (own_bundle / "local.sqlite").read_bytes()
    assert b"n.png" in content
    (own_bundle / "local.sqlite").write_bytes(content.replace(b"n.png", b"m.png"))
    for command in ("verify", "info"):
        done = run(command, own_bundle)
        assert done.code == 1
        assert "local.sqlite is damaged" in done.err


def test_an_update_is_written_and_applied(run: Run, own_bundle: Path, tmp_path: Path) -> None:
    server, file = Path(shutil.copytree(own_bundle, tmp_path / "server")), tmp_path / "new" / "2.update"
    assert "generation 1 does not continue generation 1" in run("pack", server, "--since", 1, "--out", file).err
    next_generation(server, {"sky.png": (20, 20, 231)}, ["green.png"])
    written = run("pack", server, "--since", 1, "--out", file)
    assert re.fullmatch(rf"{file}: from generation 1 to 2, 0\.\d+ MB, \d+\.\d % of the gallery\n", written.out)
    assert f"{file} exists already; give --replace" in run("pack", server, "--since", 1, "--out", file).err
    assert run("pack", server, "--since", 1, "--out", file, "--replace").code == 0
    done = run("apply", own_bundle, file, "--json")
    assert json.loads(done.out) == {"before": 1, "generation": 2, "items": 5}
    assert run("apply", own_bundle, file).out == f"{own_bundle}: holds generation 2 already; it stays as it is\n"
    assert found(run, own_bundle, "blue") == found(run, server, "blue")
    assert json.loads(run("info", own_bundle, "--json").out)["gallery"]["previous"].keys() == {"1"}
    next_generation(server, {"late.png": (1, 1, 1)}, [])
    run("pack", server, "--since", 1, "--out", tmp_path / "3.update")
    refused = run("apply", own_bundle, tmp_path / "3.update")
    assert (refused.code, "leads from generation 1" in refused.err, "holds generation 2" in refused.err) == (
        1,
        True,
        True,
    )
    run("pack", server, "--since", 2, "--out", tmp_path / "23.update")
    assert run("apply", own_bundle, tmp_path / "23.update").out == (
        f"{own_bundle}: generation 2 became 3, with 6 pictures\n"
    )
    assert run("verify", own_bundle).code == 0


@pytest.mark.parametrize("more", [[], ["--since", 1], ["--gallery", "g", "--since", 1], ["--text", "t"]], ids=str)
def test_an_update_and_a_bundle_are_not_packed_at_once(
    run: Run, own_bundle: Path, tmp_path: Path, more: list[object]
) -> None:
    given = [own_bundle] if "--since" not in more or "--gallery" in more else []
    refused = run("pack", *given, *more, "--out", tmp_path / "u")
    assert (refused.code, "an update takes BUNDLE, --since GENERATION and --out FILE alone" in refused.err) == (2, True)


def on_a_terminal(*arguments: object) -> str:
    """Return what the command draws on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pocketlens", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, timeout=100)
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0, drawn
    return drawn


@pytest.mark.parametrize("command", [lambda b, p: ("add", b, p), lambda b, p: ("compact", b)], ids=["add", "compact"])
def test_progress_is_drawn_on_a_terminal(
    own_bundle: Path, tmp_path: Path, run: Run, command: Callable[[Path, Path], tuple[object, ...]]
) -> None:
    new = picture(tmp_path / "p" / "n.png", (1, 1, 1)).parent
    run("add", own_bundle, picture(tmp_path / "m.png", (1, 2, 3)))
    arguments = command(own_bundle, new)
    drawn = on_a_terminal(*arguments)
    assert f"{str(arguments[0])[:3]}" in drawn
    assert "[####################################]" in drawn


def test_a_bundle_without_towers_can_lose_pictures(run: Run, tmp_path: Path) -> None:
    import numpy as np

    bundle = bundle_of(tmp_path, np.eye(3, 4, dtype=np.float32))
    assert run("remove", bundle, "1").out == f"{bundle}: 1 removed, 2 pictures left\n"
    edit_json(bundle / "bundle.json", gallery="0" * 64)
    assert run("remove", bundle, "2").code == 1


def test_help_tells_the_commands(run: Run) -> None:
    listed = run("--help").out
    for name in ("add", "apply", "remove", "compact"):
        assert f"\n  {name} " in listed
        assert run(name, "--help").code == 0


def test_the_errors_are_public() -> None:
    assert {"NotWritten", "Busy", "Forked", "WrongBase"} <= set(pocketlens.__all__)


def test_duplicates_are_sought_among_added_pictures_too(
    run: Run, own_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "copy.png").write_bytes((pictures / "blue.png").read_bytes())
    run("add", own_bundle, tmp_path / "copy.png")
    run("remove", own_bundle, "more/red copy.png")
    for exact in ((), ("--exact",)):
        told = json.loads(run("duplicates", own_bundle, "--json", *exact).out)
        assert (told["items"], told["groups"][0]["keep"]) == (5, "blue.png")
        assert [copy["id"] for copy in told["groups"][0]["copies"]] == ["copy.png"]


def test_compacting_an_updated_bundle_says_that_devices_need_the_whole(run: Run, own_bundle: Path) -> None:
    next_generation(own_bundle, {"sky.png": (20, 20, 231)}, ["green.png"])
    assert run("compact", own_bundle).out == (
        f"{own_bundle}: 5 pictures in generation 3, which joins the updates before it; "
        "devices with an earlier one need the whole bundle\n"
    )
    assert run("compact", own_bundle).out == (
        f"{own_bundle}: nothing was added or removed since generation 3; it stays as it is\n"
    )
