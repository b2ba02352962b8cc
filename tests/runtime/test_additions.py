from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlens.additions import BATCH, MAX_ID, check_id
from pocketlens.errors import BadQuery, EncoderMismatch, MissingPart
from pocketlens.lens import Lens, open_lens
from pocketlens.listing import find_pictures, name_pictures
from pocketlens.model import Model, Space
from pocketlens_export.gallery.build import pack_bundle
from tests.colours import write_colours
from tests.reliability.changes import Colour, picture, vector


@pytest.fixture
def lens(own_bundle: Path) -> Any:
    with open_lens(own_bundle, threads=1) as opened:
        yield opened


def ids(lens: Lens) -> set[str]:
    return {hit.id for hit in lens.search(text="red", k=1_000)}


def test_an_added_picture_has_the_towers_vector_and_is_described(lens: Lens) -> None:
    colour: Colour = (200, 100, 50)
    assert lens.add({"new": picture(colour)}).added == ["new"]
    addition = lens._collection.now().local.additions["new"]
    np.testing.assert_allclose(addition.vector.astype(np.float32), vector(colour), atol=1e-3)
    assert (addition.item.encoder, addition.item.uri, addition.item.width, addition.item.height) == (
        "colours",
        "new",
        8,
        8,
    )
    assert addition.graph_sha256 == lens._towers.model("image").manifest.files["image.onnx"].sha256
    hit = lens.search_vector(vector(colour), k=1)[0]
    assert (hit.id, hit.width, hit.attributes) == ("new", 8, {"size_bytes": len(picture(colour))})
    assert abs(hit.cosine - 1) < 1e-3


def test_the_same_file_is_left_alone_and_a_changed_one_replaced(lens: Lens) -> None:
    lens.add({"new": picture((1, 2, 3))})
    before = lens._collection.now()
    again = lens.add({"new": picture((1, 2, 3))})
    assert (again.added, again.replaced, again.unchanged) == ([], [], ["new"])
    assert lens._collection.now() is before  # nothing was committed
    changed = lens.add({"new": picture((3, 2, 1)), "red.png": picture((255, 0, 0))})
    assert (changed.added, changed.replaced, changed.unchanged) == ([], ["new", "red.png"], [])
    assert lens.search(text="red", k=1)[0].id == "red.png"
    assert len(ids(lens)) == 6


def test_a_shipped_file_that_is_added_again_is_unchanged(lens: Lens, pictures: Path, own_bundle: Path) -> None:
    told = lens.add([pictures / "red.png", pictures / "more" / "red copy.png"], root=pictures)
    assert told.unchanged == ["red.png", "more/red copy.png"]
    assert lens.add({"more/red copy.png": pictures / "red.png"}).unchanged == ["more/red copy.png"]
    assert not lens._collection.now().local.additions


def test_a_removed_item_may_come_back(lens: Lens, pictures: Path) -> None:
    lens.remove(["red.png", "green.png"])
    assert ids(lens) == {"blue.png", "white.png", "more/red copy.png"}
    with pytest.raises(BadQuery, match=r"no item has the id 'red\.png'"):
        lens.remove(["red.png"])
    assert lens.add([pictures / "red.png"]).added == ["red.png"]
    assert "red.png" in ids(lens)
    lens.remove(["red.png"])
    assert "red.png" not in ids(lens)


def test_removing_is_all_or_nothing(lens: Lens) -> None:
    with pytest.raises(BadQuery, match="no item has the id 'nobody'; nothing was removed"):
        lens.remove(["red.png", "nobody"])
    assert len(ids(lens)) == 5
    lens.remove(["red.png", "red.png"])
    assert len(ids(lens)) == 4
    lens.remove([])


def test_attributes_are_kept_until_others_are_given(lens: Lens) -> None:
    lens.add({"new": picture((1, 2, 3))}, attributes={"new": {"taken": "2020"}})
    assert lens.add({"new": picture((1, 2, 3))}).unchanged == ["new"]
    assert lens.add({"new": picture((9, 9, 9))}).replaced == ["new"]
    kept = {hit.id: hit.attributes for hit in lens.search(text="red")}["new"]
    assert kept == {"size_bytes": len(picture((9, 9, 9))), "taken": "2020-01-01T00:00:00"}
    assert lens.add({"new": picture((9, 9, 9))}, attributes={"new": {"taken": "2021"}}).replaced == ["new"]
    with pytest.raises(BadQuery, match="attributes are given for 'other', which is not among the pictures"):
        lens.add({"new": picture((9, 9, 9))}, attributes={"other": {}})


def test_bad_pictures_are_skipped_and_the_rest_is_added(lens: Lens, tmp_path: Path) -> None:
    told = lens.add({"a": b"", "b": picture((1, 2, 3)), "c": tmp_path / "nothing", "d": b"\xff\xd8\xff"})
    assert told.added == ["b"]
    assert {id: error.reason for id, error in told.skipped.items()} == {
        "a": "truncated", "c": "unreadable", "d": "truncated",
    }  # fmt: skip


def test_each_batch_is_kept_whatever_comes_after(lens: Lens, own_bundle: Path) -> None:
    done: list[tuple[int, int]] = []

    def stop(number: int, total: int) -> None:
        done.append((number, total))
        if number > BATCH:
            raise KeyboardInterrupt

    pictures = {f"{number:03}": picture((number, 0, 0)) for number in range(3 * BATCH)}
    with pytest.raises(KeyboardInterrupt):
        lens.add(pictures, on_progress=stop)
    assert done == [(BATCH, 3 * BATCH), (2 * BATCH, 3 * BATCH)]
    with open_lens(own_bundle) as other:
        assert len(ids(other)) == 5 + 2 * BATCH


def test_a_light_tower_adds_and_is_recorded(lens: Lens, tmp_path: Path) -> None:
    light = Model.open(write_colours(tmp_path / "light", name="light"))
    lens.add({"new": picture((1, 2, 3))}, image_model=light)
    assert lens._collection.now().local.additions["new"].item.encoder == "light"
    lens.compact()
    encoders = {item.id: item.encoder for item in lens._collection.now().read_all()}
    assert {id for id, encoder in encoders.items() if encoder} == {"new"} and encoders["new"] == "light"
    other = Model.open(write_colours(tmp_path / "other", name="other", space=Space("elsewhere@" + "1" * 64, 4)))
    with pytest.raises(EncoderMismatch, match="other encodes into space elsewhere@"):
        lens.add({"new": picture((1, 2, 3))}, image_model=other)


def test_a_bundle_without_an_image_tower_says_so(own_bundle: Path, colours: Path, tmp_path: Path) -> None:
    pack_bundle(tmp_path / "b", gallery=own_bundle / "gallery", text=Model.open(colours), image=None)
    with open_lens(tmp_path / "b") as lens, pytest.raises(MissingPart, match="no image tower to add pictures with"):
        lens.add({"new": picture((1, 2, 3))})


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("", "expected 1 to 1024 characters"),
        ("a" * (MAX_ID + 1), "expected 1 to 1024 characters"),
        ("a\0b", "none of them NUL"),
        ("\ud800", "UTF-8 cannot hold it"),
        (3, "of type int, expected a str"),
        (None, "of type NoneType"),
    ],
)
def test_what_cannot_be_an_id(lens: Lens, id: Any, message: str) -> None:
    for call in (lambda: check_id(id), lambda: lens.add({id: b""}), lambda: lens.remove([id])):
        with pytest.raises(BadQuery, match=message):
            call()
    check_id("a" * MAX_ID)


def test_a_single_path_is_no_list_of_pictures(lens: Lens, tmp_path: Path) -> None:
    for one in ("pictures", tmp_path):
        with pytest.raises(BadQuery, match="add takes a list of paths, or pictures by id, found a single"):
            lens.add(one)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [5, None, ["a.png"], bytearray(b"x")])
def test_a_picture_is_bytes_or_a_path(lens: Lens, value: Any) -> None:
    with pytest.raises(BadQuery, match="the picture of 'a' is of type"):
        lens.add({"a": value})


def test_a_single_id_is_no_list_of_ids(lens: Lens) -> None:
    with pytest.raises(BadQuery, match="a list of ids, found a single str"):
        lens.remove("red.png")


def test_names_of_pictures() -> None:
    assert name_pictures(["a/b.jpg", Path("/c/d.png")]) == {"b.jpg": Path("a/b.jpg"), "d.png": Path("/c/d.png")}
    assert name_pictures(["a/b.jpg", "a/c/b.jpg"], root="a") == {"b.jpg": Path("a/b.jpg"), "c/b.jpg": Path("a/c/b.jpg")}
    with pytest.raises(BadQuery, match=r"get the same id 'b\.jpg'"):
        name_pictures(["a/b.jpg", "a/c/b.jpg"])
    with pytest.raises(BadQuery, match="is not below"):
        name_pictures(["a/../../b.jpg"], root="a")
    with pytest.raises(BadQuery, match="is not below"):
        name_pictures(["a"], root="a")


def test_links_are_named_as_they_are_and_linked_folders_passed_over(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "f" / "sub").mkdir(parents=True)
    (tmp_path / "f" / "link.png").symlink_to(pictures / "red.png")
    (tmp_path / "f" / "linked").symlink_to(pictures)
    (tmp_path / "f" / ".hidden.png").write_bytes(b"")
    named, skipped = find_pictures([tmp_path / "f"])
    assert named == {"link.png": tmp_path / "f" / "link.png"}
    assert [(each.id, each.reason) for each in skipped] == [("linked", "linked folder")]
