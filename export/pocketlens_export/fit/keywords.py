"""LinCIR's keyword masking (arXiv 2312.01998, §3.2): a text's keywords are replaced by `$`.

Keywords are maximal runs of consecutive nouns, proper nouns, adjectives and determiners. spaCy's en_core_web_sm tells
them where it is installed. Else a lexicon does: a word is a keyword unless it belongs to a closed class (pronouns,
prepositions, conjunctions, auxiliaries, particles) or is a common verb or adverb, as listed in function_words.txt.
Determiners belong to a run that has another word in it and are left alone otherwise, where they are mostly pronouns
("that is", "each of them"). The two agree on a word when both take it for part of a keyword, or neither does.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pocketlens.compose.method import Parameter
from pocketlens.errors import MissingPart

PLACE = "$"
MAX_PLACES = 3  # in one text: each takes the same pseudo-token, and texts of places alone teach nothing
_TAGGERS = ("spacy", "lexicon")
_SPACY_KINDS = frozenset({"NOUN", "PROPN", "ADJ", "DET"})
_WORD = re.compile(r"\w[\w'\u2019-]*|[^\w\s]")
_LIST = Path(__file__).with_name("function_words.txt")


class Word(NamedTuple):
    """A word or sign; `is_keyword` says whether it may stand in a run, `counts` whether it may make one."""

    text: str
    is_keyword: bool
    counts: bool


Tagger: TypeAlias = Callable[[str], list[Word]]


def clean_caption(text: str) -> str:
    """Return a caption as LinCIR feeds it: lower case, without a `$` of its own, `<person>` in plain words."""
    return " ".join(text.lower().replace(PLACE, " ").replace("<person>", "person").split())


def mask_keywords(text: str, tag: Tagger, *, seed: int) -> str:
    """Return a cleaned text with its keywords replaced by `$`, every occurrence of each; at least one `$` is there.

    Without a keyword one word is replaced that seed and text choose; a text without words goes behind a template.
    """
    words = tag(text)
    runs = _runs(words)
    if not runs:
        places = [i for i, word in enumerate(words) if word.text[0].isalnum()]
        if not places:
            return f"a photo of {PLACE} that {text}" if text else f"a photo of {PLACE}"
        chosen = places[_draw(text, seed) % len(places)]
        runs = [(chosen, chosen + 1)]
    return _replace([word.text for word in words], runs)


def tagger_parameter() -> Parameter:
    """Return the parameter of recipes that mask keywords."""
    return Parameter("auto", "what tells keywords; auto: spaCy where it is installed", choices=("auto", *_TAGGERS))


def resolve_tagger(name: str) -> str:
    """Return which tagger "auto" means here, "spacy" or "lexicon"; another name as it is.

    Raises:
        MissingPart: it is spaCy's, which is not installed.
    """
    if name == "auto":
        return "lexicon" if spacy_tagger() is None else "spacy"
    if name == "spacy" and spacy_tagger() is None:
        raise MissingPart("tagger is 'spacy', which needs spaCy and its en_core_web_sm; neither comes with pocketlens")
    return name


def find_tagger(name: str) -> Tagger:
    """Return the tagger of a name that `resolve_tagger` takes.

    Raises:
        MissingPart: it is spaCy's, which is not installed.
    """
    found = spacy_tagger() if resolve_tagger(name) == "spacy" else None
    return lexicon_tagger() if found is None else found


def lexicon_tagger() -> Tagger:
    """Return the tagger by the committed word list."""
    closed, determiners = _lists()

    def tag(text: str) -> list[Word]:
        found = []
        for word in _WORD.findall(text):
            is_determiner = word in determiners
            is_open = word[0].isalnum() and word not in closed and not is_determiner
            found.append(Word(word, is_open or is_determiner, is_open))
        return found

    return tag


@functools.cache
def spacy_tagger() -> Tagger | None:
    """Return the tagger by spaCy's en_core_web_sm, or None where one of them is not installed."""
    try:
        spacy: Any = importlib.import_module("spacy")
        pipeline: Any = spacy.load("en_core_web_sm", disable=["parser", "ner", "lemmatizer"])
    except (ImportError, OSError):  # spaCy raises OSError for a missing pipeline
        return None

    def tag(text: str) -> list[Word]:
        tokens = [token for token in pipeline(text) if not token.is_space]
        return [Word(t.text, t.pos_ in _SPACY_KINDS, t.pos_ in _SPACY_KINDS) for t in tokens]

    return tag


def _runs(words: list[Word]) -> list[tuple[int, int]]:
    """Return the first different runs, [start, stop), that hold a word that counts."""
    runs, start = [], 0
    while start < len(words):
        stop = start
        while stop < len(words) and words[stop].is_keyword:
            stop += 1
        if any(word.counts for word in words[start:stop]):
            runs.append((start, stop))
        start = max(stop, start + 1)
    return runs


def _replace(words: list[str], runs: list[tuple[int, int]]) -> str:
    """Return the text with the runs' words replaced; each later occurrence of a chosen run is a run of its own."""
    chosen: dict[tuple[str, ...], None] = {}
    places = 0
    parts: list[str] = []
    position = 0
    for start, stop in runs:
        run = tuple(words[start:stop])
        if run in chosen or places < MAX_PLACES:
            chosen[run] = None
            places += 1
            parts += [*words[position:start], PLACE]
            position = stop
    return " ".join([*parts, *words[position:]])


def _draw(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:8])


@functools.cache
def _lists() -> tuple[frozenset[str], frozenset[str]]:
    """Return closed classes and determiners; a heading in brackets starts each class."""
    closed: set[str] = set()
    determiners: set[str] = set()
    target = closed
    for line in _LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            target = determiners if line == "[determiners]" else closed
        elif not line.startswith("#"):
            target.update(line.split())
    return frozenset(closed), frozenset(determiners)
