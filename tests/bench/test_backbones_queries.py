from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlens_bench.asymmetric import Request, compare
from pocketlens_bench.asymmetric_models import open_entrants
from pocketlens_bench.asymmetric_sets import ALL, read_folder
from pocketlens_bench.backbones import int8_cosines
from pocketlens_bench.backbones_queries import ask
from pocketlens_export.embeddings import encode_pictures
from tests.bench.asymmetric_models import BLUE_BLIND, SAME, write_seeing, write_shades


def silent(what: str, done: int, of: int) -> None:
    """Tell nobody."""


def test_asking_together_finds_what_comparing_finds(tmp_path: Path) -> None:
    folder = write_shades(tmp_path / "shades", count=14)
    heavy = write_seeing(tmp_path / "heavy", SAME, name="heavy", reads=True)
    blind = write_seeing(tmp_path / "blind", BLUE_BLIND, name="blind")
    entrants = open_entrants(str(heavy), [], [str(blind)])
    request = Request(entrants, folder, None, split=ALL, threads=1, cache=tmp_path / "cache")
    expected = {results.queries.asked: results for results in compare(request, progress=silent).sets}
    gallery = encode_pictures(entrants[0].model, folder, cache=tmp_path / "own", progress=silent, threads=1)
    for queries in (
        each for each in read_folder(folder, gallery.ids, gallery.sha256, split=ALL) if each.asked != "text"
    ):
        results, vectors = ask(queries, gallery, entrants, own=True, threads=1, progress=silent)
        assert [row.pair for row in results.rows] == [row.pair for row in expected[queries.asked].rows]
        assert {label: len(found) for label, found in vectors.items()} == {"heavy": 42, "blind": 42}
        for row, other in zip(results.rows, expected[queries.asked].rows, strict=True):
            assert row.parts["all"] == other.parts["all"]
        bare, _ = ask(queries, gallery, entrants, threads=1, progress=silent)
        assert bare.rows == (results.rows[0], results.rows[2])
    assert {row.parts["all"].figures["R@1"].value for row in results.rows} != {100.0}


def test_cosines_are_of_int8_to_its_own_float32() -> None:
    near = {"a": [[1, 0], [0, 1]], "a-int8": [[0.6, 0.8], [0, 1]], "b": [[1, 0], [1, 0]]}
    found = int8_cosines({name: np.array(rows, dtype=np.float32) for name, rows in near.items()})
    assert list(found) == ["a-int8"]
    assert found["a-int8"]["mean"] == pytest.approx(0.8)
    assert found["a-int8"]["percentile_1"] == pytest.approx(0.604)
