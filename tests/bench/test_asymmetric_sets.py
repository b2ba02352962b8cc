"""What is asked of folders worked out by hand."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens.errors import BadQuery, FormatError
from pocketlens_bench.asymmetric_sets import captioned, limited, read_emojicir, read_folder, same_thing
from pocketlens_export.split import split_rows

ROWS = [  # id, concept, vendor, name, base, encoder
    ("a/1.png", "1", "a", "one", "one", "test"),
    ("b/1.png", "1", "b", "one", "one", "test"),
    ("c/1.png", "1", "c", "one", "one", "test"),
    ("a/2-1F3FB.png", "2-1F3FB", "a", "two: light", "two", "test"),
    ("b/2-1F3FB.png", "2-1F3FB", "b", "two: light", "two", "test"),
    ("a/3.png", "3", "a", "three", "three", "test"),  # nobody else draws it
    ("a/4.png", "4", "a", "four", "four", "train"),
    ("b/4.png", "4", "b", "four", "four", "train"),
    ("b/5.png", "5", "b", "one", "one", "validation"),  # another code point of the same name
]
IDS = frozenset(row[0] for row in ROWS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["id\tconcept\tvendor\tname\tbase\tencoder", *("\t".join(row) for row in ROWS)]
    (tmp_path / "pictures.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_other_vendors_pictures_of_a_held_out_concept_are_the_answers(folder: Path) -> None:
    same, _ = read_emojicir(folder, IDS, split="test", held_styles=["b"])
    assert same.gallery == tuple(row[0] for row in ROWS)  # everything is ranked
    found = {example.id: example for example in same.examples}
    assert sorted(found) == ["a/1.png", "a/2-1F3FB.png", "b/1.png", "b/2-1F3FB.png", "c/1.png"]
    first = found["a/1.png"]
    assert first.answers == {"b/1.png", "c/1.png"}
    assert (first.reference, first.group) == ("a/1.png", "one")
    assert first.excluded == {"a/1.png"}
    assert first.families == ("by a", "without a skin tone", "other styles")
    assert found["b/2-1F3FB.png"].families == ("by b", "with a skin tone", "held-out styles")


def test_names_mean_all_pictures_that_have_them(folder: Path) -> None:
    _, texts = read_emojicir(folder, IDS, split="test")
    found = {example.texts[0]: example for example in texts.examples}
    assert sorted(found) == ["one", "three", "two: light"]
    assert found["one"].answers == {"a/1.png", "b/1.png", "c/1.png", "b/5.png"}
    assert (found["one"].reference, found["one"].excluded) == (None, frozenset())


def test_all_splits_say_what_was_seen(folder: Path) -> None:
    same, _ = read_emojicir(folder, IDS, split="all")
    parts = {example.id: example.families for example in same.examples}
    assert parts["a/4.png"] == ("by a", "without a skin tone", "seen concepts")
    assert parts["c/1.png"] == ("by c", "without a skin tone", "unseen concepts")


def test_pictures_that_could_not_be_read_are_neither_asked_with_nor_ranked(folder: Path) -> None:
    same, _ = read_emojicir(folder, IDS - {"b/1.png", "a/2-1F3FB.png"}, split="test")
    assert {example.id: set(example.answers) for example in same.examples} == {
        "a/1.png": {"c/1.png"},
        "c/1.png": {"a/1.png"},
    }
    assert len(same.gallery) == 7
    assert "2 listed pictures could not be read" in same.notes[1]


def test_wrong_styles_and_splits_without_a_concept_are_named(folder: Path) -> None:
    with pytest.raises(BadQuery, match="--held-style is 'd', expected one of a, b, c"):
        read_emojicir(folder, IDS, split="test", held_styles=["d"])
    with pytest.raises(FormatError, match="no concept of the split validation is drawn by two vendors, of 9 pictures"):
        read_emojicir(folder, IDS, split="validation")
    with pytest.raises(FormatError, match=r"has no pictures\.tsv"):
        read_emojicir(folder / "..", IDS, split="test")


def digests(count: int) -> tuple[str, ...]:
    return tuple(hashlib.sha256(str(i).encode()).hexdigest() for i in range(count))


def test_a_flat_folder_asks_with_views_of_its_held_out_pictures() -> None:
    ids = [f"{i}.jpg" for i in range(60)]
    (views,) = read_folder(Path("d"), ids, digests(60), split="test")
    held = [ids[row] for row in split_rows(digests(60)).test]
    assert [example.id for example in views.examples] == held
    assert all(example.answers == {example.id} and not example.excluded for example in views.examples)
    assert (views.asked, views.gallery) == ("view", tuple(ids))
    (views,) = read_folder(Path("d"), ids, digests(60), split="all")
    assert len(views.examples) == 60


def test_sub_folders_are_things_with_a_name() -> None:
    ids = ["big_cats/1.jpg", "big_cats/2.jpg", "x/dogs/1.jpg", "x/dogs/2.jpg", "x/dogs/3.jpg", "bird/1.jpg"]
    views, same, texts = read_folder(Path("d"), ids, digests(6), split="all")
    assert (views.asked, same.asked, texts.asked) == ("view", "picture", "text")
    assert {example.id: set(example.answers) for example in same.examples} == {
        "big_cats/1.jpg": {"big_cats/2.jpg"},
        "big_cats/2.jpg": {"big_cats/1.jpg"},
        "x/dogs/1.jpg": {"x/dogs/2.jpg", "x/dogs/3.jpg"},
        "x/dogs/2.jpg": {"x/dogs/1.jpg", "x/dogs/3.jpg"},
        "x/dogs/3.jpg": {"x/dogs/1.jpg", "x/dogs/2.jpg"},
    }
    assert {example.group for example in same.examples} == {"big_cats", "x/dogs"}
    assert [example.texts for example in texts.examples] == [("big cats",), ("bird",), ("dogs",)]


@pytest.mark.parametrize("ids", [["a/1.jpg", "a/2.jpg", "a/3.jpg"], ["a/1.jpg", "b/2.jpg", "3.jpg"]])
def test_one_sub_folder_or_pictures_beside_them_name_nothing(ids: list[str]) -> None:
    (views,) = read_folder(Path("d"), ids, digests(3), split="all")
    assert views.asked == "view"


def test_sub_folders_of_one_picture_each_have_no_like() -> None:
    views, texts = read_folder(Path("d"), ["a/1.jpg", "b/2.jpg", "c/3.jpg"], digests(3), split="all")
    assert (views.asked, texts.asked) == ("view", "text")


def test_a_split_without_a_picture_is_refused() -> None:
    with pytest.raises(FormatError, match="none of its 1 pictures is of the split"):
        read_folder(Path("d"), ["1.jpg"], ["f" * 63 + "2"], split="validation")


@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=20))
def test_same_thing_is_symmetric_and_never_the_query(labels: list[str]) -> None:
    by_id = {str(i): label for i, label in enumerate(labels)}
    examples = {example.id: example for example in same_thing(by_id, by_id, {})}
    for id, found in examples.items():
        assert id not in found.answers and found.excluded == {id}
        assert all(id in examples[other].answers for other in found.answers)
        assert found.answers == {other for other in by_id if by_id[other] == by_id[id]} - {id}
    alone = [id for id in by_id if labels.count(by_id[id]) == 1]
    assert sorted(examples) == sorted(set(by_id) - set(alone))


def test_captions_keep_the_group_of_their_first_picture() -> None:
    (example,) = captioned({"1": "a cat", "2": "a cat"}, {"1": "first", "2": "second"})
    assert example.group == "first"
    assert example.answers == {"1", "2"}


def test_a_limit_spreads_and_changes_the_hash() -> None:
    ids = [f"{i}.jpg" for i in range(11)]
    (views,) = read_folder(Path("d"), ids, digests(11), split="all")
    few = limited(views, 3)
    assert [example.id for example in few.examples] == ["0.jpg", "5.jpg", "10.jpg"]
    assert limited(views, 1).examples[0].id == "0.jpg"
    assert limited(views, None) is limited(views, 11) is views
    assert few.sha256 != views.sha256
    (again,) = read_folder(Path("elsewhere"), ids[::-1], digests(11), split="all")
    assert again.sha256 == views.sha256  # of what is asked, in whatever order


def test_chance_is_that_of_random_orders(rng: np.random.Generator) -> None:
    ids = [f"{label}/{i}.jpg" for label, count in (("a", 3), ("b", 9), ("c", 18)) for i in range(count)]
    _, same, texts = read_folder(Path("d"), ids, digests(30), split="all")
    found = []
    for _ in range(300):
        for example in same.examples:
            order = [ids[i] for i in rng.permutation(30) if ids[i] not in example.excluded]
            found.append(not example.answers.isdisjoint(order[:10]))
    assert same.chance == pytest.approx(100 * float(np.mean(found)), abs=1.5)
    # three of thirty: the first ten miss them with probability 27 C 10 / 30 C 10 = (20 * 19 * 18) / (30 * 29 * 28)
    a = next(example for example in texts.examples if example.texts == ("a",))
    assert replace(texts, examples=(a,)).chance == pytest.approx(100 * (1 - 6840 / 24360))


def test_fewer_than_ten_pictures_are_always_found_by_chance() -> None:
    (views,) = read_folder(Path("d"), ["1.jpg", "2.jpg"], digests(2), split="all")
    assert views.chance == 100.0
