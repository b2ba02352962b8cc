"""Files for test servers, as CIRR and CIRCO describe them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocketlens.errors import BadQuery, FormatError
from pocketlens_bench.protocols.metrics import Ranking
from pocketlens_bench.protocols.submission import write_submission

RANKINGS = {
    "12060": Ranking(tuple(f"dev-{i}" for i in range(50)), within=tuple("edcba")),
    "12061": Ranking(tuple(f"dev-{i}" for i in range(50, 0, -1)), within=tuple("abcde")),
}


def test_cirr_wants_fifty_names_and_three_of_the_subset(tmp_path: Path) -> None:
    recall, subset = write_submission(tmp_path, "cirr", "sum", RANKINGS, queries=RANKINGS)
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
    ids = list(range(581700, 581750))
    rankings = {"0": Ranking(tuple(map(str, ids))), "1": Ranking(tuple(map(str, ids[::-1])))}
    (file,) = write_submission(tmp_path, "circo", "sum", rankings, queries=["0", "1"])
    assert json.loads(file.read_text()) == {"0": ids, "1": ids[::-1]}


@pytest.mark.parametrize(
    ("protocol", "queries", "changed", "message"),
    [
        ("cirr", ["12060", "1", "2"], {}, "2 queries have no answer, the first is 1"),
        ("cirr", RANKINGS, {"top": RANKINGS["12061"].top[:49]}, "1 queries have fewer than 50 pictures, .* 12061"),
        ("circo", RANKINGS, {"top": ()}, "1 queries have fewer than 50 pictures, .* 12061"),
        ("cirr", RANKINGS, {"within": ("a", "b")}, "1 queries have fewer than 3 pictures of their subset, .* 12061"),
        ("cirr", RANKINGS, {"within": None}, "1 queries have fewer than 3 pictures of their subset, .* 12061"),
    ],
)
def test_what_a_server_would_refuse_is_not_written(
    tmp_path: Path, protocol: str, queries: Iterable[str], changed: dict[str, Any], message: str
) -> None:
    rankings = {**RANKINGS, "12061": replace(RANKINGS["12061"], **changed)}
    with pytest.raises(FormatError, match=message):
        write_submission(tmp_path, protocol, "sum", rankings, queries=queries)
    assert not list(tmp_path.iterdir())


def test_other_protocols_have_no_server(tmp_path: Path) -> None:
    with pytest.raises(BadQuery, match="genecis has no test server"):
        write_submission(tmp_path, "genecis", "sum", RANKINGS, queries=RANKINGS)
