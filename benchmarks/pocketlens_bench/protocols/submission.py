"""Files for the test servers of CIRR and CIRCO, which keep the answers to themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pocketlens.errors import BadQuery, FormatError
from pocketlens.files import write_file
from pocketlens_bench.protocols.metrics import Ranking

_TOP, _SUBSET = 50, 3  # names that a server wants for every query
SERVERS = ("cirr", "circo")


def write_submission(
    folder: Path, protocol: str, method: str, rankings: Mapping[str, Ranking], *, queries: Iterable[str]
) -> list[Path]:
    """Write one method's answers as the protocol's test server wants them, and return the files.

    Args:
        folder: an existing folder.
        protocol: "cirr" (two files) or "circo" (one).
        method: begins the files' names.
        rankings: by the query's id.
        queries: ids of all the split's queries, which a server wants an answer to.

    Raises:
        BadQuery: the protocol has no test server.
        FormatError: a query has no answer or too few pictures; nothing is written.
    """
    if protocol not in SERVERS:
        raise BadQuery(f"--submission is for {' and '.join(SERVERS)}; {protocol} has no test server")
    _check_whole(protocol, method, rankings, queries)
    if protocol == "cirr":
        top = {id: list(ranking.top) for id, ranking in rankings.items()}
        within = {id: list((ranking.within or ())[:_SUBSET]) for id, ranking in rankings.items()}
        files: dict[str, dict[str, object]] = {
            "recall": {"version": "rc2", "metric": "recall", **top},
            "recall_subset": {"version": "rc2", "metric": "recall_subset", **within},
        }
    else:
        files = {"test": {id: [int(name) for name in ranking.top] for id, ranking in rankings.items()}}
    written = []
    for name, content in files.items():
        path = folder / f"{protocol}-{method}-{name}.json"
        write_file(path, (json.dumps(content) + "\n").encode())
        written.append(path)
    return written


def _check_whole(protocol: str, method: str, rankings: Mapping[str, Ranking], queries: Iterable[str]) -> None:
    missing = [id for id in queries if id not in rankings]
    short = [id for id, ranking in rankings.items() if len(ranking.top) < _TOP]
    few = [id for id, ranking in rankings.items() if len(ranking.within or ()) < _SUBSET] if protocol == "cirr" else []
    for ids, what in (
        (missing, "have no answer"),
        (short, f"have fewer than {_TOP} pictures"),
        (few, f"have fewer than {_SUBSET} pictures of their subset"),
    ):
        if ids:
            raise FormatError(
                f"no submission of {method} to {protocol}'s server: {len(ids)} queries {what}, the first is {ids[0]}; "
                "is every picture of the split in the bundle's gallery?"
            )
