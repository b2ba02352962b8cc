"""EmojiCIR: names, modifications, answers and splits on a few emoji made up here, and the committed benchmark."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from emojicir.build import copies, counts
from emojicir.cases import Case, positive_cases
from emojicir.families import Edit, edits
from emojicir.gallery import Gallery
from emojicir.lens_base import concept_of, fingerprint, split_of_label
from emojicir.names import MIXED, Concept, base_of, key_of, part_of_label, read_concepts, stem_of
from emojicir.negatives import negative_cases, plain_texts
from emojicir.queries import PER_TARGET, Query, build_queries, choose, shares
from emojicir.render import leave_out_copies, write_vendor
from emojicir.split import part_of
from emojicir.tables import PHRASINGS, read_tables
from emojicir.tones import true_tones

HERE = Path(__file__).parents[2] / "benchmarks" / "emojicir"
FAMILIES = {
    "age", "cat-face", "clock", "colour", "direction", "gender", "hair", "mood", "moon", "negative", "profession",
    "skin-tone", "style", "weather",
}  # fmt: skip
VENDORS = ("google", "twitter", "outline")


def _row(label: str, hexcode: str, *, tones: bool = False) -> dict[str, Any]:
    head, _, rest = hexcode.partition("-")
    skins = [
        {
            "label": f"{label}: tone {i}",
            "hexcode": "-".join(filter(None, (head, f"1F3F{'ABCDEF'[i]}", rest))),
            "tone": i,
        }
        for i in range(1, 6)
    ]
    return {"label": label, "hexcode": hexcode, **({"skins": skins} if tones else {})}


EMOJI = [
    _row("scientist", "1F9D1-200D-1F52C", tones=True),
    _row("woman scientist", "1F469-200D-1F52C", tones=True),
    _row("man scientist", "1F468-200D-1F52C", tones=True),
    _row("cook", "1F9D1-200D-1F373", tones=True),
    _row("woman cook", "1F469-200D-1F373", tones=True),
    _row("man cook", "1F468-200D-1F373", tones=True),
    _row("man: red hair", "1F468-200D-1F9B0", tones=True),
    _row("man: bald", "1F468-200D-1F9B2", tones=True),
    _row("man: beard", "1F9D4-200D-2642-FE0F", tones=True),
    _row("man", "1F468", tones=True),
    _row("woman", "1F469", tones=True),
    _row("smirking face", "1F60F"),
    _row("cat with wry smile", "1F63C"),
    _row("crying face", "1F622"),
    _row("red heart", "2764-FE0F"),
    _row("blue heart", "1F499"),
    _row("five-thirty", "1F560"),
    _row("one o\u2019clock", "1F550"),
    _row("umbrella", "2602-FE0F"),
    _row("umbrella with rain drops", "2614"),
    _row("full moon", "1F315"),
    _row("crescent moon", "1F319"),
    _row("taxi", "1F695"),
    _row("oncoming taxi", "1F696"),
    _row("baby", "1F476", tones=True),
    _row("older person", "1F9D3", tones=True),
]


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    concepts = read_concepts(EMOJI)
    drawn = {v: [k for k, c in concepts.items() if v != "outline" or c.tone == 0] for v in VENDORS}
    return Gallery(concepts, drawn)


@pytest.fixture(scope="module")
def steps(gallery: Gallery) -> list[Edit]:
    return list(edits(gallery, read_tables()))


@pytest.fixture(scope="module")
def positives(gallery: Gallery, steps: list[Edit]) -> list[Case]:
    return list(positive_cases(steps, gallery, read_tables()))


def _named(gallery: Gallery, name: str) -> Concept:
    return next(c for c in gallery.concepts.values() if c.name == name)


def _between(cases: Iterable[Case], gallery: Gallery, source: str, target: str) -> list[Case]:
    ends = _named(gallery, source).key, _named(gallery, target).key
    return [c for c in cases if (Path(c.reference).stem, re.split("[@!]", c.target)[0]) == ends]


@pytest.mark.parametrize("spelling", ["2764-FE0F", "2764", "2764-fe0f", "2764_fe0f"])
def test_vendors_spell_one_concept_in_many_ways(spelling: str) -> None:
    assert key_of(spelling) == "2764"
    assert key_of("23-fe0f-20e3") == key_of("0023-20E3")


@pytest.mark.parametrize(
    ("label", "stem", "gender"),
    [
        ("man running", "running", "man"),
        ("runner", "runner", "person"),
        ("man: red hair", "person: red hair", "man"),
        ("woman", "person", "woman"),
        ("princess", "with crown", "woman"),
        ("women wrestling", "couple wrestling", "women"),
        ("kiss: man, man", "couple kissing", "men"),
        ("woman and man holding hands", "couple holding hands", "woman and man"),
        ("people hugging", "people hugging", ""),
        ("man\u2019s shoe", "man\u2019s shoe", ""),
    ],
)
def test_a_name_gives_stem_and_gender(label: str, stem: str, gender: str) -> None:
    others = {"woman runner", "man runner", "men wrestling", "women wrestling", "men holding hands"}
    assert stem_of(label, frozenset({label, *others})) == (stem, gender)


def test_tones_share_root_and_split_with_the_untoned_emoji(gallery: Gallery) -> None:
    toned = _named(gallery, "scientist: tone 5")
    assert (toned.root, toned.tone) == ("1F9D1-200D-1F52C", 5)
    # lens-base held the scientist back for its test; in EmojiCIR sha256("emojicir/120:scientist") % 20 is 12
    assert (toned.split, toned.encoder, toned.seen) == ("validation", "test", False)
    plain = _named(gallery, "cook: tone 5")
    assert (plain.split, plain.encoder, plain.seen) == ("train", "train", True)
    pair = {"label": "kiss: mixed", "hexcode": "1-2", "tone": [1, 2]}
    assert read_concepts([{"label": "kiss", "hexcode": "1", "skins": [pair]}])["0001-0002"].tone == MIXED


def test_base_is_the_name_without_tone_gender_and_hair(gallery: Gallery) -> None:
    assert _named(gallery, "woman cook: tone 1").base == "cook"
    assert _named(gallery, "man: red hair").base == "person"


@pytest.mark.parametrize(
    ("base", "labels"),
    [
        ("person", ["person", "man", "woman", "man: bald", "man: blond hair", "woman: red hair", "person: beard"]),
        ("child", ["child", "girl", "boy"]),
        ("older person", ["older person", "old man", "old woman"]),
        ("with crown", ["person with crown", "prince", "princess"]),
        ("Claus", ["Mx Claus", "Mrs. Claus", "Santa Claus"]),
        ("merperson", ["merperson", "mermaid", "merman"]),
        ("couple wrestling", ["people wrestling", "women wrestling", "men wrestling"]),
    ],
)
def test_the_forms_of_a_base_share_its_split(base: str, labels: list[str]) -> None:
    known = frozenset(labels)
    assert {base_of(label, known) for label in labels} == {base}
    assert {part_of_label(label, known) for label in labels} == {part_of(base)}
    concepts = read_concepts(_row(label, f"{i:04X}", tones=True) for i, label in enumerate(labels))
    assert {(c.base, c.split) for c in concepts.values()} == {(base, part_of(base))}


def test_the_answers_are_every_vendors_picture_of_the_target(gallery: Gallery, positives: list[Case]) -> None:
    cases = _between(positives, gallery, "scientist: tone 1", "woman scientist: tone 1")
    assert {case.reference.split("/")[0] for case in cases} == {"google", "twitter"}
    key = "1F469-1F3FB-200D-1F52C"
    assert {case.answers for case in cases} == {(f"google/{key}.webp", f"twitter/{key}.webp")}


@pytest.mark.parametrize(
    ("family", "source", "target", "text"),
    [
        ("skin-tone", "cook", "cook: tone 5", "has dark skin"),
        ("gender", "man cook: tone 2", "woman cook: tone 2", "is a woman"),
        ("gender", "man", "woman", "is female"),
        ("hair", "man: red hair: tone 3", "man: bald: tone 3", "has no hair"),
        ("hair", "man: beard: tone 3", "man: tone 3", "has no beard"),
        ("age", "man: tone 1", "baby: tone 1", "is an infant"),
        ("profession", "woman cook: tone 4", "woman scientist: tone 4", "works as a scientist"),
        ("cat-face", "smirking face", "cat with wry smile", "has the head of a cat"),
        ("mood", "smirking face", "crying face", "is shedding a tear"),
        ("direction", "taxi", "oncoming taxi", "is seen from the front"),
        ("clock", "one o\u2019clock", "five-thirty", "shows half past five"),
        ("moon", "full moon", "crescent moon", "is a bare sickle"),
        ("colour", "red heart", "blue heart", "is blue"),
        ("weather", "umbrella", "umbrella with rain drops", "is open in the rain"),
        ("style", "umbrella", "umbrella", "is drawn in black outlines"),
    ],
)
def test_each_family_leads_from_concept_to_concept(
    gallery: Gallery, positives: list[Case], family: str, source: str, target: str, text: str
) -> None:
    cases = [case for case in _between(positives, gallery, source, target) if case.family == family]
    assert {case.texts[0] for case in cases} == {text}
    assert all(case.reference not in case.answers for case in cases)
    wanted = _named(gallery, target)
    assert {(case.split, case.seen) for case in cases} == {(wanted.split, wanted.seen)}


def test_a_modification_keeps_gender_and_tone(gallery: Gallery, steps: list[Edit]) -> None:
    kept = [s for s in steps if s.family in ("profession", "hair", "mood", "direction")]
    assert kept
    assert all(s.source.tone == s.target.tone for s in kept)
    assert all(s.source.gender == s.target.gender for s in kept)
    assert not _between(positive_cases(steps, gallery, read_tables()), gallery, "man cook", "woman scientist")


def test_outlines_answer_only_where_they_show_the_target(gallery: Gallery, positives: list[Case]) -> None:
    def outlined(source: str, target: str) -> set[bool]:
        cases = [case for case in _between(positives, gallery, source, target) if case.family != "style"]
        return {any(a.startswith("outline/") for a in case.answers) for case in cases}

    assert outlined("red heart", "blue heart") == {False}
    assert outlined("cook: tone 2", "cook") == {False}
    assert outlined("man cook", "cook") == {True}
    assert outlined("full moon", "crescent moon") == {True}
    assert not [
        c for c in positives if c.family == "style" and c.target == f"{_named(gallery, 'red heart').key}@outline"
    ]


def test_an_outline_is_no_reference_where_a_tone_is_kept(gallery: Gallery, positives: list[Case]) -> None:
    assert "outline" not in {case.vendor for case in _between(positives, gallery, "man cook", "woman cook")}
    assert "outline" in {case.vendor for case in _between(positives, gallery, "taxi", "oncoming taxi")}


def test_a_style_is_answered_by_the_picture_in_that_style(gallery: Gallery, positives: list[Case]) -> None:
    cases = _between((c for c in positives if c.family == "style"), gallery, "umbrella", "umbrella")
    assert {(case.vendor, case.answers) for case in cases} == {
        (vendor, ("outline/2602.webp",)) for vendor in ("google", "twitter")
    }


def test_what_a_negative_excludes_is_unwanted_and_nothing_else(gallery: Gallery, steps: list[Edit]) -> None:
    cases = list(negative_cases(steps, gallery, read_tables()))
    women = next(
        c for c in cases if c.target == "1F9D1-200D-1F373!woman" and c.reference == "google/1F468-200D-1F373.webp"
    )
    by_key = gallery.concepts
    assert women.negative == "a woman"
    assert women.texts[1] == "a cook"
    assert {by_key[Path(p).stem].gender for p in women.unwanted} == {"woman"}
    assert {by_key[Path(p).stem].gender for p in women.answers} == {"person", "man"}
    assert len(women.answers) + 1 + len(women.unwanted) == 3 * (6 * 2 + 1)  # two vendors draw tones, one draws none
    dark = next(c for c in cases if c.target == "1F9D1-200D-1F373!dark")
    assert {by_key[Path(p).stem].tone for p in dark.unwanted} == {4, 5}
    assert {by_key[Path(p).stem].tone for p in dark.answers} == {0, 1, 2, 3}
    assert "outline" not in {p.split("/")[0] for p in (*dark.answers, *dark.unwanted)}


def test_a_contrast_excludes_the_other_pictures_of_the_reference(gallery: Gallery, steps: list[Edit]) -> None:
    cases = _between(negative_cases(steps, gallery, read_tables()), gallery, "red heart", "blue heart")
    assert [(c.negative, c.unwanted) for c in cases if c.vendor == "google"] == [("red colour", ("twitter/2764.webp",))]


@pytest.mark.parametrize(
    ("name", "plain"),
    [("person: bald", "someone bald"), ("person running: facing right", "someone running, facing right")],
)
def test_plain_names_are_sayable(name: str, plain: str) -> None:
    texts = plain_texts(name, gendered=True)
    assert texts[1] == plain
    assert len(texts) == len(PHRASINGS)
    assert plain_texts("cook", gendered=True)[1] == "a cook"


def test_queries_depend_on_the_seed_and_on_no_order() -> None:
    concepts = read_concepts(EMOJI)
    shuffled = list(concepts.items())
    random.Random(1).shuffle(shuffled)

    def built(items: Iterable[tuple[str, Concept]], seed: int) -> list[str]:
        known = dict(items)
        drawn = {v: [k for k, c in known.items() if v != "outline" or c.tone == 0] for v in reversed(VENDORS)}
        return [query.line() for query in build_queries(Gallery(known, drawn), read_tables(), seed=seed)]

    first = built(concepts.items(), 0)
    assert first
    assert built(shuffled, 0) == first
    assert built(concepts.items(), 1) != first


def test_no_target_is_asked_for_ever_and_vendors_take_turns(positives: list[Case]) -> None:
    many = [replace(positives[0], split="test", reference=f"google/{i}.webp") for i in range(2 * PER_TARGET)]
    assert len(choose(many, {"test": 1000})) == PER_TARGET
    some = choose([c for c in positives if c.kind == "clock"], {"train": 6, "validation": 6, "test": 6})
    assert set(Counter((c.target, c.vendor) for c in some).values()) == {1}


def test_shares_are_even_until_a_family_has_no_more() -> None:
    assert shares({"a": 3, "b": 100, "c": 100}, 43) == {"a": 3, "b": 20, "c": 20}
    assert shares({"a": 1, "b": 2}, 10) == {"a": 1, "b": 2}


def test_exchanged_tones_are_put_right() -> None:
    named = {1: 200.0, 2: 190.0, 3: 150.0, 4: 100.0, 5: 50.0}
    assert true_tones(named) == {tone: tone for tone in named}
    assert true_tones({**named, 2: 150.0, 3: 210.0}) == {1: 1, 2: 3, 3: 2, 4: 4, 5: 5}
    assert true_tones({**named, 4: 10.0}) is None
    assert true_tones({1: 200.0, 2: 190.0}) is None


def test_pictures_that_cannot_be_told_apart_are_left_out(tmp_path: Path) -> None:
    concepts = read_concepts(EMOJI)
    folder = tmp_path / "package"
    folder.mkdir()
    shown = {
        "2764-fe0f": "red",
        "1f499": "blue",
        "2602": "blue",
        "1f319": "yellow",
        "1f468-1f3fb": "pink",
        "aaaa": "black",
    }
    for name, colour in shown.items():
        Image.new("RGBA", (200, 100), colour).save(folder / f"{name}.png")
    assert write_vendor("outline", folder, concepts, tmp_path) == ["1F319", "2764"]
    assert write_vendor("google", folder, concepts, tmp_path) == ["1F319", "1F468-1F3FB", "2764"]
    written = sorted((tmp_path / "google").iterdir())
    assert [path.name for path in written] == ["1F319.webp", "1F468-1F3FB.webp", "2764.webp"]
    with Image.open(written[0]) as picture:
        assert picture.size == (96, 48)


def test_an_outline_that_looks_as_another_vendors_picture_is_left_out(tmp_path: Path) -> None:
    shown = {"openmoji": ("black", "red", "blue"), "outline": ("black", "black", "black")}
    keys = ["1F300", "2764", "1F499"]
    for vendor, colours in shown.items():
        (tmp_path / vendor).mkdir()
        for key, colour in zip(keys, colours, strict=True):
            Image.new("RGB", (20, 20), colour).save(tmp_path / vendor / f"{key}.webp")
    transparent = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    transparent.save(tmp_path / "outline" / "2764.webp")
    Image.new("RGB", (20, 20), "white").save(tmp_path / "openmoji" / "2764.webp")  # on white, the same
    kept = leave_out_copies({"openmoji": sorted(keys), "outline": sorted(keys)}, tmp_path)
    assert kept == {"openmoji": sorted(keys), "outline": ["1F499"]}
    assert [path.name for path in (tmp_path / "outline").iterdir()] == ["1F499.webp"]
    assert len(list((tmp_path / "openmoji").iterdir())) == 3


def test_an_answer_with_the_bytes_of_its_reference_or_of_what_is_unwanted_is_found(tmp_path: Path) -> None:
    for name, content in (("a/1", b"one"), ("b/1", b"one"), ("c/1", b"two"), ("d/1", b"two")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)

    def query(id: str, reference: str, answers: tuple[str, ...], unwanted: tuple[str, ...] = ()) -> Query:
        return Query(id, "style", "test", True, reference, "is flat", 0, "1", answers, None, unwanted)

    fine = query("fine", "a/1", ("c/1", "d/1"), ("b/1",))
    same, excluded = query("same", "a/1", ("b/1", "c/1")), query("excluded", "a/1", ("c/1",), ("d/1",))
    assert copies([fine, same, excluded], tmp_path) == ["same", "excluded"]


# The committed benchmark.


@cache
def _text(name: str) -> str:
    return gzip.decompress((HERE / f"{name}.gz").read_bytes()).decode()


@cache
def _summary() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((HERE / "emojicir.json").read_text(encoding="utf-8"))
    return loaded


@cache
def _queries() -> list[dict[str, Any]]:
    return [json.loads(line) for line in _text("queries.jsonl").splitlines()]


@cache
def _pictures() -> dict[str, dict[str, str]]:
    head, *rows = (line.split("\t") for line in _text("pictures.tsv").splitlines())
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def _concepts_of(query: dict[str, Any]) -> set[str]:
    return {_pictures()[answer]["concept"] for answer in query["answers"]}


def _grouped(key: Callable[[dict[str, Any]], str]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for query in _queries():
        groups[key(query)].append(query)
    return groups


@pytest.mark.parametrize("name", ["queries.jsonl", "pictures.tsv"])
def test_the_committed_files_have_the_stated_sha256(name: str) -> None:
    assert hashlib.sha256(_text(name).encode()).hexdigest() == _summary()["sha256"][name]


def test_there_are_enough_queries_of_every_family() -> None:
    cases = _grouped(lambda q: q["id"].rsplit("#", 1)[0])
    assert len(cases) >= 3000
    assert sum(query["split"] == "test" for query in _queries()) >= 3000
    found = {(q["family"], q["split"]) for q in _queries()}
    assert {family for family, _ in found} == FAMILIES
    everywhere = FAMILIES - {"hair"}  # which is of one base, and so in one split
    assert found == {(family, split) for family in everywhere for split in ("train", "validation", "test")} | {
        ("hair", "test")
    }
    per_split = Counter((q["split"], q["family"]) for q in _queries())
    for split in ("train", "validation", "test"):
        share = {family: number for (part, family), number in per_split.items() if part == split}
        assert max(share.values()) <= 0.35 * sum(share.values())
    assert per_split["test", "negative"] >= 400
    assert per_split["validation", "negative"] >= 200


def _base_labels(query: dict[str, Any], labels: dict[str, str]) -> set[str]:
    """Return the untoned labels of a query's answers."""
    roots = {re.sub("-1F3F[BCDEF](?![0-9A-F])", "", concept) for concept in _concepts_of(query)}
    return {labels[root] for root in roots}


def test_each_base_has_one_split() -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for picture in _pictures().values():
        splits[picture["base"]].add(picture["split"])
    assert {base: {part_of(base)} for base in splits} == splits


def test_no_base_of_a_test_target_is_in_another_split() -> None:
    bases: dict[str, set[str]] = defaultdict(set)
    for query in _queries():
        found = {(_pictures()[a]["base"], _pictures()[a]["split"]) for a in query["answers"]}
        assert len(found) == 1
        assert {split for _, split in found} == {query["split"]}
        bases[query["split"]].update(name for base, _ in found for name in (base, concept_of(base)))
    assert not bases["test"] & (bases["train"] | bases["validation"])
    assert not bases["validation"] & bases["train"]


def test_every_family_has_the_emoji_that_its_salt_was_chosen_for() -> None:
    emoji: dict[tuple[str, str], set[str]] = defaultdict(set)
    for query in _queries():
        if query["family"] != "hair":
            root = re.sub("-1F3F[BCDEF](?![0-9A-F])", "", re.split("[@!]", query["target"])[0])
            emoji[query["family"], query["split"]].add(root)
    least = {"train": 2, "validation": 2, "test": 4}
    assert not {key: roots for key, roots in emoji.items() if len(roots) < least[key[1]]}


def test_no_answer_is_a_copy_of_its_reference() -> None:
    """OpenMoji's coloured and black pictures of these are one file; `copies` compares all of the built pictures."""
    for key in ("1FBC6", "2B58", "2744", "1F300"):
        assert f"openmoji/{key}.webp" in _pictures()
        assert f"outline/{key}.webp" not in _pictures()


def test_seen_says_whether_lens_base_was_trained_on_the_target() -> None:
    labels = {picture["concept"]: picture["name"] for picture in _pictures().values()}
    for query in _queries():
        assert {split_of_label(label) == "train" for label in _base_labels(query, labels)} == {query["seen"]}
        assert {(_pictures()[a]["split"], _pictures()[a]["encoder"] == "train") for a in query["answers"]} == {
            (query["split"], query["seen"])
        }
    found = {(query["split"], query["seen"]) for query in _queries()}
    assert found == {(split, seen) for split in ("train", "validation", "test") for seen in (True, False)}


def test_the_split_is_a_hash_of_the_base() -> None:
    """Worked out with sha256sum: the first 16 hex digits, modulo 20."""
    assert [part_of(base) for base in ("cook", "astronaut", "scientist", "person", "red heart", "blue heart")] == [
        "train", "train", "validation", "test", "test", "test",
    ]  # fmt: skip
    parts = Counter(part_of(base) for base in {p["base"] for p in _pictures().values()})
    shares = {part: number / parts.total() for part, number in parts.items()}
    assert shares == pytest.approx({"train": 0.55, "validation": 0.15, "test": 0.30}, abs=0.04)


def test_splits_and_ids_are_those_stated() -> None:
    ids = [query["id"] for query in _queries()]
    assert ids == sorted(set(ids))
    assert fingerprint([(q["id"], q["split"]) for q in _queries()]) == _summary()["split_sha256"]


def test_every_answer_exists_and_the_reference_is_none() -> None:
    for query in _queries():
        answers, unwanted = set(query["answers"]), set(query["unwanted"])
        assert answers
        assert {query["reference"], *answers, *unwanted} <= _pictures().keys()
        assert query["reference"] not in answers | unwanted
        assert not answers & unwanted
        assert bool(unwanted) == bool(query["negative"]) == (query["family"] == "negative")


def test_no_picture_of_the_target_is_forgotten() -> None:
    drawn: dict[str, set[str]] = defaultdict(set)
    for name, picture in _pictures().items():
        drawn[picture["concept"]].add(name)
    for query in _queries():
        if query["family"] not in ("negative", "style"):
            left = drawn[query["target"]] - set(query["answers"])
            assert left <= {f"outline/{query['target']}.webp"}
            assert set(query["answers"]) <= drawn[query["target"]]


def test_every_modification_has_all_phrasings() -> None:
    for queries in _grouped(lambda q: q["id"].rsplit("#", 1)[0]).values():
        assert sorted(query["phrasing"] for query in queries) == list(range(len(PHRASINGS)))
        assert len({query["text"] for query in queries}) == len(PHRASINGS)
    assert _summary()["phrasings"] == list(PHRASINGS)


def test_no_text_names_its_target() -> None:
    asked = {
        (query["text"].lower(), _pictures()[answer]["name"].lower())
        for query in _queries()
        if query["family"] not in ("profession", "negative")
        for answer in query["answers"]
    }
    assert not [pair for pair in asked if re.search(rf"(?<!\w){re.escape(pair[1])}(?!\w)", pair[0])]


def test_references_are_of_all_vendors() -> None:
    vendors = Counter(query["reference"].split("/")[0] for query in _queries() if query["split"] == "test")
    assert vendors.keys() == _summary()["pictures"].keys()
    assert min(vendors.values()) * 3 > max(vendors.values())


def test_the_readme_counts_what_is_committed() -> None:
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    nothing = dict.fromkeys(("queries", "targets", "unseen", "unseen_targets"), 0)
    for family, splits in _summary()["counts"].items():
        cells = [splits.get(split, nothing) for split in ("train", "validation", "test")]
        numbers = [f"{cell['queries']:,} / {cell['targets']:,}" for cell in cells]
        unseen = [f"{cell['unseen']:,} / {cell['unseen_targets']:,}" for cell in cells[1:]]
        row = " | ".join([family, *numbers, *unseen])
        assert f"| {row} |" in readme
    assert f"all {len(_pictures()):,} pictures" in readme
    assert all(f"{package['name']} {package['version']}" in readme for package in _summary()["packages"])


def test_counts_are_of_queries_cases_and_targets(gallery: Gallery) -> None:
    queries = [q for q in build_queries(gallery, read_tables()) if q.family == "clock"]
    assert counts(queries)["clock"][queries[0].split]["cases"] * len(PHRASINGS) == sum(
        query.split == queries[0].split for query in queries
    )
    stated = {f: {s: c["queries"] for s, c in parts.items()} for f, parts in _summary()["counts"].items()}
    real: dict[str, dict[str, int]] = defaultdict(dict)
    for (family, split), number in Counter((q["family"], q["split"]) for q in _queries()).items():
        real[family][split] = number
    assert stated == real
    unseen = Counter((q["family"], q["split"]) for q in _queries() if not q["seen"])
    found = {(f, s): cell["unseen"] for f, parts in _summary()["counts"].items() for s, cell in parts.items()}
    assert found == {key: unseen[key] for key in found}
