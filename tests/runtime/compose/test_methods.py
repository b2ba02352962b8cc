"""What holds for every method: the second implementation, and properties of what they share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlens.compose import METHODS, Negative, Query, Text, check_values, compose
from pocketlens.compose.choice import QUERY
from pocketlens.errors import BadQuery, MissingPart
from tests.runtime.compose.kit import (
    ArrayKit,
    random_kit,
    random_negative,
    random_query,
    ranked,
    reweighted,
    scores_over,
)
from tests.runtime.compose.reference import Reference

EVERY = pytest.mark.parametrize("name", METHODS)
BOTH = pytest.mark.parametrize("name", [name for name in METHODS if name not in ("image", "text")])
SEEDS = st.integers(0, 10_000)
WEIGHTS = st.floats(0.1, 10)
FEW = settings(max_examples=15, deadline=None)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=3e-4, atol=3e-5)


@EVERY
@FEW
@given(seed=SEEDS, weights=st.tuples(WEIGHTS, WEIGHTS, WEIGHTS))
def test_scores_are_those_of_a_second_implementation(name: str, seed: int, weights: tuple[float, ...]) -> None:
    kit = random_kit(seed)
    query = random_query(seed, Text("at night", weights[0]), Text("of $ snow {x}", weights[1]), image_weight=weights[2])
    values = check_values(METHODS[name], {})
    close(ranked(name, query, kit), Reference(query, kit, values).score(name))


@EVERY
@pytest.mark.parametrize("level", ["vector", "score"])
@FEW
@given(seed=SEEDS, strength=st.floats(0.05, 2), floor=st.floats(0, 2))
def test_negatives_are_those_of_a_second_implementation(
    name: str, level: str, seed: int, strength: float, floor: float
) -> None:
    kit, query, negative = random_kit(seed), random_query(seed), random_negative(seed)
    given_values: dict[str, float | str] = {
        "negative_strength": strength,
        "negative_level": level,
        "negative_floor": floor,
    }
    values = check_values(METHODS[name], given_values)
    close(ranked(name, query, kit, given_values, negative), Reference(query, kit, values, negative).score(name))


CHANGED: dict[str, list[dict[str, float | str]]] = {
    "slerp": [{"text_share": 0.3}],
    "basic": [{"expansion": 0, "harris": 0.0, "floor": 1.0}, {"expansion": 3, "harris": 0.2, "floor": 6}],
    "weicom": [{"text_share": 0.2}, {"text_share": 0.9}],
    "weimocir": [{"text_share": 0.5, "caption_share": 0.6}],
    "freedom": [
        {"neighbours": 3, "names_per_picture": 2, "names_kept": 4},
        {"centred": "no"},
        {"neighbours": 1, "names_per_picture": 50, "names_kept": 50},
    ],
    "lincir": [{"template": template} for template in ("comma", "with", "plain")],
    "pdv-searle": [{"direction": "text", "text_strength": 1.3}, {"direction": "image", "image_strength": -0.5}],
    "pdv-pic2word": [{"template": "plain", "balance": 0.1, "text_strength": 3}],
    "pdv-names": [{"names_kept": 1, "neighbours": 5}, {"centred": "no", "direction": "image"}],
}


@pytest.mark.parametrize(("name", "values"), [(name, values) for name, some in CHANGED.items() for values in some])
@pytest.mark.parametrize("seed", range(5))
def test_parameters_are_those_of_a_second_implementation(name: str, values: dict[str, float | str], seed: int) -> None:
    kit, query = random_kit(seed), random_query(seed, Text("at night", 2.0))
    found = ranked(name, query, kit, values)
    close(found, Reference(query, kit, check_values(METHODS[name], values)).score(name))
    assert np.abs(found - ranked(name, query, kit)).max() > 1e-4, "the parameters change nothing"


@EVERY
@FEW
@given(seed=SEEDS, factor=st.floats(0.01, 100))
def test_only_the_ratio_of_weights_matters(name: str, seed: int, factor: float) -> None:
    kit = random_kit(seed)
    query = random_query(seed, Text("at night", 1.5), Text("red", 0.5), image_weight=0.7)
    close(ranked(name, reweighted(query, factor), kit), ranked(name, query, kit))


@EVERY
@FEW
@given(seed=SEEDS, weight=WEIGHTS)
def test_equal_weights_of_any_size_are_the_default(name: str, seed: int, weight: float) -> None:
    kit = random_kit(seed)
    query = random_query(seed, Text("at night", weight), image_weight=weight)
    close(ranked(name, query, kit), ranked(name, random_query(seed), kit))


@BOTH
def test_weight_on_a_part_brings_its_vector_nearer(name: str) -> None:
    kit = random_kit(1)
    text = ranked("text", random_query(1), kit)
    image = ranked("image", random_query(1), kit)
    heavy_text = ranked(name, random_query(1, Text("at night", 50.0)), kit, _blunt(name))
    heavy_image = ranked(name, random_query(1, image_weight=50.0), kit, _blunt(name))
    if name.startswith("pdv"):  # its weight is how far the text leads, from picture and sentence
        assert np.abs(heavy_text - heavy_image).max() > 0.1
        return
    assert _like(heavy_text, text) > _like(heavy_image, text)
    assert _like(heavy_image, image) > _like(heavy_text, image)
    if name not in ("basic", "centred-product", "product"):  # clamped scores tie, centred ones are no cosines
        assert _like(heavy_text, text) > 0.8 and _like(heavy_image, image) > 0.8


def _blunt(name: str) -> dict[str, float | str]:
    return {"text_share": 0.5} if name == "slerp" else {}


def _like(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


@EVERY
@pytest.mark.parametrize("level", ["vector", "score"])
def test_answers_are_the_same_every_time(name: str, level: str) -> None:
    values: dict[str, float | str] = {"negative_level": level}
    runs = [ranked(name, random_query(5), random_kit(5), values, random_negative(5)) for _ in range(2)]
    np.testing.assert_array_equal(runs[0], runs[1])


@EVERY
@pytest.mark.parametrize("level", ["vector", "score"])
@FEW
@given(seed=SEEDS)
def test_the_order_of_the_rows_does_not_matter(name: str, level: str, seed: int) -> None:
    kit, values = random_kit(seed), {"negative_level": level}
    order = np.random.default_rng(seed).permutation(len(kit.rows))
    shuffled = ArrayKit(kit.rows[order], kit.concepts)
    found = ranked(name, random_query(seed), shuffled, values, random_negative(seed))
    close(found, ranked(name, random_query(seed), kit, values, random_negative(seed))[order])


@EVERY
@FEW
@given(seed=SEEDS)
def test_scores_of_some_rows_are_their_scores_among_all(name: str, seed: int) -> None:
    kit = random_kit(seed)
    composed = compose(random_query(seed), random_negative(seed), kit, METHODS[name], {"negative_level": "score"})
    assert composed.fuse is not None and composed.negatives == 2
    some = np.random.default_rng(seed).permutation(len(kit.rows))[:7]
    close(composed.fuse(scores_over(composed, kit, some)), composed.fuse(scores_over(composed, kit))[some])


@EVERY
@pytest.mark.parametrize("level", ["vector", "score"])
def test_no_strength_is_no_negative(name: str, level: str) -> None:
    kit, query = random_kit(1), random_query(1)
    values: dict[str, float | str] = {"negative_strength": 0.0, "negative_level": level}
    plain = compose(query, None, kit, METHODS[name])
    for negative in (random_negative(1), random_negative(1, 0)):
        composed = compose(query, negative, kit, METHODS[name], values if len(negative.weights) else None)
        np.testing.assert_array_equal(composed.vectors, plain.vectors)
        assert (composed.fuse is None, composed.negatives) == (plain.fuse is None, 0)
        np.testing.assert_array_equal(ranked(name, query, kit, values, negative), ranked(name, query, kit))


@EVERY
@pytest.mark.parametrize("level", ["vector", "score"])
def test_the_first_rows_are_less_like_what_is_not_wanted(name: str, level: str) -> None:
    likeness: list[list[float]] = [[], []]
    for seed in range(8):
        kit, query = random_kit(seed, rows=400), random_query(seed)
        plain = ranked(name, query, kit)
        unwanted = kit.rows[int(plain.argmax())]
        negative = Negative(unwanted[np.newaxis], np.ones(1, dtype=np.float32))
        for found, scores in zip(
            likeness, (plain, ranked(name, query, kit, {"negative_level": level}, negative)), strict=True
        ):
            found.append(float((kit.rows[(-scores).argsort()[:10]] @ unwanted).mean()))
    assert np.mean(likeness[1]) < np.mean(likeness[0]) - 0.02, likeness


@EVERY
def test_a_method_touches_what_it_says_it_needs(name: str) -> None:
    kit, method = random_kit(7), METHODS[name]
    values: dict[str, float | str] = {"negative_level": "score"}  # there nothing more is needed
    compose(random_query(7), random_negative(7), kit, method, values)
    assert {*QUERY, *kit.touched} >= set(method.needs)
    assert kit.touched == set(method.needs) - set(QUERY)
    for part, query in {"image": Query(None, (Text("a"),), 0.0), "text": Query(random_query(7).image, ())}.items():
        if part in method.needs:
            words = {"image": "a picture", "text": "a text"}[part]
            with pytest.raises(BadQuery, match=f"method {name} needs {words}, and the query has none"):
                compose(query, None, kit, method)
        else:
            assert np.isfinite(ranked(name, query, kit)).all()
    if "features" in method.needs:
        with pytest.raises(BadQuery, match=f"method {name} needs the features of a picture, and the query has its ve"):
            compose(replace(random_query(7), features=()), None, kit, method)


@EVERY
def test_a_method_encodes_as_many_texts_as_it_says(name: str) -> None:
    kit = random_kit(7)
    compose(random_query(7), None, kit, METHODS[name])
    assert len(kit.encoded) == METHODS[name].text_passes


@EVERY
def test_a_bare_bundle_lacks_what_a_method_needs(name: str) -> None:
    bare = ArrayKit(random_kit(7).rows, recipes=())
    if set(METHODS[name].needs) <= set(QUERY):
        for level in ("vector", "score"):  # without a vocabulary negatives are subtracted as they are
            assert np.isfinite(ranked(name, random_query(7), bare, {"negative_level": level}, random_negative(7))).all()
    else:
        with pytest.raises(MissingPart):
            compose(random_query(7), None, bare, METHODS[name])


@EVERY
@pytest.mark.parametrize("level", ["vector", "score"])
def test_a_gallery_of_one_picture_and_of_equal_ones(name: str, level: str) -> None:
    row = random_kit(1).rows[:1]
    for count in (1, 3):
        kit = ArrayKit(np.repeat(row, count, axis=0), random_kit(1, names=2).concepts)
        scores = ranked(name, random_query(1), kit, {"negative_level": level}, random_negative(1))
        assert np.ptp(scores) < 1e-6


@EVERY
@pytest.mark.parametrize("part", ["image", "text", "negative"])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_vectors_without_a_direction_never_leave(name: str, part: str, value: float) -> None:
    kit, query, bad = random_kit(2), random_query(2), np.full(6, value, dtype=np.float32)
    if part == "text":
        kit.known["at night"] = bad
    query = replace(query, image=bad) if part == "image" else query
    with np.errstate(invalid="ignore"):
        if part == "negative" and not np.isfinite(value):
            with pytest.raises(BadQuery, match="a vector of a negative holds NaN or infinity"):
                Negative(bad[np.newaxis], np.ones(1, dtype=np.float32))
        elif (
            part == "negative" or part not in METHODS[name].needs or (part == "text" and METHODS[name].text_passes != 1)
        ):
            assert np.isfinite(ranked(name, query, kit)).all() or part == "text"
        elif part == "text" and "inversion" in "".join(METHODS[name].needs):
            assert np.isfinite(ranked(name, query, kit)).all()  # it is the whole sentence that is encoded
        elif part == "image" and name == "isa":
            assert np.isfinite(ranked(name, query, kit)).all()  # of the picture it takes the features alone
        else:
            with pytest.raises(BadQuery, match=f"the {'picture' if part == 'image' else 'text'} has a zero|NaN or inf"):
                compose(query, None, kit, METHODS[name])


def test_every_method_is_described() -> None:
    assert list(METHODS) == [
        *("image", "text", "sum", "slerp", "product", "centred-product", "basic", "weicom", "weimocir", "freedom"),
        *("pic2word", "searle", "lincir", "isa", "pdv-pic2word", "pdv-searle", "pdv-lincir", "pdv-isa", "pdv-names"),
    ]
    for name, method in METHODS.items():
        assert method.name == name and method.about and method.formula
        assert "arXiv " in method.source or method.source == "baseline"
        assert list(method.parameters)[-3:] == ["negative_strength", "negative_level", "negative_floor"]
        assert check_values(method, dict(check_values(method, None))) == check_values(method, None)
