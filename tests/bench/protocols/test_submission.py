"""Files for test servers, as CIRR and CIRCO describe them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketlens.errors import BadQuery
from pocketlens_bench.protocols.metrics import Ranking
from pocketlens_bench.protocols.submission import write_submission

RANKINGS = {
    "12060": Ranking(tuple(f"dev-{i}" for i in range(50)), within=tuple("edcba")),
    "12061": Ranking(tuple(f"dev-{i}" for i in range(50, 0, -1)), within=tuple("abcde")),
}


def test_cirr_wants_fifty_names_and_three_of_the_subset(tmp_path: Path) -> None:
    recall, subset = write_submission(tmp_path, "cirr", "sum", RANKINGS)
    assert json.loads(recall.read_text()) == {
        "version": "rc2",
        "metric": "recall",
        **{id: list(ranking.top) for id, ranking in RANKINGS.items()},
    }
    assert json.loads(subset.read_text()) == {
        "version": "rc2",
        "metric": "recall_subset",
        "12060": ["e", "d", "c"],
        "12061": ["a", "b", "c"],
    }


def test_circo_wants_integers_by_query(tmp_path: Path) -> None:
    (file,) = write_submission(tmp_path, "circo", "sum", {"0": Ranking(("581781", "7")), "1": Ranking(("7", "581781"))})
    assert json.loads(file.read_text()) == {"0": [581781, 7], "1": [7, 581781]}


def test_other_protocols_have_no_server(tmp_path: Path) -> None:
    with pytest.raises(BadQuery, match="genecis has no test server"):
        write_submission(tmp_path, "genecis", "sum", RANKINGS)
