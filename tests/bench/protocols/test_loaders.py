"""Loaders read the official schemas, and name what is wrong with a file that is not of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pocketlens.errors import BadQuery, FormatError
from pocketlens_bench.protocols import PROTOCOLS, find_protocol, read_task
from pocketlens_bench.protocols.genecis import dilate
from pocketlens_bench.protocols.task import Task
from tests.bench.protocols.files import COLOURS, WRITERS, write_json


def task_of(name: str, folder: Path, split: str | None = None) -> Task:
    return read_task(PROTOCOLS[name], WRITERS[name](folder), split)


def test_emojicir_keeps_the_split_and_groups_by_the_base_concept(tmp_path: Path) -> None:
    task = task_of("emojicir", tmp_path)
    assert [example.id for example in task.examples] == ["q1", "q2", "q3", "q4"]
    first, second, _, negative = task.examples
    assert first.answers == {"a/green.png", "b/green.png"}
    assert (first.group, second.group) == ("base green", "base blue")
    assert second.answers == {"b/blue.png"}
    assert [example.stratum for example in task.examples] == ["seen", "unseen", "seen", "seen"]
    assert not first.excluded  # the reference is a distractor
    assert (negative.negative, negative.families) == ("red", ("negative",))
    assert negative.unwanted == {"a/red.png"}
    assert len(task.pools["all"]) == 2 * len(COLOURS)
    digest = hashlib.sha256((tmp_path / "queries.jsonl").read_bytes()).hexdigest()
    assert task.data_sha256["queries.jsonl"] == digest
    assert [example.id for example in read_task(PROTOCOLS["emojicir"], tmp_path, "train").examples] == ["q5"]


def test_fashioniq_has_a_gallery_for_each_category_and_joins_both_captions(tmp_path: Path) -> None:
    task = task_of("fashioniq", tmp_path)
    assert {name: len(pool) for name, pool in task.pools.items()} == {"dress": 6, "shirt": 6, "toptee": 6}
    example = task.examples[2]
    assert (example.id, example.families, example.pool) == ("shirt-0", ("shirt",), "shirt")
    assert example.texts == ("Is green and not red",)
    assert example.answers == {"shirt-green"}
    assert example.reference == "shirt-red"
    assert not example.excluded
    assert task.by_family
    assert "images/shirt-white.jpg" in task.views["shirt-white"].files


def test_cirr_excludes_the_reference_and_ranks_the_other_five(tmp_path: Path) -> None:
    task = task_of("cirr", tmp_path)
    example = task.examples[0]
    assert example.id == "12060"
    assert example.reference == "dev-1-0-red"
    assert example.excluded == {"dev-1-0-red"}
    assert example.candidates == tuple(f"dev-1-0-{c}" for c in ("green", "blue", "white", "grey", "yellow"))
    assert example.answers == {"dev-1-0-green"}
    assert task.views["dev-1-0-red"].files[0] == "dev/dev-1-0-red.png"


@pytest.mark.parametrize(("name", "split"), [("cirr", "test1"), ("circo", "test")])
def test_splits_of_test_servers_have_no_answers(name: str, split: str, tmp_path: Path) -> None:
    task = task_of(name, tmp_path, split)
    assert len(task.examples) == 2
    assert not task.has_answers


def test_circo_has_several_answers_one_target_and_aspects(tmp_path: Path) -> None:
    task = task_of("circo", tmp_path)
    first, second = task.examples
    assert (first.reference, first.target) == ("100", "101")
    assert first.answers == {"101", "103"}
    assert (first.families, second.families) == (("addition",), ("addition", "viewpoint"))
    assert task.views["100"].files == ("000000000100.jpg",)
    assert set(task.data_sha256) == {
        "annotations/val.json",
        "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json",
    }


def test_genecis_ranks_candidates_whose_order_does_not_tell_the_answer(tmp_path: Path) -> None:
    task = task_of("genecis", tmp_path)
    assert [example.families for example in task.examples] == [
        ("focus_attribute",),
        ("change_attribute",),
        ("focus_object",),
        ("change_object",),
    ]
    crops, pictures = task.examples[0], task.examples[2]
    assert (crops.pool, len(crops.candidates)) == (None, 5)
    assert pictures.candidates == tuple(f"{id:012d}" for id in (11, 12, 13, 14, 15))
    assert crops.candidates == tuple(sorted(crops.candidates))
    view = task.views[crops.reference or ""]
    assert (view.files[0], view.box) == ("VG_100K_all/7.jpg", (30.0, 50.0, 18.0, 20.5))
    assert task.views["000000000011"].box is None


def test_a_box_grows_to_the_left_and_the_top_as_the_official_loader_does() -> None:
    # 50 - 0.7 * 20 = 36, 36 + 1.7 * 20 = 70: grown by 14 to the left, by none beyond the right end
    assert dilate((50.0, 60.0, 20.0, 10.0), 200, 100) == pytest.approx((36.0, 53.0, 70.0, 70.0))
    assert dilate((5.0, 60.0, 20.0, 30.0), 200, 80) == pytest.approx((0.0, 39.0, 34.0, 80.0))  # clipped


def test_karpathys_files_give_five_captions_of_the_split(tmp_path: Path) -> None:
    task = task_of("flickr30k", tmp_path)
    assert len(task.examples) == 5 * 5
    assert task.examples[0].texts == ("a red",)
    assert (task.examples[0].reference, task.examples[0].group) == (None, "red.jpg")
    assert task.examples[0].answers == {"red.jpg"}
    assert task.pools["all"] == ("red.jpg", "green.jpg", "blue.jpg", "white.jpg", "grey.jpg")


def test_coco_is_read_from_either_file(tmp_path: Path) -> None:
    karpathy = task_of("coco", tmp_path)
    official = read_task(PROTOCOLS["coco"], tmp_path, "val2017")
    assert karpathy.pools["all"][1] == "val2017/000000000001.jpg"
    assert official.pools["all"][1] == "000000000001.jpg"
    assert sorted(e.texts for e in official.examples) == sorted(e.texts for e in karpathy.examples)
    assert official.examples[1].answers == {"000000000001.jpg"}
    assert official.examples[1].texts == ("a green",)


FILES = {
    "emojicir": ["pictures.tsv", "queries.jsonl"],
    "fashioniq": ["captions/cap.shirt.val.json", "image_splits/split.toptee.val.json"],
    "cirr": ["captions/cap.rc2.val.json", "image_splits/split.rc2.val.json"],
    "circo": ["annotations/val.json", "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"],
    "genecis": ["genecis/focus_attribute.json", "genecis/change_object.json"],
    "flickr30k": ["dataset_flickr30k.json"],
    "coco": ["dataset_coco.json"],
}


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in FILES.items() for file in files])
def test_a_missing_or_broken_file_is_named(name: str, file: str, tmp_path: Path) -> None:
    folder = WRITERS[name](tmp_path)
    (folder / file).rename(folder / "kept")
    with pytest.raises(FormatError, match=Path(file).name):
        read_task(PROTOCOLS[name], folder)
    (folder / file).write_text("{")
    with pytest.raises(FormatError, match=Path(file).name):
        read_task(PROTOCOLS[name], folder)


def edited(path: Path, where: list[Any], value: Any) -> None:
    """Set, or with None remove, a value deep in a JSON file."""
    data = json.loads(path.read_text())
    place = data
    for step in where[:-1]:
        place = place[step]
    if value is None:
        del place[where[-1]]
    else:
        place[where[-1]] = value
    write_json(path, data)


WRONG = [
    (
        "fashioniq",
        "captions/cap.dress.val.json",
        [1, "captions"],
        ["one"],
        r"entry 1: captions is \[\"one\"\].*least 2",
    ),
    ("fashioniq", "captions/cap.dress.val.json", [0, "candidate"], 5, r"entry 0: candidate is 5, expected a string"),
    ("fashioniq", "image_splits/split.dress.val.json", [2], 7, r"entry 2 is 7, expected a string"),
    ("cirr", "captions/cap.rc2.val.json", [0, "pairid"], "x", r"entry 0: pairid is \"x\", expected an integer"),
    ("cirr", "captions/cap.rc2.val.json", [1, "img_set"], None, r"entry 1: field 'img_set' is missing"),
    ("cirr", "captions/cap.rc2.val.json", [1, "target_hard"], "gone", r"pair 12061 names the picture 'gone'"),
    ("circo", "annotations/val.json", [0, "gt_img_ids"], [1.5], r"entry 0: gt_img_ids is \[1.5\]"),
    ("circo", "annotations/val.json", [1, "reference_img_id"], 9, r"query 1 names the picture 9"),
    ("genecis", "genecis/focus_attribute.json", [0, "target", "instance_bbox"], [1, 2], r"target: instance_bbox is"),
    ("genecis", "genecis/focus_object.json", [0, "gallery", 1], 3, r"gallery\[1\] is 3, expected an object"),
    ("flickr30k", "dataset_flickr30k.json", ["images", 0, "sentences", 1, "raw"], None, r"sentences\[1\]: field 'raw'"),
    ("coco", "dataset_coco.json", ["images", 3, "split"], True, r"images\[3\]: split is true, expected a string"),
]


@pytest.mark.parametrize(("name", "file", "where", "value", "message"), WRONG)
def test_a_wrong_field_is_named(
    name: str, file: str, where: list[Any], value: Any, message: str, tmp_path: Path
) -> None:
    folder = WRITERS[name](tmp_path)
    edited(folder / file, where, value)
    with pytest.raises(FormatError, match=message):
        read_task(PROTOCOLS[name], folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "a/gone.png"}, "query q1 names the picture 'a/gone.png'"),
        ({"answers": ["a/red.png", "gone"]}, "query q1 names the picture 'gone'"),
        ({"answers": []}, "at least 1 strings"),
        ({"negative": 3}, "negative is 3"),
        ({"seen": "yes"}, 'seen is "yes", expected true or false'),
        ({"seen": False}, "query q1 has seen False, but pictures.tsv does not say so"),
        ({"text": None}, "text is null, expected a string"),
    ],
)
def test_a_wrong_emoji_query_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = WRITERS["emojicir"](tmp_path)
    path = folder / "queries.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | change), *others]))
    with pytest.raises(FormatError, match=message):
        read_task(PROTOCOLS["emojicir"], folder)


def test_an_emoji_query_must_say_whether_its_target_was_seen(tmp_path: Path) -> None:
    path = WRITERS["emojicir"](tmp_path) / "queries.jsonl"
    path.write_text(path.read_text().replace('"seen"', '"known"', 1))
    with pytest.raises(FormatError, match="field 'seen' is missing, expected true or false"):
        read_task(PROTOCOLS["emojicir"], tmp_path)


def test_a_wrong_table_is_named(tmp_path: Path) -> None:
    folder = WRITERS["emojicir"](tmp_path)
    path = folder / "pictures.tsv"
    table = path.read_text()
    path.write_text(table.replace("base\t", "root\t", 1))
    with pytest.raises(FormatError, match="expected also 'base'"):
        read_task(PROTOCOLS["emojicir"], folder)
    path.write_text(table.replace("\tencoder", "\tmodel", 1))
    with pytest.raises(FormatError, match="expected also 'encoder'"):
        read_task(PROTOCOLS["emojicir"], folder)
    path.write_text(table.replace("\ttrain", "\tyes", 1))
    with pytest.raises(FormatError, match="has the encoder split 'yes', expected one of test, validation, train"):
        read_task(PROTOCOLS["emojicir"], folder)
    path.write_text(table + "one\ttwo\n")
    with pytest.raises(FormatError, match="line 14 has 2 values, expected 7"):
        read_task(PROTOCOLS["emojicir"], folder)


def test_unknown_protocols_splits_and_empty_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadQuery, match="protocol is 'nope', expected one of emojicir"):
        find_protocol("nope")
    with pytest.raises(BadQuery, match="split is 'nope', expected one of val, test1, train"):
        task_of("cirr", tmp_path / "cirr", "nope")
    with pytest.raises(FormatError, match="no query of the split validation"):
        task_of("emojicir", tmp_path / "emoji", "validation")
    with pytest.raises(FormatError, match="is not a folder"):
        read_task(PROTOCOLS["cirr"], tmp_path / "nowhere")


def test_two_queries_of_one_id_are_refused(tmp_path: Path) -> None:
    folder = WRITERS["cirr"](tmp_path)
    edited(folder / "captions/cap.rc2.val.json", [1, "pairid"], 12060)
    with pytest.raises(FormatError, match="several queries with the id 12060"):
        read_task(PROTOCOLS["cirr"], folder)
