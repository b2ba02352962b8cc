"""From a string to token ids: cleaning, tokenizing, cutting. No padding and no graph here.

Cleaning follows open_clip's tokenizer.py (`basic_clean`, `whitespace_clean`, `canonicalize_text`, release 3.3): ftfy,
HTML entities twice, whitespace. Two deviations, both on purpose: lone surrogates become U+FFFD, and a literal
end-of-text marker typed by a user is ordinary text, so that it cannot move the pooling.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from pocketlens.errors import BadQuery, FormatError
from pocketlens.model import TextSpec

MAX_TEXT_CHARACTERS = 65_536
_SPACE = re.compile(r"\s+")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean_text(text: str, rule: str) -> str:
    """Return `text` repaired and normalised by one of open_clip's rules: lower, whitespace or canonicalize."""
    text = _collapse(_repair(text))
    if rule == "lower":
        return text.lower()
    if rule == "canonicalize":
        return _collapse(text.replace("_", " ").translate(_NO_PUNCTUATION).lower())
    return text


class Tokenizer:
    """Turns texts into token ids by a model's tokenizer.json and text spec."""

    def __init__(self, path: Path, spec: TextSpec) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise FormatError(f"{path} is not a tokenizer in `tokenizers` format: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # markers typed by a user are text
        self._spec = spec

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, markers included, at most `context_length` of them, unpadded.

        Raises:
            BadQuery: an element is not a str, or has more than 65,536 characters.
        """
        cleaned = [clean_text(_checked(text), self._spec.clean) for text in texts]
        return [self._cut(encoding.ids) for encoding in self._tokenizer.encode_batch(cleaned)]

    def _cut(self, ids: list[int]) -> list[int]:
        if len(ids) <= self._spec.context_length:
            return ids
        return [*ids[: self._spec.context_length - 1], self._spec.end_id]


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise BadQuery(f"a text query must be a str, found {type(text).__name__}")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise BadQuery(f"a text query may have {MAX_TEXT_CHARACTERS} characters, found {len(text)}")
    return text


def _repair(text: str) -> str:
    if text.isascii() and text.isprintable() and "&" not in text:
        return text  # nothing that ftfy or HTML unescaping would change; saves importing ftfy
    import ftfy

    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return html.unescape(html.unescape(ftfy.fix_text(whole)))


def _collapse(text: str) -> str:
    return _SPACE.sub(" ", text).strip()
