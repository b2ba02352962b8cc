"""What `--set NAME=VALUE` says, for the commands that take it more than once."""

from __future__ import annotations

from collections.abc import Sequence

from pocketlens.errors import BadQuery


def read_settings(settings: Sequence[str], *, form: str = "NAME=VALUE") -> dict[str, str]:
    """Return the values of NAME=VALUE pairs by name, without the space around either.

    Args:
        settings: as given to --set.
        form: how a message calls such a pair.

    Raises:
        BadQuery: one is no such pair, or a name stands twice.
    """
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise BadQuery(f"--set is {setting!r}, expected {form}")
        if name in found:
            raise BadQuery(f"--set {name} is given twice: {found[name]!r} and {value.strip()!r}")
        found[name] = value.strip()
    return found


def number_or_text(value: str) -> float | str:
    """Return what a parameter's value is: a number where it reads as one."""
    try:
        return float(value)
    except ValueError:
        return value
