"""From a string to token ids: cleaning, tokenizing, cutting. No padding and no graph here.

Cleaning follows open_clip's tokenizer.py (`basic_clean`, `whitespace_clean`, `canonicalize_text`, release 3.3): ftfy,
HTML entities twice, whitespace. Three deviations, all on purpose: lone surrogates and NUL become U+FFFD, a literal
end-of-text marker typed by a user is ordinary text, so that it cannot move the pooling, and a text is cut to its first
4,096 characters before anything else happens to it: no tower takes more, and repairing a book takes seconds.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from pocketlens.errors import BadQuery, FormatError
from pocketlens.model import PLACEHOLDER_ID, TextSpec

MAX_TEXT_CHARACTERS = 4_096
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
        markers = self._tokenizer.encode("").ids
        start = len(markers)  # of the markers that end a text
        if spec.end_id in markers:
            start -= 1 + markers[::-1].index(spec.end_id)
        self._before, self._after = markers[:start], markers[start:]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, markers included, at most `context_length` of them, unpadded.

        A text counts up to its 4,096th character.

        Raises:
            BadQuery: an element is not a str.
        """
        cleaned = [self._clean(text) for text in texts]
        return [self._cut(encoding.ids) for encoding in self._tokenizer.encode_batch(cleaned)]

    def prompt_ids(self, segments: Sequence[str], tokens: int) -> list[int]:
        """Return the ids of a prompt's segments joined by `tokens` placeholders (-1) each, with markers at both ends.

        There are at most `context_length` of them, the last one an end marker where a text is cut. What is cut is text,
        from the end on; placeholders only when they alone are too many.

        Args:
            segments: the texts before, between and after the places of the pseudo-tokens; n of them make n - 1 places.
            tokens: placeholders of a place.

        Raises:
            BadQuery: a segment is not a str.
        """
        content: list[int] = []
        for number, segment in enumerate(segments):
            content += [PLACEHOLDER_ID] * tokens if number else []
            content += self._tokenizer.encode(self._clean(segment), add_special_tokens=False).ids
        whole = [*self._before, *content, *self._after]
        if len(whole) <= self._spec.context_length:
            return whole
        room = max(self._spec.context_length - 1 - len(self._before), 0)  # one for the end marker
        return self._cut([*self._before, *_shorten(content, room), self._spec.end_id])

    def _clean(self, text: str) -> str:
        return clean_text(readable(text), self._spec.clean)

    def _cut(self, ids: list[int]) -> list[int]:
        if len(ids) <= self._spec.context_length:
            return ids
        return [*ids[: self._spec.context_length - 1], self._spec.end_id]


def readable(text: str) -> str:
    """Return a text's first 4,096 characters, with NUL and lone surrogates as U+FFFD.

    Raises:
        BadQuery: it is not a str.
    """
    if not isinstance(text, str):
        raise BadQuery(f"a text query must be a str, found {type(text).__name__}")
    return _whole(text[:MAX_TEXT_CHARACTERS]).replace("\0", "\ufffd")


def _whole(text: str) -> str:
    """Return a text with its surrogate pairs joined and its lone surrogates as U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _shorten(content: list[int], room: int) -> list[int]:
    """Return `room` of the ids, in order: every placeholder, if there is room, and the first of the others."""
    spare = len(content) - room
    kept: list[int] = []
    for token in reversed(content):
        if spare > 0 and token != PLACEHOLDER_ID:
            spare -= 1
        else:
            kept.append(token)
    return kept[::-1][:room]


def _repair(text: str) -> str:
    if text.isascii() and text.isprintable() and "&" not in text:
        return text  # nothing that ftfy or HTML unescaping would change; saves importing ftfy
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(_whole(text))))


def _collapse(text: str) -> str:
    return _SPACE.sub(" ", text).strip()
