from __future__ import annotations

import random
from pathlib import Path

import pytest

from pocketlens import column_writer
from pocketlens.attributes import check_schema
from pocketlens.column_writer import write_columns
from pocketlens.columns import encode_columns, file_names
from tests.filters import TYPES, random_item
from tests.folders import files_below

SCHEMA = check_schema(TYPES)


@pytest.mark.parametrize("block", [1, 4, 30, 31])
def test_blocks_give_the_files_of_all_items_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    generator = random.Random(block)
    items = [random_item(number, number % 20, generator) for number in range(30)]
    monkeypatch.setattr(column_writer, "_BLOCK", block)
    write_columns(tmp_path, SCHEMA, sorted(items, key=lambda item: (item.row, item.id)))
    expected = encode_columns(SCHEMA, items, 20)
    assert files_below(tmp_path) == sorted(expected) == sorted(file_names(SCHEMA))
    for name, array in expected.items():
        assert (tmp_path / name).read_bytes() == array.tobytes(), name


def test_a_row_without_an_item_is_our_own_fault(tmp_path: Path) -> None:
    items = [random_item(number, row, random.Random(0)) for number, row in enumerate((0, 2))]
    with pytest.raises(AssertionError, match="a row has no item"):
        write_columns(tmp_path, SCHEMA, items)
