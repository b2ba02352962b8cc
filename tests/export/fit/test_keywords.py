from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens.errors import MissingPart
from pocketlens_export.fit.keywords import (
    MAX_PLACES,
    PLACE,
    Tagger,
    Word,
    clean_caption,
    find_tagger,
    lexicon_tagger,
    mask_keywords,
    resolve_tagger,
    spacy_tagger,
)


def tagger(*kinds: tuple[str, bool]) -> Tagger:
    """Return a tagger that knows the given words, as a language model would."""
    known = dict(kinds)
    return lambda text: [Word(word, known[word], known[word]) for word in text.split()]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a red bicycle in front of an old house", "$ in $ of $"),
        ("a person who is running", "$ who is running"),
        ("grinning face with smiling eyes", "$ with $"),
        ("the cat and the dog and the cat", "$ and $ and $"),
        ("that is of the utmost quality", "that is of $"),  # a determiner alone is left
        ("one, two; three", "$ , $ ; $"),
        ("cat in hat on mat at night by day", "$ in $ on $ at night by day"),  # at most three places
        ("dog's dinner", "$"),
        ("jack-o-lantern", "$"),
    ],
)
def test_lexicon(text: str, masked: str) -> None:
    assert mask_keywords(text, lexicon_tagger(), seed=0) == masked


def test_runs_of_a_language_models_tags() -> None:
    tag = tagger(("a", True), ("small", True), ("dog", True), ("jumps", False), ("over", False), ("it", False))
    assert mask_keywords("a small dog jumps over it", tag, seed=0) == "$ jumps over it"


def test_every_occurrence_of_a_chosen_keyword_is_replaced() -> None:
    tag = tagger(("a", True), ("b", True), ("c", True), ("d", True), ("on", False))
    assert mask_keywords("a on b on c on d on a on c", tag, seed=0) == "$ on $ on $ on d on $ on $"


def test_without_a_keyword_one_word_is_replaced_the_same_each_time() -> None:
    found = {mask_keywords("it is up to you", lexicon_tagger(), seed=seed) for seed in range(20)}
    assert all(text.split().count(PLACE) == 1 and len(text.split()) == 5 for text in found)
    assert len(found) > 1
    assert mask_keywords("it is up to you", lexicon_tagger(), seed=3) == mask_keywords(
        "it is up to you", lexicon_tagger(), seed=3
    )


@pytest.mark.parametrize(("text", "masked"), [("", "a photo of $"), ("!?", "a photo of $ that !?")])
def test_texts_without_words_go_behind_a_template(text: str, masked: str) -> None:
    assert mask_keywords(text, lexicon_tagger(), seed=0) == masked


def test_captions_are_cleaned() -> None:
    assert clean_caption("  <PERSON> paid  5$ for a Hat\n") == "person paid 5 for a hat"


@given(st.text(max_size=80))
def test_any_text_gets_places(text: str) -> None:
    cleaned = clean_caption(text)
    masked = mask_keywords(cleaned, lexicon_tagger(), seed=0)
    assert PLACE not in cleaned
    assert masked.count(PLACE) >= 1
    words = [word.text for word in lexicon_tagger()(cleaned)]
    if len(set(words)) == len(words):  # otherwise a repeated keyword may stand more often
        assert masked.count(PLACE) <= MAX_PLACES


def test_the_lexicon_can_be_asked_for() -> None:
    assert mask_keywords("a cat", find_tagger("lexicon"), seed=0) == "$"


def test_auto_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)  # importing it fails
    spacy_tagger.cache_clear()
    assert (resolve_tagger("auto"), resolve_tagger("lexicon")) == ("lexicon", "lexicon")
    for resolve in (resolve_tagger, find_tagger):
        with pytest.raises(MissingPart, match="tagger is 'spacy', which needs spaCy"):
            resolve("spacy")

    noun = SimpleNamespace(text="up", pos_="NOUN", is_space=False)
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=lambda name, disable: lambda text: [noun]))
    spacy_tagger.cache_clear()
    assert (resolve_tagger("auto"), resolve_tagger("spacy"), resolve_tagger("lexicon")) == ("spacy", "spacy", "lexicon")
    assert find_tagger("auto")("up") == [Word("up", True, True)]
    monkeypatch.undo()
    spacy_tagger.cache_clear()
