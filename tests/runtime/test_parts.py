from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from pocketlens.errors import BadQuery
from pocketlens.parts import PATH_STARTS, Part, parse_expression, read_parts, shorthand


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a red bicycle", [("text", "a red bicycle", 1)]),
        ("  a red  bicycle ", [("text", "a red  bicycle", 1)]),
        ("./me.jpg + 2:at night - people", [("image", "me.jpg", 1), ("text", "at night", 2), ("text", "people", -1)]),
        ("../a b.png - 0.5:people", [("image", "../a b.png", 1), ("text", "people", -0.5)]),
        ("/tmp/x.png + .5:/tmp/y.png", [("image", "/tmp/x.png", 1), ("image", "/tmp/y.png", 0.5)]),
        ("- people + a beach", [("text", "people", -1), ("text", "a beach", 1)]),
        ("+ a beach", [("text", "a beach", 1)]),
        ("a\t+\nb", [("text", "a", 1), ("text", "b", 1)]),
        ("black-and-white C++ +1 -2", [("text", "black-and-white C++ +1 -2", 1)]),
        ("12:30 clock", [("text", "12:30 clock", 1)]),
        ("2:12:30 clock", [("text", "2:12:30 clock", 1)]),
        ("2: 12:30 clock", [("text", "12:30 clock", 2)]),
        ("3.:x", [("text", "x", 3)]),
        ("1e2:x", [("text", "1e2:x", 1)]),
        ("-2:x", [("text", "-2:x", 1)]),
        ("٣:x", [("text", "٣:x", 1)]),  # a digit, but not one of a weight
        ("note: a cat", [("text", "note: a cat", 1)]),
        (".hidden ~ /x", [("text", ".hidden ~ /x", 1)]),
        ("$ + a \0\ud800", [("text", "$", 1), ("text", "a \0\ud800", 1)]),
    ],
)
def test_expressions_by_hand(expression: str, expected: list[tuple[str, str, float]]) -> None:
    found = parse_expression(expression)
    assert [(part.kind, part.value, part.weight) for part in found] == [
        (kind, Path(value) if kind == "image" else value, weight) for kind, value, weight in expected
    ]


def test_a_path_below_home_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/elsewhere")
    assert parse_expression("2:~/a.jpg") == [Part("image", Path("/elsewhere/a.jpg"), 2.0)]
    assert parse_expression("./~ + ./~\0") == [Part("image", Path("~")), Part("image", Path("~\0"))]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "the expression is empty"),
        (" \n", "the expression is empty"),
        ("a + ", "'a + ': nothing stands after '+', expected a text or the path of a picture"),
        ("a + - b", "'a + - b': nothing stands after '+'"),
        ("a - + b", "'a - + b': nothing stands after '-'"),
        ("-", "'-': nothing stands after '-'"),
        ("a - 2:", "'a - 2:': nothing stands after the weight 2"),
        ("- people", "'- people': nothing is wanted: every part of the query is negative"),
        ("- a - b", "nothing is wanted"),
        ("a - 0.0009:b", "part '0.0009:b' has the weight 0.0009, expected 0.001 to 100"),
        ("a - -2:b", "'-2:b' after '-' has a sign of its own; expected '- 2:b'"),
        ("a + +.5: b - c", "'+.5: b' after '+' has a sign of its own; expected '+ .5: b'"),
        ("0:a", "part '0:a' has the weight 0, expected 0.001 to 100"),
        ("100.5:a", "part '100.5:a' has the weight 100.5"),
        ("9" * 400 + ":a", "has the weight inf"),
    ],
)
def test_a_wrong_expression_is_shown(expression: str, message: str) -> None:
    with pytest.raises(BadQuery) as caught:
        parse_expression(expression)
    assert message in str(caught.value)
    assert "minus" not in str(caught.value)


@given(expression=st.text(st.sampled_from("ab 12:.+-/~\t\ud800\0é"), max_size=20) | st.text(st.characters()))
def test_any_expression_has_parts_or_is_a_bad_query(expression: str) -> None:
    try:
        parts = parse_expression(expression)
    except BadQuery as error:
        str(error).encode()  # an expression that is shown can be printed
        return
    assert read_parts(parts) == parts


TEXT = st.text(st.sampled_from("abc 12:.+-/~é"), min_size=1).map(str.strip).filter(bool)


@given(
    parts=st.lists(
        st.tuples(st.booleans(), TEXT, st.sampled_from([1.0, -1.0, 2.0, -0.5, 0.001, 100.0, -12.25])), min_size=1
    )
)
def test_what_is_formatted_is_parsed_back(parts: list[tuple[bool, str, float]]) -> None:
    assume(any(weight > 0 for _, _, weight in parts))
    expected = [Part("image", Path("/x") / "y" / value) if image else Part("text", value) for image, value, _ in parts]
    expected = [Part(each.kind, each.value, weight) for each, (_, _, weight) in zip(expected, parts, strict=True)]
    assume(all(f" {sign} " not in f" {each.value!s} " for each in expected for sign in "+-"))
    assume(all(each.kind == "image" or not str(each.value).startswith(PATH_STARTS) for each in expected))
    assume(all(not str(each.value)[0].isdigit() and str(each.value)[0] != "." for each in expected))
    assume(all(str(each.value) == str(each.value).strip() for each in expected))  # "/x/y/a /" is a path to "a "
    expression = " ".join(f"{'-' if each.weight < 0 else '+'} {abs(each.weight)!r}:{each.value!s}" for each in expected)
    assert parse_expression(expression) == expected
    assert parse_expression(expression.removeprefix("+ ")) == expected


def test_parts_of_two_and_three_values() -> None:
    image = Image.new("RGB", (2, 2))
    given = [("image", b"x", np.float32(2)), ["text", "at night"], Part("text", "people", -0.5), ("image", image, 1)]
    found = read_parts(given)  # type: ignore[arg-type]
    assert found[:2] == [Part("image", b"x", 2.0), Part("text", "at night", 1.0)]
    assert found[2:] == [Part("text", "people", -0.5), Part("image", image, 1.0)]
    assert all(type(part.weight) is float for part in found)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "parts is empty, expected at least one"),
        ("a text", "parts is of type str, expected a list of"),
        ({"text": "a"}, "parts is of type dict"),
        (3, "parts is of type int"),
        ([("text", "a"), "b"], "parts[1] is str, expected"),
        ([("text", "a"), ("text",)], "parts[1] is 1 values, expected"),
        ([("text", "a", 1, 2)], "parts[0] is 4 values"),
        (
            [("text", "a"), ("text", "b"), ("video", "c", 1.0)],
            'parts[2] is of kind \'video\', expected "text" or "image"',
        ),
        ([(["text"], "a")], "parts[0] is of kind ['text']"),
        ([("text", Path("a"))], "parts[0] must be a str, found PosixPath"),
        ([("text", None)], "parts[0] must be a str, found NoneType"),
        ([("image", 3)], "parts[0] must be bytes, a path or a PIL image, found int"),
        ([("text", "a"), ("text", " \n")], "parts[1] is empty, expected some words"),
        ([("text", "é" * 65_537)], "parts[0] has 65,537 characters, expected at most 65,536"),
        ([("text", " " * 5000 + "a")], "parts[0] is empty"),
        ([("text", "a", 0)], "parts[0] has the weight 0, expected 0.001 to 100, with a minus for what is not wanted"),
        ([("text", "a", -0.0)], "parts[0] has the weight -0"),
        ([("text", "b"), ("text", "a", 5e-324)], "parts[1] has the weight 4.94066e-324, expected 0.001 to 100"),
        ([("text", "b"), ("text", "a", -9e-4)], "parts[1] has the weight -0.0009, expected 0.001 to 100"),
        ([("text", "a", math.nan)], "parts[0] has the weight nan"),
        ([("text", "a", math.inf)], "parts[0] has the weight inf"),
        ([("text", "a", -math.inf)], "parts[0] has the weight -inf"),
        ([("text", "a", 100.1)], "parts[0] has the weight 100.1"),
        ([("text", "a", 10**400)], "parts[0] has the weight inf"),
        ([("text", "a", True)], "parts[0] has a weight of type bool, expected a number"),
        ([("text", "a", "1")], "parts[0] has a weight of type str"),
        ([("text", "a", None)], "parts[0] has a weight of type NoneType"),
        ([("text", "a", -1), ("image", b"", -2.0)], "nothing is wanted"),
    ],
)
def test_a_wrong_part_is_named(parts: Any, message: str) -> None:
    with pytest.raises(BadQuery) as caught:
        read_parts(parts)
    assert message in str(caught.value)


def test_the_shorthands_are_parts() -> None:
    picture, night, people = Part("image", "a.jpg"), Part("text", "night"), Part("text", "people", -1.0)
    assert shorthand("night", "a.jpg", "people") == [picture, night, people]
    assert shorthand(None, "a.jpg", ["people", "cars"]) == [picture, people, Part("text", "cars", -1.0)]
    assert shorthand("night", None, []) == [night]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, None), "a query needs a text, an image or both; found neither"),
        ((None, None, "people"), "nothing is wanted"),
        (("", None, None), "the text is empty"),
        ((3, None, None), "the text must be a str, found int"),
        ((None, 3, None), "the image must be bytes, a path or a PIL image, found int"),
        (("a", None, ""), "negative is empty"),
        (("a", None, ["b", " "]), "negative[1] is empty"),
        (("a", None, ["b", 3]), "negative[1] must be a str, found int"),
        (("a", None, 3), "negative must be a str or a list of them, found int"),
        (("a", None, b"b"), "negative must be a str or a list of them, found bytes"),
    ],
)
def test_a_wrong_shorthand_is_named(given: Any, message: str) -> None:
    with pytest.raises(BadQuery) as caught:
        shorthand(*given)
    assert message in str(caught.value)


def test_a_file_is_no_text_of_an_expression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("me.jpg", "beach"):
        Path(name).touch()
    Path("a.folder").mkdir()
    assert parse_expression("beach + a.folder - other.jpg + " + "x." * 3000, existing=True)[0] == Part("text", "beach")
    assert parse_expression("me.jpg + red") == [Part("text", "me.jpg"), Part("text", "red")]
    with pytest.raises(BadQuery, match=r"'me.jpg' is a file here; a picture starts with \./, and --text takes"):
        parse_expression("red - 2:me.jpg", existing=True)
    assert shorthand("me.jpg", None, ["beach", "./other.jpg"])[0] == Part("text", "me.jpg")
    for name in ("./me.jpg", "me.jpg", "./beach"):
        with pytest.raises(
            BadQuery, match=rf"negative\[1\] is '{name}', a file, and expected are words; .* of parts in"
        ):
            shorthand("a", None, ["b", name])


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("./a+ red", "there is no file a+ red; + and - join parts only with a space on both sides"),
        ("./a -red", "+ and - join parts only with a space on both sides"),
        ("./a + b.jpg", "there is no file a; a part that starts with ./, ../, /, ~/ is the path of a picture (on the"),
        ("./a + b.jpg", "and --image a file with ' + ' or ' - ' in its name"),
        ("/" + "x" * 5000, "there is no file /xxx"),
    ],
)
def test_a_path_that_leads_nowhere_says_why(expression: str, message: str) -> None:
    with pytest.raises(BadQuery) as caught:
        parse_expression(expression, existing=True)
    assert message in str(caught.value)
