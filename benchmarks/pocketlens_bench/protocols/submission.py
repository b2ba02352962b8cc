"""Files for the test servers of CIRR and CIRCO, which keep the answers to themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pocketlens.errors import BadQuery
from pocketlens.files import write_file
from pocketlens_bench.protocols.metrics import Ranking

_SUBSET = 3
SERVERS = ("cirr", "circo")


def write_submission(folder: Path, protocol: str, method: str, rankings: Mapping[str, Ranking]) -> list[Path]:
    """Write one method's answers as the protocol's test server wants them, and return the files.

    Args:
        folder: an existing folder.
        protocol: "cirr" (two files) or "circo" (one).
        method: begins the files' names.
        rankings: by the query's id.

    Raises:
        BadQuery: the protocol has no test server.
    """
    if protocol == "cirr":
        top = {id: list(ranking.top) for id, ranking in rankings.items()}
        within = {id: list(ranking.within[:_SUBSET]) for id, ranking in rankings.items()}
        files: dict[str, dict[str, object]] = {
            "recall": {"version": "rc2", "metric": "recall", **top},
            "recall_subset": {"version": "rc2", "metric": "recall_subset", **within},
        }
    elif protocol == "circo":
        files = {"test": {id: [int(name) for name in ranking.top] for id, ranking in rankings.items()}}
    else:
        raise BadQuery(f"--submission is for {' and '.join(SERVERS)}; {protocol} has no test server")
    written = []
    for name, content in files.items():
        path = folder / f"{protocol}-{method}-{name}.json"
        write_file(path, (json.dumps(content) + "\n").encode())
        written.append(path)
    return written
