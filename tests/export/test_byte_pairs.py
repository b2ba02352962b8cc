from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Tokenizer as Library

from pocketlens.model import TextSpec
from pocketlens.text import Tokenizer, readable
from pocketlens_export.byte_pairs import tokenizer_json

CORPUS = Path(__file__).parents[1] / "corpus" / "texts.txt.gz"
MARKER = regex.compile(r"<(start|end)_of_text>", regex.IGNORECASE)
SPEC = TextSpec(
    file="text.onnx", precision="float32", opset=20, clean="lower", context_length=77, pad_id=0, end_id=49407,
    pooling="end", trim=True, placeholder_id=-1, token_dim=32, tokenizer="tokenizer.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> Any:
    return SimpleTokenizer()


@pytest.fixture(scope="module")
def path(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer_json(reference))
    return path


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer(path, SPEC)


def padded(ids: list[int]) -> list[int]:
    return [*ids, *[0] * (77 - len(ids))]


def test_ids_equal_open_clips_on_the_corpus(tokenizer: Tokenizer, reference: Any) -> None:
    with gzip.open(CORPUS, "rt", encoding="utf-8") as file:
        texts = [json.loads(line) for line in file]
    assert len(texts) >= 5_000
    readables = [readable(text) for text in texts]  # what open_clip does not do: no NUL, 4,096 characters
    for text, found, expected in zip(texts, tokenizer.ids(texts), reference(readables).tolist(), strict=True):
        assert padded(found) == expected, text


def test_the_corpus_has_texts_of_exactly_the_context_and_over_it(tokenizer: Tokenizer) -> None:
    exactly, over = tokenizer.ids([" ".join(["dog"] * 75), " ".join(["dog"] * 76)])
    assert exactly == over == [49406, *[1929] * 75, 49407]


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(lambda text: not MARKER.search(text)))
@example(text="it'\u017f WE'Re '' 's' o'd")  # a long s, which is an s when case is ignored
@example(text="x\u0345y !\u0345!")
@example(text="𖺠 ꟎ 㐀 1٣½²")
def test_ids_equal_open_clips_on_any_text(tokenizer: Tokenizer, reference: Any, text: str) -> None:
    assert padded(tokenizer.ids([text])[0]) == reference([readable(text)])[0].tolist()


def test_texts_are_split_as_open_clip_splits_them_in_every_unicode_block(path: Path, reference: Any) -> None:
    """Every third code point between a letter, a digit and a sign that it might join; Unicode versions differ here."""
    points = [point for point in range(0, sys.maxunicode + 1, 3) if not 0xD800 <= point < 0xE000]
    text = "".join(f"a{chr(point)}1{chr(point)}! " for point in points)
    split = Library.from_file(str(path)).pre_tokenizer
    assert split is not None
    assert [span for _, span in split.pre_tokenize_str(text)] == [
        match.span() for match in reference.pat.finditer(text)
    ]


@pytest.mark.parametrize("marker", ["<end_of_text>", "<start_of_text>", "a <end_of_text> b", "<END_OF_TEXT>"])
def test_a_marker_that_a_user_types_is_text_and_cannot_move_the_pooling(
    tokenizer: Tokenizer, reference: Any, marker: str
) -> None:
    ids = tokenizer.ids([marker])[0]
    assert (ids[0], ids[-1]) == (49406, 49407)
    assert max(ids[1:-1]) < 49406
    assert reference.encode(marker) != ids[1:-1]  # the documented deviation
