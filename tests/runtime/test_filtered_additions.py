"""Attributes of what a device adds: checked, recorded, filtered by, kept by compacting."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

import pocketlens
from pocketlens.errors import BadQuery
from pocketlens.inspect import verify
from pocketlens.model import Model
from pocketlens_export.gallery.build import build_bundle

GIVEN: dict[str, dict[str, Any]] = {
    "red.png": {"year": 2020, "tag": ["warm", "loud"], "mood": "happy"},
    "more/red copy.png": {"year": 2021, "tag": ["warm"]},
    "blue.png": {"year": 2019, "taken": "2019-05"},
}


@pytest.fixture
def bundle(colours: Path, pictures: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change, of pictures with attributes."""
    model = Model.open(colours)
    out = tmp_path / "bundle"
    build_bundle(pictures, out, model=model, query_model=model, attributes=GIVEN, types={"seen": "time"})
    return out


def picture(colour: str, *, taken: str | None = None) -> bytes:
    image, buffer = Image.new("RGB", (50, 20), colour), io.BytesIO()
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def ids(lens: pocketlens.Lens, where: Any) -> set[str]:
    return {hit.id for hit in lens.search(text="red", where=where, k=100)}


def test_the_builder_records_what_it_was_given_and_what_the_files_say(bundle: Path, pictures: Path) -> None:
    verify(bundle)
    with pocketlens.open(bundle) as lens:
        assert lens.attributes == {
            "width": "integer", "height": "integer", "size_bytes": "integer", "taken": "time", "folder": "text",
            "mood": "text", "seen": "time", "tag": "tags", "year": "integer",
        }  # fmt: skip
        hits = {hit.id: hit for hit in lens.search(text="red")}
        size_bytes = (pictures / "red.png").stat().st_size
        assert hits["red.png"].attributes == {**GIVEN["red.png"], "tag": ["loud", "warm"], "size_bytes": size_bytes}
        assert hits["blue.png"].attributes["taken"] == "2019-05-01T00:00:00"
        assert ids(lens, {"size_bytes": size_bytes, "year": {"gte": 2020}}) == {"red.png", "more/red copy.png"}
        assert ids(lens, {"folder": "more"}) == ids(lens, {"year": 2021}) == {"more/red copy.png"}  # of a shared row
        assert ids(lens, {"taken": {"lt": "2019-06"}}) == {"blue.png"}
        assert ids(lens, {"width": 40, "height": {"gte": 30}}) == {*hits}


def test_additions_are_filtered_like_everything_else(bundle: Path) -> None:
    taken = "2024:07:31 18:30:00"
    with pocketlens.open(bundle) as lens:
        new = {"new/pink.jpg": picture("pink", taken=taken), "new/teal.jpg": picture("teal")}
        seen = datetime(2024, 8, 1, 9)
        lens.add(new, attributes={"new/teal.jpg": {"tag": ("cold", "loud"), "year": 2020, "seen": seen}})
        assert ids(lens, {"tag": "loud"}) == {"red.png", "new/teal.jpg"}
        assert ids(lens, {"folder": "new"}) == set(new)
        assert ids(lens, {"taken": "2024-07-31"}) == {"new/pink.jpg"}
        assert ids(lens, {"seen": {"exists": True}}) == {"new/teal.jpg"}
        assert ids(lens, {"width": 50, "not": {"year": 2020}}) == {"new/pink.jpg"}
        assert ids(lens, {"size_bytes": len(new["new/pink.jpg"])}) >= {"new/pink.jpg"}
        lens.remove(["red.png", "new/pink.jpg"])
        assert ids(lens, {"tag": "loud"}) == {"new/teal.jpg"}
        assert ids(lens, {"tag": "warm"}) == {"more/red copy.png"}
        assert ids(lens, {"taken": {"exists": True}}) == {"blue.png"}
        shown = {hit.id: hit.attributes for hit in lens.search(text="teal", where={"year": 2020})}
        assert (
            shown["new/teal.jpg"]["tag"] == ["cold", "loud"] and shown["new/teal.jpg"]["seen"] == "2024-08-01T09:00:00"
        )


def test_compacting_carries_every_attribute_into_new_columns(bundle: Path) -> None:
    wheres: list[dict[str, Any]] = [
        {"tag": "loud"}, {"tag": {"in": ["cold", "warm"]}}, {"year": {"gte": 2020}}, {"mood": {"exists": True}},
        {"folder": {"starts": "n"}}, {"seen": {"gte": "2024"}}, {"taken": {"lt": "2020"}},
        {"not": {"year": {"exists": True}}},
    ]  # fmt: skip
    with pocketlens.open(bundle) as lens:
        new = {"new/pink.jpg": picture("pink"), "new/teal.jpg": picture("teal"), "green.png": picture("lime")}
        lens.add(new, attributes={"new/teal.jpg": {"tag": ["cold", "loud"], "year": 2020, "seen": "2024-08"}})
        lens.remove(["red.png"])
        schema, before = lens.attributes, [ids(lens, where) for where in wheres]
        hits = {hit.id: hit.attributes for hit in lens.search(text="red", k=100)}
        assert lens.compact().generation == 2
        assert lens.attributes == schema
        assert [ids(lens, where) for where in wheres] == before
        assert {hit.id: hit.attributes for hit in lens.search(text="red", k=100)} == hits
        lens.add({"late.jpg": picture("navy")}, attributes={"late.jpg": {"tag": ["loud"]}})
        assert ids(lens, {"tag": "loud"}) == {"new/teal.jpg", "late.jpg"}
    verify(bundle / "gallery")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"colour": "red"}, "'a.jpg' has an attribute 'colour', which this gallery does not have; it has width"),
        ({"year": "2020"}, "attribute 'year' of 'a.jpg' is '2020', expected an integer"),
        ({"tag": "loud"}, "attribute 'tag' of 'a.jpg' is 'loud', expected a list of tags"),
        ({"width": 50}, "attribute 'width' of 'a.jpg' is recorded from the picture"),
    ],
)
def test_attributes_that_the_schema_does_not_have_are_refused(
    bundle: Path, attributes: dict[str, Any], message: str
) -> None:
    with pocketlens.open(bundle) as lens:
        before = ids(lens, None)
        with pytest.raises(BadQuery, match=message):
            lens.add({"a.jpg": picture("pink")}, attributes={"a.jpg": attributes})
        assert ids(lens, None) == before


def test_adding_again_changes_what_changed(bundle: Path, pictures: Path) -> None:
    red = (pictures / "red.png").read_bytes()
    with pocketlens.open(bundle) as lens:
        assert lens.add({"red.png": red}).unchanged == ["red.png"]
        same = {"red.png": {"tag": ["loud", "warm", "loud"], "year": 2020, "mood": "happy", "seen": None}}
        assert lens.add({"red.png": red}, attributes=same).unchanged == ["red.png"]
        assert lens.add({"red.png": red}, attributes={"red.png": {"year": 2022}}).replaced == ["red.png"]
        assert ids(lens, {"year": 2022}) == {"red.png"} and "red.png" not in ids(lens, {"tag": "loud"})
        other = {"red.png": picture("darkred", taken="2023:01:02 03:04:05")}
        assert lens.add(other).replaced == ["red.png"]  # another file keeps what it does not say itself
        assert ids(lens, {"year": 2022, "taken": "2023-01-02"}) == {"red.png"}
        assert lens.add(other).unchanged == ["red.png"]
        assert lens.add(other, attributes={"red.png": {"year": 2022}}).unchanged == ["red.png"]
        assert lens.add(other, attributes={"red.png": {"year": 2022, "taken": "2023"}}).replaced == ["red.png"]
        assert ids(lens, {"taken": "2023-01-01T00:00:00"}) == {"red.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"attributes": {"rde.png": {"year": 1}}},
            "attributes are given for 'rde.png', which is not among the pictures",
        ),
        (
            {"attributes": {"red.png": {"year": 1}, "blue.png": {"year": "x"}}},
            "'year' is integer in one item and text in",
        ),
        ({"attributes": {"red.png": {"height": 1}}}, "attribute 'height' of 'red.png' is recorded from the picture"),
        (
            {"attributes": {"red.png": {"year": 1}}, "types": {"year": "text"}},
            "'year' of 'red.png' is 1, expected text",
        ),
        ({"types": {"a=b": "text"}}, "'a=b' cannot be an attribute's name"),
        ({"types": {"year": "number"}}, "'year' is of type 'number', expected one of"),
    ],
)
def test_a_builder_refuses_attributes_before_it_encodes(
    colours: Path, pictures: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    model = Model.open(colours)
    with pytest.raises(BadQuery, match=message):
        build_bundle(pictures, tmp_path / "b", model=model, query_model=model,
                     on_progress=lambda done, total: pytest.fail("encoding"), **options)  # fmt: skip
    assert list(tmp_path.iterdir()) == []
