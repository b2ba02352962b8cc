"""`pocketlens eval` end to end: every protocol, with the model that ships."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pocketlens.errors import BadQuery, PocketlensError
from pocketlens.model import Model
from pocketlens_bench.evaluate_cli import evaluate, parse_methods, parse_settings
from pocketlens_bench.protocols import PROTOCOLS
from pocketlens_export.gallery.build import build_bundle
from tests.bench.protocols.conftest import Folders
from tests.bench.protocols.files import INDEXED, WRITERS, add_pictures


def call(arguments: Sequence[str | Path]) -> Result:
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments])


def run(folders: tuple[Path, Path], protocol: str, *options: str | Path) -> Result:
    data, bundle = folders
    result = call([protocol, "--bundle", bundle, "--data", data, "--threads", "1", *options])
    assert result.exception is None, result.exception
    return result


def refused(folders: tuple[Path, Path], protocol: str, *options: str | Path) -> str:
    data, bundle = folders
    result = call([protocol, "--bundle", bundle, "--data", data, *options])
    assert isinstance(result.exception, PocketlensError), result.output
    return str(result.exception)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_from_files_to_table_json_and_plot(protocol: str, shipped: Folders, tmp_path: Path) -> None:
    methods = "text" if PROTOCOLS[protocol].name in ("flickr30k", "coco") else "image,text,sum,product,weicom"
    out, plot = tmp_path / "results.json", tmp_path / "plot.svg"
    options: list[str | Path] = ["--methods", methods, "--out", out, "--plot", plot]
    printed = run(shipped(protocol), protocol, "--json", *options).stdout
    report: dict[str, Any] = json.loads(printed)
    assert out.read_text() == printed
    names = [method["method"] for method in report["methods"]]
    assert names == [*methods.split(","), *(["picture to text"] if methods == "text" else [])]
    assert report["protocol"] == protocol
    strata = {name: part["queries"] for name, part in report["methods"][0]["strata"].items()}
    assert strata == ({"seen": 2, "unseen": 1} if protocol == "emojicir" else {})
    assert (report["dropped"], report["missing_pictures"], report["skipped"]) == ({}, [], {})
    assert 0 < report["answered"] <= report["queries"]
    for method in report["methods"]:
        for figure in method["figures"].values():
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 100
    assert report["threads"] == 1
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in report["data_sha256"].values())
    assert re.fullmatch("[0-9a-f]{64}", report["bundle"]["gallery_sha256"])
    assert plot.read_text().startswith("<?xml")
    table = run(shipped(protocol), protocol, "--methods", methods).stdout
    assert report["headline"] in table.splitlines()[2]
    assert f"{report['methods'][0]['figures'][report['headline']]['value']:.2f}" in table
    again = run(shipped(protocol), protocol, "--json", "--methods", methods, "--plot", tmp_path / "again.svg").stdout
    assert again == printed  # nothing depends on time or chance
    assert (tmp_path / "again.svg").read_bytes() == plot.read_bytes()


def test_the_table_says_what_is_kept_left_out_and_needed(coloured: Folders) -> None:
    table = run(coloured("emojicir"), "emojicir").stdout
    assert "The reference picture stays in the ranking" in table
    assert "mAP@10 by family" in table
    assert re.search(r"\nmethod +seen mAP@10 +interval +unseen mAP@10 +interval\nqueries +2 +1\n", table)
    assert re.search(r"not evaluated: .*pic2word.*: needs an inversion network", table)
    assert re.search(r"off the vector +\d", table)


def test_a_gallery_of_less_than_half_is_told_first(shipped: Folders, colours: Path, tmp_path: Path) -> None:
    data, _ = shipped("emojicir")
    few, model = tmp_path / "few", Model.open(colours)
    listed = sorted(path for path in (data / INDEXED["emojicir"]).rglob("*.png"))
    kept = [path for path in listed if "red" in path.name or "blue" in path.name]
    assert 0 < len(kept) < len(listed) / 2, [path.name for path in listed]
    for path in kept:
        (few / path.relative_to(data / INDEXED["emojicir"])).parent.mkdir(parents=True, exist_ok=True)
        (few / path.relative_to(data / INDEXED["emojicir"])).write_bytes(path.read_bytes())
    build_bundle(few, tmp_path / "b", model=model, query_model=model)
    first, blank, heading = run((data, tmp_path / "b"), "emojicir", "--methods", "sum").stdout.splitlines()[:3]
    assert first.startswith(f"WARNING: the gallery has {len(kept)} of the {len(listed)} pictures to be ranked (")
    assert re.search(r"An expected id is \S+\.png, one of the gallery's \S+\.png$", first)
    assert (blank, heading[:9]) == ("", "emojicir ")
    told = run((data, tmp_path / "b"), "emojicir", "--methods", "sum", "--json")
    assert told.stderr == first + "\n"
    assert json.loads(told.stdout)["answered"] > 0


def test_the_heading_says_what_the_headline_is_over(shipped: Folders) -> None:
    options = ("--methods", "sum")
    heading = run(shipped("emojicir"), "emojicir", *options).stdout.splitlines()[0]
    report = json.loads(run(shipped("emojicir"), "emojicir", *options, "--json").stdout)
    plain, negative = (report[key][0]["queries"] for key in ("methods", "negative"))
    assert f"mAP@10 is over {plain} of them, {negative} more have something that is not wanted" in heading
    assert "is over" not in run(shipped("cirr"), "cirr", *options).stdout


@pytest.mark.parametrize(("protocol", "split"), [("cirr", "test1"), ("circo", "test")])
def test_splits_without_answers_give_files_for_the_server(
    protocol: str, split: str, shipped: Folders, colours: Path, tmp_path: Path
) -> None:
    data = WRITERS[protocol](tmp_path / "data")
    add_pictures(data, protocol, 50)
    model = Model.open(colours)
    build_bundle(data / INDEXED[protocol], tmp_path / "bundle", model=model, query_model=model)
    folder = tmp_path / "server"
    options: list[str | Path] = ["--split", split, "--methods", "sum,text", "--submission", folder]
    printed = run((data, tmp_path / "bundle"), protocol, *options).stdout
    assert "2 queries of 2; the test server has the answers" in printed
    if protocol == "cirr":
        recall = json.loads((folder / "cirr-sum-recall.json").read_text())
        subset = json.loads((folder / "cirr-sum-recall_subset.json").read_text())
        assert (recall.pop("version"), recall.pop("metric")) == ("rc2", "recall")
        assert (subset.pop("version"), subset.pop("metric")) == ("rc2", "recall_subset")
        assert list(recall) == list(subset) == ["12060", "12061"]
        assert all(len(names) == 50 and "dev-1-0-red" not in names for names in recall.values())
        assert all(len(names) == 3 and all(name.startswith("dev-1-0-") for name in names) for names in subset.values())
        assert (folder / "cirr-text-recall.json").exists()
    else:
        answers = json.loads((folder / "circo-sum-test.json").read_text())
        assert list(answers) == ["0", "1"]
        assert all(len(set(ids)) == 50 and set(ids) <= {*range(100, 106), *range(200, 250)} for ids in answers.values())
    message = refused(shipped(protocol), protocol, "--split", split)
    assert "give --submission DIR" in message
    assert "give no --limit" in refused(shipped(protocol), protocol, *options, "--limit", "1")
    message = refused(shipped(protocol), protocol, *options[:4], "--submission", tmp_path / "other")
    assert "2 queries have fewer than 50 pictures" in message
    assert not list((tmp_path / "other").iterdir())


def test_settings_reach_the_methods(shipped: Folders) -> None:
    options = ["--methods", "slerp,text", "--set", "slerp.text_share=1.0", "--json"]
    slerp, text = json.loads(run(shipped("circo"), "circo", *options).stdout)["methods"]
    assert slerp["parameters"]["text_share"] == 1.0
    assert slerp["figures"] == text["figures"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("slerp.text_share", "expected METHOD.PARAM=VALUE"),
        ("slerp=1", "expected METHOD.PARAM=VALUE"),
        ("slurp.text_share=1", "slerp"),
        (".text_share=1", "--set is '.text_share=1', expected METHOD.PARAM=VALUE"),
        ("slerp.text=1", "text_share"),
        ("slerp.text_share=7", "from 0 to 1"),
        ("slerp.text_share=much", "text_share is 'much'"),
        ("sum.negative_level=word", "vector, score"),
        ("product.negative_level=vector", "--methods are slerp, sum"),
    ],
)
def test_wrong_settings_are_named(setting: str, message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        parse_settings([setting], ["slerp", "sum"])


def test_a_setting_stands_once() -> None:
    with pytest.raises(BadQuery, match=r"--set slerp\.text_share is given twice: '0.1' and '0.2'"):
        parse_settings(["slerp.text_share=0.1", "slerp.text_share=0.2"], None)


@pytest.mark.parametrize(
    ("given", "names"),
    [("all", None), (" all ,", None), ("sum,", ["sum"]), (" sum , text,,sum", ["sum", "text"])],
)
def test_methods(given: str, names: list[str] | None) -> None:
    assert parse_methods(given) == names


@pytest.mark.parametrize("given", ["", " , ", "all,sum", "sum,all"])
def test_what_is_no_list_of_methods(given: str) -> None:
    with pytest.raises(BadQuery, match="expected names with commas between them, or all alone"):
        parse_methods(given)


def test_several_settings_of_a_method_add_up() -> None:
    settings = ["sum.negative_level=vector", "sum.negative_strength=0.5"]
    assert parse_settings(settings, None) == {"sum": {"negative_level": "vector", "negative_strength": 0.5}}


def test_bad_input_is_named(shipped: Folders, tmp_path: Path) -> None:
    assert "no test server" in refused(shipped("emojicir"), "emojicir", "--submission", tmp_path)
    assert "split is 'nope'" in refused(shipped("cirr"), "cirr", "--split", "nope")
    assert "'nope'" in refused(shipped("cirr"), "cirr", "--methods", "nope")
    data, bundle = shipped("cirr")
    assert "split.rc2.val.json" in refused((tmp_path, bundle), "cirr")
    assert "expected a pocketlens-bundle" in refused((data, tmp_path), "cirr")
    wrong = call(["nope", "--bundle", bundle, "--data", data])
    assert wrong.exit_code == 2
    assert "emojicir" in wrong.output


def test_help_says_which_files_are_expected_where() -> None:
    help = call(["--help"]).output
    for text in ("cap.rc2.SPLIT.json", "queries.jsonl", "image_info_unlabeled2017.json", "dataset_flickr30k.json"):
        assert text in help
    assert "captions_val2017.json" in help
    assert max(map(len, help.splitlines())) <= 110
