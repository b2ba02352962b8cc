from __future__ import annotations

import re

import pytest

import pocketlens.compose as package
from pocketlens.compose import METHODS, Composed, Method, Parameter, Query, Text, check_values, compose, find_method
from pocketlens.errors import BadQuery
from tests.runtime.compose.by_hand import X, hand_kit

METHOD = Method(
    name="made-up",
    about="",
    formula="",
    source="",
    needs=(),
    text_passes=0,
    compose=lambda query, kit, values: Composed(X[None]),
    parameters={
        "share": Parameter(0.5, ""),
        "count": Parameter(3.0, "", 1.0, 9.0, whole=True),
        "kind": Parameter("plain", "", choices=("plain", "fancy")),
    },
)


def test_public_names_exist() -> None:
    assert all(hasattr(package, name) for name in package.__all__)


def test_a_method_is_found_by_name() -> None:
    for name, method in METHODS.items():
        assert find_method(name) is method
    with pytest.raises(
        BadQuery, match=r"there is no method 'centered-product' \(did you mean centred-product\?\); known: "
    ):
        find_method("centered-product")
    with pytest.raises(BadQuery, match=", ".join(METHODS)):
        find_method("")
    with pytest.raises(BadQuery, match="there is no method None"):
        find_method(None)  # type: ignore[arg-type]


def test_values_are_completed() -> None:
    assert check_values(METHOD, None) == {"share": 0.5, "count": 3.0, "kind": "plain"}
    assert check_values(METHOD, {"kind": "fancy", "share": 1, "count": 9}) == {
        "share": 1.0,
        "count": 9.0,
        "kind": "fancy",
    }
    assert all(isinstance(check_values(METHOD, {"count": 2})[name], float) for name in ("share", "count"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shaer", 1, "there is no parameter 'shaer' (did you mean share?); known: share, count, kind"),
        ("share", 1.5, "share is 1.5, expected a number from 0 to 1"),
        ("share", -0.1, "share is -0.1, expected a number from 0 to 1"),
        ("share", float("nan"), "share is nan, expected a number from 0 to 1"),
        ("share", float("inf"), "share is inf, expected a number from 0 to 1"),
        ("share", 10**400, "share is inf, expected a number from 0 to 1"),
        ("count", -(10**400), "count is -inf, expected an integer from 1 to 9"),
        ("share", True, "share is True, expected a number from 0 to 1"),
        ("share", "0.5", "share is '0.5', expected a number from 0 to 1"),
        ("share", None, "share is None, expected a number from 0 to 1"),
        ("count", 2.5, "count is 2.5, expected an integer from 1 to 9"),
        ("count", 0, "count is 0, expected an integer from 1 to 9"),
        ("kind", "odd", "kind is 'odd', expected one of plain, fancy"),
        ("kind", 1, "kind is 1, expected one of plain, fancy"),
    ],
)
def test_a_bad_value_is_named(name: str, value: object, message: str) -> None:
    with pytest.raises(BadQuery, match=re.escape(f"method made-up: {message}")):
        check_values(METHOD, {name: value})  # type: ignore[dict-item]


def test_compose_checks_values_too() -> None:
    with pytest.raises(BadQuery, match="method slerp: text_share is 3, expected a number from 0 to 1"):
        compose(Query(X, (Text("a"),)), None, hand_kit({}), METHODS["slerp"], {"text_share": 3})


def test_defaults_are_within_their_ranges() -> None:
    for method in METHODS.values():
        for name, parameter in method.parameters.items():
            assert check_values(method, {name: parameter.default})[name] == parameter.default
            assert parameter.about


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_positive_numbers(weight: float) -> None:
    for query in (Query(X, (Text("a", weight),)), Query(X, (Text("a"),), weight)):
        with pytest.raises(BadQuery, match=r"a wanted part has the weight .*, expected a positive number"):
            compose(query, None, hand_kit({}), METHODS["sum"])


def test_a_zero_vector_of_any_method_is_an_error() -> None:
    zero = Method("zero", "", "", "", (), 0, lambda query, kit, values: Composed(0 * X[None]))
    with pytest.raises(BadQuery, match="method zero: a vector of the query is zero or not finite"):
        compose(Query(X, ()), None, hand_kit({}), zero)
