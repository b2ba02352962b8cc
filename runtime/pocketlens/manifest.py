"""JSON manifests, read strictly into frozen dataclasses and written canonically.

A manifest is the only contract between the packages. Its dataclass says everything: an unknown, missing or mistyped
field is a `FormatError` that names the file, the field, what was found and what was expected. There are no defaults.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from pocketlens.errors import FormatError
from pocketlens.files import write_file

T = TypeVar("T")
MAX_MANIFEST_BYTES = 4 << 20


def read_manifest(path: Path, kind: type[T], *, format: str, version: int) -> T:
    """Return the manifest at `path` as an instance of the dataclass `kind`.

    Args:
        path: a JSON file whose object has the keys "format" and "version" beside the dataclass's fields.
        kind: a dataclass of str, int, float, bool, Literal, dataclasses, `X | None`, `tuple[X, ...]`, `dict[str, X]`.
        format: the expected value of "format".
        version: the only version that this reader knows.

    Raises:
        FormatError: the file is missing, is not JSON, is of another format or version, or a field is wrong.
    """
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise FormatError(f"{path} has {path.stat().st_size} bytes, expected at most {MAX_MANIFEST_BYTES}")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not path.parent.exists():
            raise FormatError(f"{path.parent} does not exist; expected a {format} folder") from None
        raise FormatError(f"{path} not found; expected a {format} folder with this file") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    return parse_manifest(content, path, kind, format=format, version=version)


def parse_manifest(content: bytes, path: Path, kind: type[T], *, format: str, version: int) -> T:
    """Return a manifest that was read from `path`; see `read_manifest`.

    Raises:
        FormatError: it is not JSON, is of another format or version, or a field is wrong.
    """
    try:
        data = json.loads(content, object_pairs_hook=_object)
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()  # refuses NaN, infinity and lone surrogates
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != format:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise FormatError(f"{path}: format is {found!r}, expected {format!r}")
    if type(data.get("version")) is not int or data["version"] != version:
        raise FormatError(f"{path}: version is {data.get('version')!r}; this pocketlens reads version {version}")
    fields = {key: value for key, value in data.items() if key not in ("format", "version")}
    return typing.cast(T, _parse(fields, kind, f"{path}: "))


def write_manifest(path: Path, value: Any, *, format: str, version: int) -> None:
    """Write the dataclass `value` as canonical JSON: fields in order, two spaces, UTF-8, one final newline."""
    write_file(path, manifest_bytes(value, format=format, version=version))


def manifest_bytes(value: Any, *, format: str, version: int) -> bytes:
    """Return what `write_manifest` writes."""
    data = {"format": format, "version": version, **dataclasses.asdict(value)}
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return data


def _parse(value: Any, kind: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_object(value, kind, where)
    if origin is Literal:
        return _expect(value, value in arguments, where, f"one of {', '.join(map(repr, arguments))}")
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _parse(value, inner, where)
    if origin is tuple:
        _expect(value, isinstance(value, list), where, "a list")
        return tuple(_parse(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _expect(value, isinstance(value, dict), where, "an object")
        return {key: _parse(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        return float(_expect(value, number, where, "a number"))
    return _expect(value, type(value) is kind, where, f"a value of type {kind.__name__}")


def _parse_object(value: Any, kind: Any, where: str) -> Any:
    _expect(value, isinstance(value, dict), where, "an object")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    top = where.endswith(": ")
    inside, dotted = (where, where) if top else (f"{where}: ", f"{where}.")
    for name in names:
        if name not in value:
            raise FormatError(f"{inside}field {name!r} is missing")
    for name in value:
        if name not in names:
            raise FormatError(f"{inside}unknown field {name!r}, expected only {', '.join(names)}")
    return kind(**{name: _parse(value[name], hints[name], f"{dotted}{name}") for name in names})


def _expect(value: Any, ok: bool, where: str, expected: str) -> Any:
    if not ok:
        found = json.dumps(value, ensure_ascii=False)
        found = found if len(found) <= 60 else f"{found[:60]}…"
        raise FormatError(f"{where} is {found}, expected {expected}")
    return value
