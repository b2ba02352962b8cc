from __future__ import annotations

import json
import string
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

from pocketlens.errors import BadQuery, FormatError
from pocketlens.model import Model, TextSpec
from pocketlens.text import MAX_TEXT_CHARACTERS, Tokenizer, clean_text, readable
from pocketlens_export.byte_pairs import tokenizer_json

RULES = ["lower", "whitespace", "canonicalize"]
ODD = st.sampled_from(
    [
        "&amp;amp;lt;b&amp;gt;", "&nbsp;", "&#x41;", "&notanentity;", "â€œsmartâ€\x9d", "Ã©tÃ©", "ﬁ ﬂ",
        "\uff26\uff35\uff2c\uff2c\u3000\uff57\uff49\uff44\uff54\uff48", "\u201cquoted\u201d \u2018single\u2019",
        "İI", "ß", "\x1b[31mred\x1b[0m", "\r\n\t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2003\u2028\u3000", "\ufeff",
        "👩\u200d👩\u200d👧", "e\u0301", "a_b-c.d", "<|endoftext|>", "<end_of_text>", "[SEP]",
        "Москва", "北京", "\x00", "\u200b",
    ]
)  # fmt: skip
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | ODD).map("".join)
PRINTABLE = st.text(st.sampled_from([c for c in string.printable[:95] if c != "&"]))


@pytest.fixture(scope="module")
def spec(colours: Path) -> TextSpec:
    spec = Model.open(colours).manifest.text
    assert spec is not None
    return spec


@pytest.fixture(scope="module")
def tokenizer(colours: Path, spec: TextSpec) -> Tokenizer:
    return Tokenizer(colours / "tokenizer.json", spec)


def open_clip_clean(rule: str) -> Callable[[str], str]:
    clean: Callable[[str], str] = get_clean_fn(rule)
    return clean


@pytest.mark.parametrize("rule", RULES)
@given(text=TEXTS)
@example(text="  A  Red\tBicycle, isn&#39;t   it_?  ")
@example(text="")
@example(text=" \u3000\x1f ")
def test_cleaning_equals_that_of_open_clip(rule: str, text: str) -> None:
    assert clean_text(text, rule) == open_clip_clean(rule)(text)


@pytest.mark.parametrize("rule", RULES)
@given(text=PRINTABLE)
def test_plain_ascii_which_skips_the_repair_needs_none(rule: str, text: str) -> None:
    assert clean_text(text, rule) == open_clip_clean(rule)(text)


@pytest.mark.parametrize(
    ("text", "rule", "expected"),
    [
        ("  A Red\n BICYCLE ", "lower", "a red bicycle"),
        ("  A Red\n BICYCLE ", "whitespace", "A Red BICYCLE"),
        ("a_Red-bicycle, two.", "canonicalize", "a redbicycle two"),
        ("caf&amp;eacute; &lt;3", "lower", "café <3"),
        ("dâ€™Artagnan", "whitespace", "d'Artagnan"),
    ],
)
def test_cleaning_by_hand(text: str, rule: str, expected: str) -> None:
    assert clean_text(text, rule) == expected


@given(text=st.text(st.characters() | st.characters(categories=["Cs"])))
def test_any_str_can_be_tokenized_even_with_lone_surrogates(tokenizer: Tokenizer, spec: TextSpec, text: str) -> None:
    for rule in RULES:
        clean_text(text, rule).encode()
    ids = tokenizer.ids([text])[0]
    assert 2 <= len(ids) <= spec.context_length
    assert (ids[0], ids[-1]) == (2, spec.end_id)


def test_a_surrogate_pair_is_its_character_and_a_lone_one_a_replacement() -> None:
    assert clean_text("\ud83d\ude00 \udc00x\ud800", "whitespace") == "😀 �x�"


def test_ids_by_hand(tokenizer: Tokenizer) -> None:
    assert tokenizer.ids(["red", "A  GREEN", "blue puce red", ""]) == [[2, 4, 3], [2, 8, 5, 3], [2, 6, 1, 4, 3], [2, 3]]
    assert tokenizer.ids([]) == []


def test_a_long_text_is_cut_and_still_ends(tokenizer: Tokenizer) -> None:
    assert tokenizer.ids(["red green blue white"])[0] == [2, 4, 5, 6, 7, 3]  # six exactly
    assert tokenizer.ids(["red green blue white a"])[0] == [2, 4, 5, 6, 7, 3]
    assert tokenizer.ids(["red green blue white a " * 2000])[0] == [2, 4, 5, 6, 7, 3]
    assert tokenizer.ids([" " * 900 + "red"])[0] == [2, 4, 3]  # cut only after the spaces are gone


@pytest.mark.parametrize("marker", ["[SEP]", "[CLS]", "red[SEP]blue", "[sep]"])
def test_a_marker_that_a_user_types_is_text(colours: Path, spec: TextSpec, marker: str) -> None:
    ids = Tokenizer(colours / "tokenizer.json", replace(spec, clean="whitespace")).ids([marker])[0]
    assert ids[1:-1].count(3) == ids[1:-1].count(2) == 0
    assert (ids[0], ids[-1]) == (2, 3)


def test_a_batch_gives_the_ids_of_single_texts(tokenizer: Tokenizer) -> None:
    texts = ["red", "a green", "", "blue " * 9, "[SEP]", "ﬁ"]
    assert tokenizer.ids(texts) == [tokenizer.ids([text])[0] for text in texts]


def test_padding_and_truncation_of_the_file_do_not_count(colours: Path, spec: TextSpec, tmp_path: Path) -> None:
    data = json.loads((colours / "tokenizer.json").read_text())
    data["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    data["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert Tokenizer(tmp_path / "tokenizer.json", spec).ids(["red a"]) == [[2, 4, 8, 3]]


@pytest.mark.parametrize("text", [None, 3, b"red", ["red"]])
def test_another_type_is_a_bad_query(tokenizer: Tokenizer, text: object) -> None:
    with pytest.raises(BadQuery, match=f"a text query must be a str, found {type(text).__name__}"):
        tokenizer.ids(["red", text])  # type: ignore[list-item]


def test_a_text_counts_up_to_its_4096th_character(tokenizer: Tokenizer) -> None:
    assert MAX_TEXT_CHARACTERS == 4_096
    assert tokenizer.ids([" " * 4_093 + "red blue"])[0] == [2, 4, 3]
    assert tokenizer.ids([" " * 4_096 + "red"])[0] == [2, 3]
    start = time.perf_counter()
    assert len(tokenizer.ids(["é" * 20_000_000])[0]) == 3
    assert time.perf_counter() - start < 5  # repairing all of it would take minutes


@pytest.mark.parametrize("odd", ["\0", "\ud800", "\udfff"])
def test_what_is_no_character_is_replaced(tokenizer: Tokenizer, odd: str) -> None:
    assert readable(f"a{odd}b") == "a\ufffdb"
    assert tokenizer.ids([f"red {odd} blue"]) == tokenizer.ids(["red \ufffd blue"])


def test_a_pair_of_surrogates_is_one_character_but_not_across_the_cut() -> None:
    assert readable("\ud83d\ude00") == "😀"
    assert readable("x" * 4_095 + "\ud83d\ude00") == "x" * 4_095 + "\ufffd"


def test_prompt_ids_by_hand(tokenizer: Tokenizer) -> None:
    assert tokenizer.prompt_ids(["a", "red"], 1) == [2, 8, -1, 4, 3]
    assert tokenizer.prompt_ids(["", ""], 2) == [2, -1, -1, 3]
    assert tokenizer.prompt_ids(["", "", ""], 1) == [2, -1, -1, 3]
    assert tokenizer.prompt_ids([" A ", "\tGREEN", "puce"], 1) == [2, 8, -1, 5, -1, 3]  # six at most
    assert tokenizer.prompt_ids([], 1) == [2, 3]


@pytest.mark.parametrize(
    ("segments", "tokens", "expected"),
    [
        (["a red", "green blue"], 1, [2, 8, 4, -1, 5, 3]),  # the text after the placeholder is cut
        (["a red green blue white", "red"], 1, [2, 8, 4, 5, -1, 3]),  # and then the text before it
        (["a red", "green blue"], 4, [2, -1, -1, -1, -1, 3]),
        (["a", "b", "c"], 2, [2, -1, -1, -1, -1, 3]),
        (["a", "b", "c"], 3, [2, -1, -1, -1, -1, 3]),  # six are too many
    ],
)
def test_placeholders_outlive_the_text_around_them(
    tokenizer: Tokenizer, segments: list[str], tokens: int, expected: list[int]
) -> None:
    assert tokenizer.prompt_ids(segments, tokens) == expected


WORD_PIECES = Path(__file__).parents[2] / "models" / "lens-base" / "model"


@pytest.fixture(scope="module", params=["words", "word pieces", "byte pairs", "no start", "no markers"])
def any_tokenizer(
    request: pytest.FixtureRequest, colours: Path, spec: TextSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, TextSpec]:
    folder, kind = tmp_path_factory.mktemp("tokenizer"), request.param
    content = (colours / "tokenizer.json").read_text()
    if kind == "word pieces":
        base = Model.open(WORD_PIECES).manifest.text
        assert base is not None
        spec, content = replace(base, context_length=12), (WORD_PIECES / "tokenizer.json").read_text()
    elif kind == "byte pairs":
        content = tokenizer_json(SimpleTokenizer())
        spec = replace(spec, context_length=12, end_id=49407)
    elif kind != "words":
        data = json.loads(content)
        end = {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
        single = [{"Sequence": {"id": "A", "type_id": 0}}, *([end] if kind == "no start" else [])]
        data["post_processor"]["single"] = single
        content = json.dumps(data)
    (folder / "tokenizer.json").write_text(content)
    return Tokenizer(folder / "tokenizer.json", spec), spec


SEGMENTS = st.lists(st.text(max_size=20) | st.sampled_from(["a photo of", "that is red, at night", "Ünïcode 東京", ""]))


@given(text=TEXTS | st.text(max_size=80) | st.sampled_from(["red " * 30, "an extraordinary antidisestablishment " * 4]))
def test_a_prompt_without_placeholders_is_a_text(any_tokenizer: tuple[Tokenizer, TextSpec], text: str) -> None:
    tokenizer, _ = any_tokenizer
    assert tokenizer.prompt_ids([text], 3) == tokenizer.ids([text])[0]


@given(segments=SEGMENTS, tokens=st.integers(1, 3))
def test_a_prompt_is_its_segments_with_placeholders_between(
    any_tokenizer: tuple[Tokenizer, TextSpec], segments: list[str], tokens: int
) -> None:
    tokenizer, spec = any_tokenizer
    ids = tokenizer.prompt_ids(segments, tokens)
    assert len(ids) <= spec.context_length
    placeholders = max(len(segments) - 1, 0) * tokens
    markers = tokenizer.ids([""])[0]
    room = spec.context_length - len(markers)
    assert ids.count(-1) == min(placeholders, room) or (not markers and ids.count(-1) == min(placeholders, room - 1))
    if markers:
        assert ids[-1] == spec.end_id
    whole = [tokenizer.ids([segment])[0] for segment in segments]
    if all(len(each) < spec.context_length for each in whole):
        inside = [each[len(markers) - 1 : len(each) - 1] if markers else each for each in whole]
        joined = [token for each in inside for token in [*each, *[-1] * tokens]][: -tokens or None]
        if len(joined) + len(markers) <= spec.context_length:
            assert ids == [*markers[:-1], *joined, *markers[-1:]]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b'{"model": {"type": "Other"}}'])
def test_a_file_that_is_no_tokenizer_is_a_format_error(tmp_path: Path, spec: TextSpec, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"tokenizer\.json is not a tokenizer in `tokenizers` format"):
        Tokenizer(tmp_path / "tokenizer.json", spec)
