from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlens.errors import FormatError
from pocketlens.manifest import MAX_MANIFEST_BYTES, manifest_bytes, read_manifest, write_manifest


@dataclass(frozen=True, slots=True)
class Part:
    size: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Whole:
    name: str
    ready: bool
    kind: Literal["a", "b"]
    maybe: Part | None
    parts: tuple[Part, ...]
    by_name: dict[str, Part]


WHOLE = Whole("ж", True, "b", Part(1, 0.5), (Part(2, 1.0), Part(-3, 2.5)), {"x": Part(4, 0.0)})
GOOD: dict[str, Any] = {
    "format": "test",
    "version": 3,
    "name": "ж",
    "ready": True,
    "kind": "b",
    "maybe": {"size": 1, "ratio": 0.5},
    "parts": [{"size": 2, "ratio": 1}, {"size": -3, "ratio": 2.5}],
    "by_name": {"x": {"size": 4, "ratio": 0}},
}

PARTS = st.builds(
    Part, st.integers(), st.floats(-1e299, 1e299, allow_nan=False) | st.integers(-(2**53), 2**53).map(float)
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]))
WHOLES = st.builds(
    Whole,
    NAMES,
    st.booleans(),
    st.sampled_from(["a", "b"]),
    st.none() | PARTS,
    st.lists(PARTS).map(tuple),
    st.dictionaries(NAMES, PARTS),
)


def read(path: Path) -> Whole:
    return read_manifest(path, Whole, format="test", version=3)


def read_text(folder: Path, text: str | bytes) -> Whole:
    path = folder / "m.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path)


def test_a_good_manifest_is_read(tmp_path: Path) -> None:
    assert read_text(tmp_path, json.dumps(GOOD)) == WHOLE
    assert read_text(tmp_path, json.dumps({**GOOD, "maybe": None})).maybe is None


def test_canonical_bytes_are_these(tmp_path: Path) -> None:
    expected = json.dumps({**GOOD}, indent=2, ensure_ascii=False)
    expected = expected.replace('"ratio": 1\n', '"ratio": 1.0\n').replace('"ratio": 0\n', '"ratio": 0.0\n') + "\n"
    assert manifest_bytes(WHOLE, format="test", version=3) == expected.encode()
    write_manifest(tmp_path / "m.json", WHOLE, format="test", version=3)
    assert (tmp_path / "m.json").read_bytes() == expected.encode()


@given(whole=WHOLES)
def test_every_value_survives_a_round_trip(tmp_path_factory: pytest.TempPathFactory, whole: Whole) -> None:
    content = manifest_bytes(whole, format="test", version=3)
    again = read_text(tmp_path_factory.getbasetemp(), content)
    assert again == whole
    assert manifest_bytes(again, format="test", version=3) == content


WRONG_FIELDS = [
    ("name", 3, "name is 3, expected a value of type str"),
    ("name", None, "name is null, expected a value of type str"),
    ("ready", 1, "ready is 1, expected a value of type bool"),
    ("ready", "true", 'ready is "true", expected a value of type bool'),
    ("kind", "c", "kind is \"c\", expected one of 'a', 'b'"),
    ("kind", [], "kind is [], expected one of 'a', 'b'"),
    ("maybe", [], "maybe is [], expected an object"),
    ("maybe", {"size": 1.0, "ratio": 1}, "maybe.size is 1.0, expected a value of type int"),
    ("maybe", {"size": True, "ratio": 1}, "maybe.size is true, expected a value of type int"),
    ("maybe", {"size": 1, "ratio": "1"}, 'maybe.ratio is "1", expected a number'),
    ("maybe", {"size": 1, "ratio": True}, "maybe.ratio is true, expected a number"),
    ("maybe", {"size": 1, "ratio": None}, "maybe.ratio is null, expected a number"),
    ("maybe", {"size": 1, "ratio": 10**400}, "maybe.ratio is 1000"),
    ("maybe", {"size": 1}, "maybe: field 'ratio' is missing"),
    ("maybe", {"size": 1, "ratio": 1, "z": 1}, "maybe: unknown field 'z', expected only size, ratio"),
    ("parts", {}, "parts is {}, expected a list"),
    ("parts", [{"size": 1, "ratio": 1}, 7], "parts[1] is 7, expected an object"),
    ("parts", [{"size": 1, "ratio": 1}, {"size": "1", "ratio": 1}], 'parts[1].size is "1", expected a value of'),
    ("by_name", [], "by_name is [], expected an object"),
    ("by_name", {"x": None}, "by_name.x is null, expected an object"),
    ("by_name", "x" * 99, f'by_name is "{"x" * 59}…, expected an object'),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG_FIELDS)
def test_a_wrong_field_is_named_with_what_was_found_and_expected(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    with pytest.raises(FormatError) as caught:
        read_text(tmp_path, json.dumps({**GOOD, field: value}))
    assert str(caught.value).startswith(f"{tmp_path}/m.json: {message}")


@pytest.mark.parametrize("field", [field for field in GOOD if field not in ("format", "version")])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(FormatError, match=f"m.json: field '{field}' is missing"):
        read_text(tmp_path, json.dumps({key: value for key, value in GOOD.items() if key != field}))


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"m\.json: unknown field 'colour', expected only name, ready, kind"):
        read_text(tmp_path, json.dumps({**GOOD, "colour": 1}))


@pytest.mark.parametrize("version", [2, 4, "3", 3.0, True, None, [3]])
def test_another_version_is_refused_by_number(tmp_path: Path, version: object) -> None:
    with pytest.raises(FormatError) as caught:
        read_text(tmp_path, json.dumps({**GOOD, "version": version}))
    assert str(caught.value) == f"{tmp_path}/m.json: version is {version!r}; this pocketlens reads version 3"


def test_a_missing_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="version is None"):
        read_text(tmp_path, json.dumps({"format": "test"}))


@pytest.mark.parametrize(
    ("text", "found"),
    [("{}", "None"), ("[]", "'list'"), ("3", "'int'"), ("null", "'NoneType'"), ('{"format": "other"}', "'other'")],
)
def test_another_format_is_refused(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(FormatError, match=f"m.json: format is {found}, expected 'test'"):
        read_text(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"not json",
        b'{"format": "test",}',
        b"\xff\xfe\x00",
        b'"\xff"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": "test", "version": 3, "format": "test"}',
        b"[" + b"9" * 5000 + b"]",
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e999]",
        b'["\\ud800"]',
        b'{"\\udfff": 1}',
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_not_strict_json_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(FormatError, match=r"m\.json is not valid JSON: "):
        read_text(tmp_path, text)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "m.json").open("wb") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    with pytest.raises(FormatError, match=f"has {1 << 40} bytes, expected at most {MAX_MANIFEST_BYTES}"):
        read(tmp_path / "m.json")


def test_a_missing_manifest_and_a_folder_in_its_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"m\.json not found; expected a test folder with this file"):
        read(tmp_path / "m.json")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FormatError, match=r"m\.json not found"):
        read(tmp_path / "file" / "m.json")
    (tmp_path / "m.json").mkdir()
    with pytest.raises(FormatError, match=r"m\.json cannot be read: Is a directory"):
        read(tmp_path / "m.json")
