"""The parts of a query: what users pass as `parts`, the shorthands for them, and the command line's grammar.

The grammar is rclip's (https://github.com/yurijmikhalevich/rclip): "./me.jpg + 2:at night - people". Operators stand
between spaces; a number and a colon in front of a part are its weight; a part that starts like a path is a picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from pocketlens.errors import BadQuery
from pocketlens.picture import Picture
from pocketlens.text import MAX_TEXT_CHARACTERS, readable

MIN_WEIGHT = 1e-3  # a part that counts less than this has no say, and ratios of weights stay in float32's range
MAX_WEIGHT = 100.0
MAX_QUERY_CHARACTERS = 65_536  # what is longer is no query; of one, the first 4,096 count
_RANGE = f"{MIN_WEIGHT:g} to {MAX_WEIGHT:g}"
PATH_STARTS = ("./", "../", "/", "~/")
_OPERATOR = re.compile(r"(?:(?<=\s)|^)([+-])(?=\s|$)")
_WEIGHT = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+):(?![0-9])")  # "12:30 clock" has none
_SECOND_SIGN = re.compile(rf"[+-]\s*{_WEIGHT.pattern}")
_LOOSE_SIGN = re.compile(r"\S[+-]\s|\s[+-]\S")
_EXPECTED = '("text" or "image", value) or ("text" or "image", value, weight)'

Kind: TypeAlias = Literal["text", "image"]
GivenPart: TypeAlias = "tuple[str, Picture] | tuple[str, Picture, float] | Part"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a query.

    Attributes:
        kind: what `value` is.
        value: the text, or the picture as bytes, path or PIL image.
        weight: how much it counts, 0.001 to 100; with a minus for what is not wanted.
    """

    kind: Kind
    value: Picture
    weight: float = 1.0


def read_parts(parts: Sequence[GivenPart]) -> list[Part]:
    """Return what a user passed as `parts`, checked.

    Args:
        parts: `(kind, value)` or `(kind, value, weight)` each; kind "text" or "image", weight 1 unless given.

    Raises:
        BadQuery: there is none, nothing is wanted, or one has another kind, type or weight; `parts[i]` is named.
    """
    if not isinstance(parts, list | tuple):
        raise BadQuery(f"parts is of type {type(parts).__name__}, expected a list of {_EXPECTED}")
    if len(parts) == 0:
        raise BadQuery(f"parts is empty, expected at least one {_EXPECTED}")
    return check_wanted([_read_part(f"parts[{number}]", part) for number, part in enumerate(parts)])


def shorthand(text: str | None, image: Picture | None, negative: str | Sequence[str] | None) -> list[Part]:
    """Return the parts that `text`, `image` and `negative` stand for; the pictures first.

    Raises:
        BadQuery: one has another type or is empty, or nothing is wanted.
    """
    unwanted = [negative] if isinstance(negative, str) else [] if negative is None else negative
    if not isinstance(unwanted, list | tuple):
        raise BadQuery(f"negative must be a str or a list of them, found {type(unwanted).__name__}")
    found = [] if image is None else [read_part("the image", "image", image, 1.0)]
    found += [] if text is None else [read_part("the text", "text", text, 1.0)]
    names = ["negative"] if isinstance(negative, str) else [f"negative[{number}]" for number in range(len(unwanted))]
    found += [_read_unwanted(name, value) for name, value in zip(names, unwanted, strict=True)]
    if not found:
        raise BadQuery("a query needs a text, an image or both; found neither")
    return check_wanted(found)


def read_options(
    expression: str | None, images: Sequence[Path], texts: Sequence[str], negative: Sequence[str]
) -> list[Part]:
    """Return the parts that the command line gives, in this order; whether anything is wanted is not checked.

    Raises:
        BadQuery: the expression is wrong or a path in it leads nowhere, or a text is empty or not wanted and a file.
    """
    parts = [] if expression is None else parse_expression(expression.lstrip(), existing=True)
    parts += [read_part("--image", "image", image) for image in images]
    parts += [read_part("--text", "text", text) for text in texts]
    return parts + [_read_unwanted("--negative", text) for text in negative]


def parse_expression(expression: str, *, existing: bool = False) -> list[Part]:
    """Return the parts of an expression such as "./me.jpg + 2:at night - people".

    A part that starts with ./, ../, / or ~/ is the path of a picture.

    Args:
        expression: as a user typed it.
        existing: refuse a path where there is nothing, and a text that is the name of a file.

    Raises:
        BadQuery: a part is empty or has two signs, a weight is out of range, nothing is wanted, or a path leads
            nowhere; the expression is shown.
    """
    if not expression.strip():
        raise BadQuery("the expression is empty, expected a text or the path of a picture")
    first, *rest = _OPERATOR.split(expression.strip())
    signed = list(zip(rest[::2], rest[1::2], strict=True))
    if first.strip() or not rest:
        signed.insert(0, ("", first))
    try:
        parts = check_wanted([_parse_part(sign, part.strip()) for sign, part in signed])
        if existing:
            _check_paths(parts)
        return parts
    except BadQuery as error:
        raise BadQuery(f"{readable(expression)!r}: {error}") from None


def check_wanted(parts: list[Part]) -> list[Part]:
    """Return the parts.

    Raises:
        BadQuery: every one has a negative weight.
    """
    if all(part.weight < 0 for part in parts):
        raise BadQuery(
            "nothing is wanted: every part of the query is negative; expected a picture or a text to look for"
        )
    return parts


def read_part(where: str, kind: Any, value: Any, weight: Any = 1.0) -> Part:
    """Return a part, checked; `where` names it in errors.

    Raises:
        BadQuery: it is of another kind, type or weight, or is a text that is empty or longer than 65,536 characters.
    """
    if kind not in ("text", "image"):
        raise BadQuery(f'{where} is of kind {kind!r}, expected "text" or "image"')
    if kind == "text" and not isinstance(value, str):
        raise BadQuery(f"{where} must be a str, found {type(value).__name__}")
    if kind == "text" and len(value) > MAX_QUERY_CHARACTERS:
        raise BadQuery(f"{where} has {len(value):,} characters, expected at most {MAX_QUERY_CHARACTERS:,}")
    if kind == "text" and not readable(value).strip():
        raise BadQuery(f"{where} is empty, expected some words")
    if kind == "image" and not isinstance(value, bytes | str | Path | Image.Image):
        raise BadQuery(f"{where} must be bytes, a path or a PIL image, found {type(value).__name__}")
    if isinstance(weight, bool) or not isinstance(weight, int | float | np.integer | np.floating):
        raise BadQuery(f"{where} has a weight of type {type(weight).__name__}, expected a number")
    try:
        number = float(weight)
    except OverflowError:  # an int may be too large for a float
        number = math.inf
    if not MIN_WEIGHT <= abs(number) <= MAX_WEIGHT:
        raise BadQuery(f"{where} has the weight {number:g}, expected {_RANGE}, with a minus for what is not wanted")
    return Part(kind, value, number)


def _read_part(where: str, given: Any) -> Part:
    if isinstance(given, Part):
        return read_part(where, given.kind, given.value, given.weight)
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        found = f"{len(given)} values" if isinstance(given, tuple | list) else type(given).__name__
        raise BadQuery(f"{where} is {found}, expected {_EXPECTED}")
    return read_part(where, *given)


def _parse_part(sign: str, part: str) -> Part:
    if sign and _SECOND_SIGN.match(part):
        raise BadQuery(f"{part!r} after {sign!r} has a sign of its own; expected {f'{sign} {part[1:].strip()}'!r}")
    weight = _WEIGHT.match(part)
    value = part[weight.end() :].strip() if weight else part
    if not value:
        after = f"the weight {weight[1]}" if weight else f"{sign!r}"
        raise BadQuery(f"nothing stands after {after}, expected a text or the path of a picture")
    amount = float(weight[1]) if weight else 1.0
    where = f"part {part!r}"
    if not MIN_WEIGHT <= amount <= MAX_WEIGHT:
        raise BadQuery(f"{where} has the weight {amount:g}, expected {_RANGE}")
    amount = -amount if sign == "-" else amount
    if value.startswith(PATH_STARTS):
        return read_part(where, "image", _path(value), amount)
    return read_part(where, "text", value, amount)


def _read_unwanted(where: str, value: Any) -> Part:
    part = read_part(where, "text", value, -1.0)
    if _is_file(value):
        raise BadQuery(
            f"{where} is {readable(value)!r}, a file, and expected are words; a picture that is not wanted is a part "
            "with a minus: of an EXPRESSION on the command line, of parts in Python"
        )
    return part


def _check_paths(parts: Sequence[Part]) -> None:
    for part in parts:
        if part.kind == "text" and _is_file(str(part.value)):
            raise BadQuery(
                f"{part.value!r} is a file here; a picture starts with ./, and --text takes a text as it stands"
            )
        if isinstance(part.value, Path) and not _exists(part.value):
            raise BadQuery(f"there is no file {part.value}; {_why_no_file(str(part.value))}")


def _why_no_file(path: str) -> str:
    if _LOOSE_SIGN.search(path):
        return "+ and - join parts only with a space on both sides"
    return (
        f"a part that starts with {', '.join(PATH_STARTS)} is the path of a picture (on the command line, --text takes "
        "a text as it stands, and --image a file with ' + ' or ' - ' in its name)"
    )


def _is_file(text: str) -> bool:
    """Return whether a text is rather the name of a file: a word such as "beach" is not, whatever lies here."""
    if len(text) > MAX_TEXT_CHARACTERS:  # no file has such a name, and to take a book apart as a path takes seconds
        return False
    path = _path(text)
    return (text.startswith(PATH_STARTS) or path.suffix != "") and _exists(path) and path.is_file()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long
        return False


def _path(value: str) -> Path:
    if value.startswith("~/"):  # "./~" is a file of that name
        with suppress(RuntimeError):  # there is no home folder
            return Path(value).expanduser()
    return Path(value)
