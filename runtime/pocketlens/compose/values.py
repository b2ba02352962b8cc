"""The values of a method's parameters: checked once, read by type."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import numpy as np

from pocketlens.compose.method import Method, Parameter, Value, Values
from pocketlens.errors import BadQuery


def check_values(method: Method, given: Mapping[str, Value] | None) -> dict[str, Value]:
    """Return a value for every parameter of a method: the given one, or the default.

    Raises:
        BadQuery: a parameter is unknown, or its value has the wrong type, is out of range, or is none of the choices.
    """
    given = given or {}
    for name in given:
        if name not in method.parameters:
            raise BadQuery(f"method {method.name}: {unknown('parameter', name, method.parameters)}")
    return {
        name: _checked(f"method {method.name}: {name}", parameter, given.get(name, parameter.default))
        for name, parameter in method.parameters.items()
    }


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Return what is wrong with a name that is not among the known ones, with the nearest of them."""
    names = list(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"there is no {kind} {name!r}{hint}; known: {', '.join(names) or 'none'}"


def number(values: Values, name: str) -> float:
    """Return the value of a parameter that is a number."""
    return float(values[name])


def whole(values: Values, name: str) -> int:
    """Return the value of a parameter that is an integer."""
    return int(values[name])


def choice(values: Values, name: str) -> str:
    """Return the value of a parameter that is a choice."""
    return str(values[name])


def _checked(where: str, parameter: Parameter, value: object) -> Value:
    if parameter.choices:
        if not isinstance(value, str) or value not in parameter.choices:
            raise BadQuery(f"{where} is {value!r}, expected one of {', '.join(parameter.choices)}")
        return value
    expected = (
        f"expected {'an integer' if parameter.whole else 'a number'} from {parameter.least:g} to {parameter.most:g}"
    )
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        raise BadQuery(f"{where} is {value!r}, {expected}")
    try:
        amount = float(value)
    except OverflowError:  # an int may be too large for a float
        amount = math.inf if value > 0 else -math.inf
    if not parameter.least <= amount <= parameter.most:  # so is NaN
        raise BadQuery(f"{where} is {amount:g}, {expected}")
    if parameter.whole and not amount.is_integer():
        raise BadQuery(f"{where} is {amount:g}, {expected}")
    return amount
