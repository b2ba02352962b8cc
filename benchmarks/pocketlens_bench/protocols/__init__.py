"""Benchmarks that others defined, read from their official files, and how their answers are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pocketlens.errors import BadQuery, FormatError
from pocketlens_bench.protocols import circo, cirr, emojicir, fashioniq, genecis, retrieval
from pocketlens_bench.protocols.task import Protocol, Task

__all__ = ["PROTOCOLS", "find_protocol", "read_task"]

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        emojicir.PROTOCOL,
        fashioniq.PROTOCOL,
        cirr.PROTOCOL,
        circo.PROTOCOL,
        genecis.PROTOCOL,
        retrieval.FLICKR30K,
        retrieval.COCO,
    )
}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by its name.

    Raises:
        BadQuery: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise BadQuery(f"protocol is {name!r}, expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def read_task(protocol: Protocol, folder: Path, split: str | None = None) -> Task:
    """Return a split of a protocol, by default its first, from a folder of its official files.

    Raises:
        BadQuery: the protocol has no such split.
        FormatError: a file is missing or wrong, holds no query of the split, or two queries have one id.
    """
    name = protocol.splits[0] if split is None else split
    if name not in protocol.splits:
        raise BadQuery(f"split is {name!r}, expected one of {', '.join(protocol.splits)} for {protocol.name}")
    task = protocol.read(folder, name)
    if not task.examples:
        raise FormatError(f"{folder}: no query of the split {name} of {protocol.name}")
    ids = Counter(example.id for example in task.examples)
    if len(ids) < len(task.examples):
        raise FormatError(
            f"{folder}: {protocol.name} {name} has several queries with the id {ids.most_common(1)[0][0]}"
        )
    return task
