from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

import pocketlens
from pocketlens import search_cli
from pocketlens.compose import METHODS
from pocketlens.index import MAX_K
from tests.command import Result, Run
from tests.folders import add_inversion, edit_json, flip, sign, sign_bundle


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "own"))


def failed(result: Result, message: str, *, code: int = 1) -> bool:
    """Assert the exit code and that stderr is one line that starts with `message`."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith(f"pocketlens: {message}"), result.err
    assert result.err.count("\n") == 1
    return True


# search


def test_search_prints_a_table(run: Run, bundle: Path) -> None:
    result = run("search", bundle, "red", "-k", 2)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].split() == ["rank", "cosine", "z", "margin", "picture"]
    assert re.fullmatch(r"   1   0\.\d{3}   \d\.\d\d   0\.\d{3}  more/red copy\.png", lines[1])
    assert len(lines) == 3


def test_the_same_query_prints_the_same_bytes_without_paths_or_times(run: Run, bundle: Path, pictures: Path) -> None:
    arguments = ("search", bundle, "a red", "--image", pictures / "blue.png", "--json")
    first, second = run(*arguments), run(*arguments)
    assert first == second
    assert first.code == 0
    hits = json.loads(first.out)["hits"]
    assert [sorted(hit) for hit in hits] == [["attributes", "cosine", "id", "margin", "score", "uri", "z"]] * 5
    with pocketlens.open(bundle) as lens:
        expected = lens.search(text="a red", image=pictures / "blue.png")
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    assert [hit["cosine"] for hit in hits] == [round(hit.cosine, 4) for hit in expected]
    assert str(bundle.parent) not in first.out
    assert str(pictures) not in first.out


def test_search_by_picture_alone(run: Run, bundle: Path, pictures: Path) -> None:
    out = run("search", bundle, "--image", pictures / "green.png", "--json", "-k", 1, "--threads", 1).out
    assert json.loads(out)["hits"][0]["id"] == "green.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give an EXPRESSION, a --text TEXT, an --image PATH or a --like ID (see pocketlens search --help)"),
        (
            ["red", "-k", "0"],
            "Invalid value for '-k': 0 is not in the range 1<=x<=1000. (see pocketlens search --help)",
        ),
        (["red", "-k", "-3"], "Invalid value for '-k': -3 is not in the range"),
        (["red", "-k", "1001"], "Invalid value for '-k': 1001 is not in the range"),
        (["red", "-k", "many"], "Invalid value for '-k': 'many' is not a valid integer range."),
        (["red", "--threads", "0"], "Invalid value for '--threads': 0 is not in the range"),
        (["red", "blue"], "Got unexpected extra argument (blue)"),
        (["red", "--nonsense"], "No such option"),
        (
            ["-people"],
            "No such option '-people'; what is not wanted has a space after the minus, '- people', and --text",
        ),
        (["-2:people + red"], "No such option '-2:people + red'; what is not wanted has a space after the minus"),
        (["-kitchen"], "No such option '-kitchen'; what is not wanted"),
    ],
)
def test_a_wrong_call_of_search_is_one_line_and_exit_code_2(
    run: Run, bundle: Path, arguments: list[str], message: str
) -> None:
    assert failed(run("search", bundle, *arguments), message, code=2)


def test_the_range_of_k_is_that_of_the_library() -> None:
    option = next(parameter for parameter in search_cli.search.params if parameter.name == "k")
    assert isinstance(option.type, click.IntRange)
    assert (option.type.min, option.type.max) == (1, MAX_K)


def test_a_query_that_cannot_be_encoded_is_one_line_and_exit_code_1(
    run: Run, bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    for name, reason in (("notes.txt", "not one of JPEG"), ("broken.jpg", ""), ("missing.jpg", "No such file")):
        path = pictures / name
        assert failed(run("search", bundle, "--image", path), f"{path}: cannot be read as a picture: {reason}")
    assert failed(
        run("search", bundle, "--image", pictures), f"{pictures}: cannot be read as a picture: no regular file"
    )


def test_an_expression_is_its_parts(run: Run, bundle: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    found = run("search", bundle, "./red.png + 2:a green - blue", "--json")
    with pocketlens.open(bundle) as lens:
        expected = lens.search(parts=[("image", "red.png"), ("text", "a green", 2.0), ("text", "blue", -1.0)])
    assert (found.code, found.err) == (0, "")
    told = json.loads(found.out)
    assert [hit["id"] for hit in told["hits"]] == [hit.id for hit in expected]
    assert (told["method"], told["why"], told["names"]) == (expected.method, expected.why, [])
    assert told["parameters"] == expected.parameters
    assert [hit["score"] for hit in told["hits"]] == [pytest.approx(hit.score, rel=1e-4) for hit in expected]
    same = run("search", bundle, "./red.png", "--text", "a green", "--negative", "blue", "--json")
    assert json.loads(same.out)["method"] == told["method"]
    options = ("--image", "red.png", "--text", "a green", "--negative", "blue")
    assert run("search", bundle, *options, "--json") == same


def test_the_method_and_its_parameters_can_be_chosen(run: Run, bundle: Path, pictures: Path) -> None:
    query = ("search", bundle, f"{pictures / 'red.png'} + green")
    found = json.loads(run(*query, "--method", "slerp", "--set", "text_share=0.25", "--json").out)
    assert (found["method"], found["parameters"], found["why"]) == ("slerp", {"text_share": 0.25}, "asked for")
    told = run(*query, "--method", "product", "-k", 1)
    assert told.err == "method: product (asked for)\n"
    assert told.out.splitlines()[0].split() == ["rank", "score", "cosine", "z", "margin", "picture"]
    level = json.loads(run(*query, "--negative", "blue", "--set", "negative_level=vector", "--json").out)
    assert level["parameters"]["negative_level"] == "vector"
    chosen = run(*query, "-k", 1)
    assert chosen.err.startswith("method: weicom (none of the usable methods was measured")
    assert failed(run(*query, "--method", "slerpp"), "there is no method 'slerpp' (did you mean slerp?)")
    assert failed(run(*query, "--method", "slerp", "--set", "text_share=2"), "method slerp: text_share is 2, expected")
    assert failed(
        run(*query, "--method", "lincir"), "method lincir cannot be used with this bundle, which lacks an inv"
    )
    for wrong in ("text_share", "=1", ""):
        assert failed(run(*query, "--set", wrong), f"--set is {wrong!r}, expected NAME=VALUE", code=2)
    twice = run(*query, "--set", "text_share=0.2", "--set", "text_share=0.8")
    assert failed(twice, "--set text_share is given twice", code=2)


def test_text_is_taken_as_it_stands(run: Run, bundle: Path) -> None:
    for text in ("red + blue", "- red", "2:red", "./red.png"):
        found = json.loads(run("search", bundle, f"--text={text}", "--json").out)
        with pocketlens.open(bundle) as lens:
            assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in lens.search(text=text)]
        assert found["method"] == "text"
        assert json.loads(run("search", bundle, "--text", text, "--json").out) == found


def test_an_expression_may_start_with_an_operator(run: Run, bundle: Path) -> None:
    found = run("search", bundle, "- blue + red", "--json", "-k", 2)
    assert found == run("search", bundle, "red - blue", "-k", 2, "--json")
    assert found == run("search", "--json", "-k", 2, "--", bundle, "- blue + red")
    assert found.code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["red + "], "'red + ': nothing stands after '+'"),
        (["red + ./no.png"], "'red + ./no.png': there is no file no.png; a part that starts with ./, ../, /, ~/ is"),
        (["red + 0:blue"], "'red + 0:blue': part '0:blue' has the weight 0, expected 0.001 to 100"),
        (["red - -2:blue"], "'red - -2:blue': '-2:blue' after '-' has a sign of its own; expected '- 2:blue'"),
        (["--text", " "], "--text is empty"),
        (["red", "--negative", ""], "--negative is empty"),
        (["- people"], "'- people': nothing is wanted: every part of the query is negative"),
        (["-\tpeople - cars"], "'-\\tpeople - cars': nothing is wanted"),
        (["red", "--method", "sum"], "method sum needs a picture, and the query wants none"),
    ],
)
def test_a_wrong_query_is_one_line_and_exit_code_1(run: Run, bundle: Path, arguments: list[str], message: str) -> None:
    assert failed(run("search", bundle, *arguments), message)


def test_texts_and_pictures_may_be_repeated(run: Run, bundle: Path, pictures: Path) -> None:
    red, blue = pictures / "red.png", pictures / "blue.png"
    found = json.loads(run("search", bundle, "--image", red, "--image", blue, "--json").out)
    with pocketlens.open(bundle) as lens:
        expected = lens.search(parts=[("image", red), ("image", blue)])
        texts = lens.search(parts=[("text", "a red"), ("text", "-blue")])
    assert [hit["cosine"] for hit in found["hits"]] == [round(hit.cosine, 4) for hit in expected]
    found = json.loads(run("search", bundle, "--text", "a red", "--text", "-blue", "-k10", "--json").out)
    assert [hit["cosine"] for hit in found["hits"]] == [round(hit.cosine, 4) for hit in texts]


def test_a_file_where_words_are_expected(
    run: Run, bundle: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    assert failed(
        run("search", bundle, "red.png + blue"), "'red.png + blue': 'red.png' is a file here; a picture starts"
    )
    assert failed(run("search", bundle, "red", "--negative", "./red.png"), "--negative is './red.png', a file, and")
    assert run("search", bundle, "--text", "red.png").code == 0


def test_a_parameter_that_auto_has_no_use_for(run: Run, bundle: Path, pictures: Path) -> None:
    chosen = "auto chose the method text, which has no parameter harris; methods that have it: basic\n"
    assert failed(run("search", bundle, "red + blue", "--set", "harris=0.1"), chosen)
    both = (f"{pictures / 'red.png'} + blue", "--set", "names_kept=2")
    chosen = "auto chose the method weicom, which has no parameter names_kept; methods that have it: freedom, pdv-names"
    assert failed(run("search", bundle, *both), chosen)
    assert failed(run("search", bundle, "red + blue", "--set", "x=1"), "method text: there is no parameter 'x'")


# methods


def test_all_methods_are_listed(run: Run) -> None:
    result = run("methods")
    assert (result.code, result.err) == (0, "")
    heading, *lines = result.out.splitlines()
    assert heading.split("  ")[0] == "method" and "usable" not in heading
    assert [line.split()[0] for line in lines] == list(METHODS)
    told = json.loads(run("methods", "--json").out)["methods"]
    assert [method["name"] for method in told] == list(METHODS)
    assert told[0]["formula"] == METHODS[told[0]["name"]].formula
    slerp = next(method for method in told if method["name"] == "slerp")
    default = METHODS["slerp"].parameters["text_share"].default
    assert slerp["parameters"]["text_share"].items() >= {"default": default, "least": 0.0, "most": 1.0}.items()


def test_methods_of_a_bundle_say_whether_they_can_be_used(run: Run, own: Path) -> None:
    add_inversion(own / "text", "lincir")
    edit_json(own / "text" / "model.json", quality={"composed_pdv_lincir_map_at_10": 0.1834})
    sign_bundle(own)
    result = run("methods", own)
    rows = {line.split()[0]: line for line in result.out.splitlines()}
    assert re.search(r"  yes     0\.183   ", rows["pdv-lincir"])
    assert re.search(r"  yes     -       ", rows["slerp"])
    assert re.search(r"  no      -       ", rows["freedom"])
    told = {method["name"]: method for method in json.loads(run("methods", own, "--json").out)["methods"]}
    assert (told["pdv-lincir"]["missing"], told["pdv-lincir"]["map_at_10"]) == ([], 0.1834)
    assert "pocketlens fit concepts, then pocketlens pack" in told["freedom"]["missing"][0]
    assert run("methods", own / "text").out == result.out
    assert run("methods", "lens-base").code == 0


@pytest.mark.parametrize(("tower", "other"), [("text", "image"), ("image", "text")])
def test_methods_of_a_bundle_with_one_tower(
    run: Run, bundle: Path, colours: Path, tmp_path: Path, tower: str, other: str
) -> None:
    out = tmp_path / "b"
    assert run("pack", "--gallery", bundle / "gallery", f"--{tower}", colours, "--out", out).code == 0
    told = {method["name"]: method["missing"] for method in json.loads(run("methods", out, "--json").out)["methods"]}
    assert told[tower] == []
    assert (
        told[other]
        == told["sum"]
        == [f"{'a' if other == 'text' else 'an'} {other} tower: pocketlens pack --{other} MODEL"]
    )


def test_one_method_is_explained(run: Run, bundle: Path) -> None:
    out = run("methods", "--method", "pdv-lincir").out
    assert METHODS["pdv-lincir"].formula in out and METHODS["pdv-lincir"].source in out
    for name, parameter in METHODS["pdv-lincir"].parameters.items():
        assert f"    {name} = " in out and parameter.about in out
    assert "    direction = fused (text, image, fused): " in out
    assert "    image_strength = 1.2 (-2 to 4): " in out
    assert "missing      an inversion network" in run("methods", bundle, "--method", "pdv-lincir").out
    assert failed(run("methods", "--method", "x"), "there is no method 'x'")
    assert failed(run("methods", bundle / "gallery"), f"{bundle / 'gallery'}")


@pytest.mark.parametrize("command", ["search", "info", "verify", "bench"])
@pytest.mark.parametrize("kind", ["missing", "foreign", "file", "empty"])
def test_a_folder_that_is_no_bundle_is_one_line_that_names_it(
    run: Run, tmp_path: Path, pictures: Path, command: str, kind: str
) -> None:
    path = {"missing": tmp_path / "none", "foreign": pictures, "file": pictures / "notes.txt", "empty": tmp_path}[kind]
    result = run(command, path, *(["red"] if command == "search" else []))
    assert failed(result, str(path))
    assert "expected" in result.err or "not a pocketlens folder" in result.err


def test_a_damaged_bundle_names_the_file_what_was_found_and_expected(run: Run, own: Path) -> None:
    flip(own / "gallery" / "index.usearch", 200)
    for command in (["search", own, "red"], ["verify", own], ["bench", own, "--json"]):
        result = run(*command)
        assert failed(result, f"{own}/gallery/index.usearch is damaged: found sha256 ")
        assert ", expected sha256 " in result.err


def test_more_like_a_picture_of_the_gallery(run: Run, bundle: Path) -> None:
    result = run("search", bundle, "--like", "red.png", "-k", 2, "--json")
    assert (result.code, result.err) == (0, "")
    assert next(hit["id"] for hit in json.loads(result.out)["hits"]) == "more/red copy.png"
    hits = json.loads(run("search", bundle, "--like", "red.png", "--diverse", "--json").out)["hits"]
    assert [hit["id"] for hit in hits if "red" in hit["id"]] == []
    assert failed(run("search", bundle, "--like", "none.png"), "no item has the id 'none.png'; an id is a picture's")
    for other in (["red"], ["--text", "red"], ["--image", "x.png"], ["--negative", "x"], ["--method", "sum"]):
        assert failed(run("search", bundle, "--like", "red.png", *other), "--like ID stands alone: it takes", code=2)


def test_min_z_and_diverse_leave_hits_out(run: Run, bundle: Path) -> None:
    every = json.loads(run("search", bundle, "red", "--json").out)["hits"]
    few = json.loads(run("search", bundle, "red", "--json", "--min-z", "0").out)["hits"]
    assert few == [hit for hit in every if hit["z"] >= 0]
    assert 0 < len(few) < len(every)
    assert json.loads(run("search", bundle, "red", "--json", "--min-z", 100).out)["hits"] == []
    assert len(json.loads(run("search", bundle, "red", "--json", "--diverse").out)["hits"]) == len(every) - 1
    assert failed(run("search", bundle, "red", "--min-z", "nan"), "min_z is nan, expected a number from -1e6 to 1e6")
    assert failed(run("search", bundle, "red", "--min-z", "much"), "Invalid value for '--min-z'", code=2)
    few = json.loads(run("search", bundle, "red", "--json", "--min-margin", "0").out)["hits"]
    assert few == [hit for hit in every if hit["margin"] >= 0]
    assert 0 < len(few) < len(every)
    assert failed(run("search", bundle, "red", "--min-margin", "inf"), "min_margin is inf, expected a number from")


def test_duplicates_lists_groups(run: Run, bundle: Path, own: Path) -> None:
    for arguments in ((), ("--exact",), ("--near", 1)):
        result = run("duplicates", bundle, *arguments)
        assert (result.code, result.err) == (0, "1 of 5 pictures are copies, in 1 groups\n")
        assert result.out == "keep           more/red copy.png  40 x 30\n  exact 1.000  red.png  40 x 30\n"
    values = json.loads(run("duplicates", bundle, "--near", 0.2, "--json").out)
    assert (values["items"], values["near"], len(values["groups"])) == (5, 0.2, 1)
    assert {copy["id"]: copy["exact"] for copy in values["groups"][0]["copies"]} == {
        "green.png": False, "more/red copy.png": False, "red.png": False, "white.png": False,
    }  # fmt: skip
    for near in (0, 1.1, "x"):
        assert failed(run("duplicates", bundle, "--near", near), "Invalid value for '--near'", code=2)
    assert failed(run("duplicates", bundle / "none"), f"{bundle}/none does not exist")
    flip(own / "gallery" / "items.sqlite", 5_000)
    assert failed(run("duplicates", own), f"{own}/gallery/items.sqlite is damaged")


# info and verify


def test_info_tells_each_kind_of_folder_apart(run: Run, bundle: Path, colours: Path) -> None:
    for path, kind in ((bundle, "bundle"), (bundle / "gallery", "gallery"), (colours, "model")):
        first, text = run("info", path, "--json"), run("info", path)
        assert (first.code, text.code, first.err, text.err) == (0, 0, "", "")
        assert json.loads(first.out)["kind"] == kind
        assert re.search(rf"^kind +{kind}$", text.out, flags=re.MULTILINE)
        assert str(path) not in first.out
        assert run("info", path, "--json") == first
    described = json.loads(run("info", colours, "--json").out)
    expected = json.loads((colours / "model.json").read_text())
    assert {key: described[key] for key in expected if key not in ("format", "version")} == {
        key: value for key, value in expected.items() if key not in ("format", "version")
    }
    whole = json.loads(run("info", bundle, "--json").out)
    assert re.search(r"segments 1\n +generation 1\n", run("info", bundle).out)
    assert whole["gallery"]["counts"]["indexed"] == 4
    assert whole["text"]["licence"] == whole["image"]["licence"] == "Apache-2.0"


def test_verify_says_what_it_checked(run: Run, bundle: Path, colours: Path) -> None:
    for path, lines in ((bundle, 7), (bundle / "gallery", 2), (colours, 4)):
        result = run("verify", path)
        assert (result.code, result.err) == (0, "")
        assert result.out.splitlines()[-1] == "ok"
        assert len(result.out.splitlines()) == lines
    assert "4 golden texts replayed, least cosine 1.000000" in run("verify", colours).out
    assert "3 golden pictures replayed, least cosine 1.000000" in run("verify", colours).out


def _change_golden(folder: Path, name: str, value: Any) -> None:
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value(arrays[name])
    np.savez(folder / "golden.npz", **arrays)
    sign(folder / "model.json")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text_embedding", lambda a: np.roll(a, 1, axis=1), "golden text embeddings at cosine"),
        ("text_embedding", lambda a: a + np.float32(2e-4), "golden text embeddings at cosine"),
        ("image_embedding", lambda a: -a, "golden picture embeddings at cosine -1.000000, max abs"),
        ("image_embedding", lambda a: a * np.nan, "golden picture embeddings at cosine nan"),
        ("pixels", lambda a: a // 2, "golden picture embeddings at cosine"),
        ("text_ids", lambda a: np.where(a == 4, 5, a), "the tokenizer gives other ids than the reference for 'red'"),
        ("text_ids", lambda a: np.where(a == 0, 8, a), "the tokenizer gives other ids than the reference for 'red'"),
        ("text_utf8", lambda a: a[::-1].copy(), "the tokenizer gives other ids than the reference"),
        ("pixels", None, "not an .npz file with the arrays pixels"),
        ("text_embedding", None, "not an .npz file with the arrays text_ids"),
        ("image_max_abs", None, "not an .npz file with the arrays"),
    ],
)
def test_verify_fails_when_golden_values_are_not_met(
    run: Run, colours: Path, tmp_path: Path, name: str, value: Any, message: str
) -> None:
    folder = Path(shutil.copytree(colours, tmp_path / "m"))
    _change_golden(folder, name, value)
    result = run("verify", folder)
    assert failed(result, str(folder))
    assert message in result.err


def test_verify_asks_for_the_cosine_too(run: Run, colours: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(colours, tmp_path / "m"))
    _change_golden(folder, "text_max_abs", lambda a: a + 10)
    assert run("verify", folder).code == 0
    _change_golden(folder, "image_embedding", lambda a: -a)
    assert failed(run("verify", folder), f"{folder} is damaged: found golden picture embeddings at cosine -1.000000")


@pytest.mark.parametrize("tower", ["text", "image"])
def test_verify_of_a_bundle_replays_both_towers(run: Run, own: Path, tower: str) -> None:
    _change_golden(own / tower, f"{tower}_embedding", lambda a: -a)
    sign_bundle(own)
    assert failed(run("verify", own), f"{own / tower} is damaged: found golden")


def test_verify_finds_a_changed_bundle_json(run: Run, own: Path) -> None:
    edit_json(own / "bundle.json", space__id="other@1")
    assert failed(run("verify", own), f"{own}/bundle.json is damaged")


# index and pack


def test_index_counts_and_names_what_it_skipped(run: Run, pictures: Path, colours: Path, tmp_path: Path) -> None:
    result = run("index", pictures, "--out", tmp_path / "b", "--model", colours)
    assert result.code == 0
    counted = "4 pictures indexed, 1 duplicates, 1 not a picture, 1 truncated; 7 files seen"
    assert result.out == f"{tmp_path}/b: {counted}\n"
    assert "skipped broken.jpg: truncated: " in result.err
    assert run("verify", tmp_path / "b").code == 0
    assert run("index", pictures, "--out", tmp_path / "b", "--model", colours).code == 1  # exists
    again = run("index", pictures, "--out", tmp_path / "b", "--model", colours, "--replace", "--json", "--no-rescore")
    assert json.loads(again.out) == {
        "seen": 7, "indexed": 4, "duplicates": 1, "skipped": {"not a picture": 1, "truncated": 1},
    }  # fmt: skip
    assert not (tmp_path / "b" / "gallery" / "rescore.f16").exists()
    assert run("search", tmp_path / "b", "red", "-k", 1).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_five_skipped_files_of_each_kind_are_named(run: Run, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for i in range(7):
        (tmp_path / "p" / f"{i}.jpg").write_bytes(b"\xff\xd8\xff broken")
        (tmp_path / "p" / f"{i}.heic").write_bytes(b"a format that is not read")
    Image.new("RGB", (9, 9)).save(tmp_path / "p" / "good.png")
    result = run("index", tmp_path / "p", "--out", tmp_path / "b", "--model", colours)
    told = [line.split(":")[0] for line in result.err.splitlines()]
    truncated, unsupported = ([f"skipped {i}.{suffix}" for i in range(5)] for suffix in ("jpg", "heic"))
    assert told == [*truncated, "… and 2 more", *unsupported, "… and 2 more", "pocketlens"]
    assert result.code == 1 and "14 of 15 pictures (93.3%) were skipped" in result.err
    assert "1 pictures indexed, 0 duplicates, 7 truncated, 7 unsupported format; 15 files seen" in result.out


def test_a_failing_index_is_one_line_and_leaves_nothing(
    run: Run, pictures: Path, colours: Path, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    out, model = tmp_path / "b", ["--model", colours]
    assert failed(
        run("index", tmp_path / "empty", "--out", out, *model),
        f"{tmp_path}/empty: no picture could be read, of 0 files; nothing was written",
    )
    assert failed(run("index", tmp_path / "none", "--out", out, *model), f"{tmp_path}/none is not a folder; expected")
    assert failed(run("index", pictures, "--out", out, "--model", "nonsense"), "nonsense: neither a model folder nor")
    assert failed(run("index", pictures, "--out", out, "--model", pictures), f"{pictures}/model.json not found")
    assert failed(
        run("index", pictures, "--out", out, "--model", bundle / "text"), f"{bundle}/text: model colours has no"
    )
    assert failed(
        run("index", pictures, "--out", tmp_path / "empty", *model),
        f"{tmp_path}/empty exists already; give --replace, --u",
    )
    assert failed(run("index", pictures, *model), "give --out BUNDLE for a new bundle, or --update BUNDLE", code=2)
    assert failed(run("index", pictures, "--out", out, "--threads", "x"), "Invalid value for '--threads'", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_model_that_ships_goes_by_its_name(run: Run) -> None:
    assert json.loads(run("info", "lens-base", "--json").out)["name"] == "lens-base"
    assert run("verify", "lens-base").out.endswith("ok\n")
    assert failed(run("info", "lens-bass"), "lens-bass is not a folder")


def test_index_says_when_the_bundle_will_refuse_texts(run: Run, pictures: Path, colours: Path, tmp_path: Path) -> None:
    shutil.copytree(colours, tmp_path / "m")
    edit_json(tmp_path / "m" / "model.json", text__tokenizer=None)
    result = run("index", pictures, "--out", tmp_path / "b", "--model", tmp_path / "m")
    assert result.code == 0
    assert f"{tmp_path}/b will refuse texts" in result.err
    assert "will refuse" not in run("index", pictures, "--out", tmp_path / "c", "--model", colours).err
    assert failed(
        run("search", tmp_path / "b", "red"), f"{tmp_path}/b/text: model colours was exported without a tokenizer"
    )


def test_replace_never_removes_a_folder_of_something_else(
    run: Run, pictures: Path, colours: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "diary.txt").write_text("dear diary")
    result = run("index", pictures, "--out", tmp_path / "precious", "--model", colours, "--replace")
    assert failed(result, f"{tmp_path}/precious is not replaced: {tmp_path}/precious/")
    assert (tmp_path / "precious" / "diary.txt").read_text() == "dear diary"


def test_pack_puts_parts_together(run: Run, bundle: Path, colours: Path, tmp_path: Path) -> None:
    parts = ["--gallery", bundle / "gallery", "--out", tmp_path / "b"]
    assert failed(run("pack", *parts), "give --text MODEL, --image MODEL, or both", code=2)
    assert failed(run("pack", *parts, "--text", "nonsense"), "nonsense: neither a model folder nor a model that ships")
    assert list(tmp_path.iterdir()) == []
    whole = run("pack", "--gallery", bundle, "--text", colours, "--out", tmp_path / "b")
    assert failed(whole, f"{bundle} is a bundle, expected a gallery: give {bundle}/gallery")
    assert run("pack", *parts, "--text", colours) == (0, f"{tmp_path}/b: a bundle of {bundle}/gallery\n", "")
    assert failed(run("pack", *parts, "--text", colours), f"{tmp_path}/b exists already; give --replace or")
    assert run("pack", *parts, "--image", colours, "--replace").code == 0
    assert failed(
        run("search", tmp_path / "b", "red"), "this bundle has no text tower, so it cannot answer text queries"
    )


# the command itself


def test_every_command_has_help(run: Run) -> None:
    listed = run("--help")
    assert (listed.code, listed.err) == (0, "")
    commands = re.findall(r"^  (\w+)  +\S.*", listed.out.partition("Commands:\n")[2], flags=re.MULTILINE)
    assert {"bench", "duplicates", "export", "index", "info", "pack", "search", "verify"} <= set(commands)
    for name in commands:
        assert run(name, "--help").out.startswith(f"Usage: pocketlens {name} ")
    assert run("--version").out.split()[-1] == pocketlens.__version__


def test_the_help_of_search_says_what_its_columns_are_and_where_paths_begin(run: Run) -> None:
    told = " ".join(run("search", "--help").out.split())
    for words in (
        "ranks by what it made of them, the score",
        "z are then the mean over",
        "sought from the current folder",
    ):
        assert words in told


def test_no_command_and_a_wrong_one_are_exit_code_2(run: Run) -> None:
    assert run().code == 2
    assert failed(run("nonsense"), "No such command 'nonsense'. (see pocketlens --help)", code=2)


def test_the_installed_script_behaves_alike(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("pocketlens")
    assert script.is_file()

    def call(*arguments: object) -> Result:
        done = subprocess.run([script, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path)
        return Result(done.returncode, done.stdout, done.stderr)

    query = ("search", bundle, "red", "--image", pictures / "red.png", "--json")
    assert call(*query) == call(*query)
    assert call(*query).code == 0
    assert failed(call("search", tmp_path / "none", "red"), f"{tmp_path}/none does not exist; expected a")
    assert failed(call("search", bundle), "give an EXPRESSION", code=2)
    assert list(tmp_path.iterdir()) == []


def test_any_file_name_is_shown_on_any_terminal(colours: Path, tmp_path: Path) -> None:
    name = "🦁 ж\n\x1b[31mred\x9b.png"
    (tmp_path / "p").mkdir()
    Image.new("RGB", (9, 9), (200, 0, 0)).save(tmp_path / "p" / name)
    script = Path(sys.executable).with_name("pocketlens")

    def call(encoding: str, *arguments: object) -> Result:
        done = subprocess.run(
            [script, *map(str, arguments)], capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
        )
        return Result(done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding))

    assert call("latin-1", "index", tmp_path / "p", "--out", tmp_path / "b", "--model", colours).code == 0
    query = ("search", tmp_path / "b", "red")
    for encoding in ("latin-1", "cp1252", "utf-8"):
        found = call(encoding, *query, "--json")
        assert (found.code, found.err) == (0, "")
        assert json.loads(found.out)["hits"][0]["id"] == name
        table = call(encoding, *query)
        assert (table.code, table.err) == (0, "")
        assert len(table.out.splitlines()) == 2
        assert table.out.endswith("\\n\\x1b[31mred\\x9b.png\n")
    assert "🦁 ж" in call("utf-8", *query).out
    assert r"\U0001f981 \u0436" in call("latin-1", *query).out
    assert failed(call("latin-1", "info", tmp_path / name), f"{tmp_path}/\\U0001f981 \\u0436\\n\\x1b[31mred")


def test_a_terminated_index_leaves_nothing_behind(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "out").mkdir()
    picture = io.BytesIO()
    Image.new("RGB", (5000, 4000)).save(picture, "PNG")  # few bytes, and slow to decode: many seconds for all
    for i in range(300):  # other bytes after the end: no duplicates, which would be encoded once
        (tmp_path / "p" / f"{i}.png").write_bytes(picture.getvalue() + bytes([i % 256, i // 256]))
    script = Path(sys.executable).with_name("pocketlens")
    command = [str(script), "index", str(tmp_path / "p"), "--out", str(tmp_path / "out" / "b"), "--model", str(colours)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while running.poll() is None and not any((tmp_path / "out").iterdir()):
            time.sleep(0.01)
        assert running.poll() is None
        assert [path.name.startswith(".b.") for path in (tmp_path / "out").iterdir()] == [True]
        running.terminate()
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (143, "", "")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(bundle: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from pocketlens.cli import main; main()"
    command = [sys.executable, "-c", code, "export", "--model", "ViT-B-32", "--pretrained", "random:0", "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'pocketlens: pocketlens export needs torch, which is not installed: pip install "pocketlens[export]"\n'
    )
