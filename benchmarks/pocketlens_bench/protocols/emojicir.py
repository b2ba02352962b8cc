"""EmojiCIR: emoji of one vendor, changed in words; the answers are all vendors' pictures of what results."""

from __future__ import annotations

from pathlib import Path

from pocketlens.errors import FormatError
from pocketlens_bench.protocols.annotations import Annotations, Record
from pocketlens_bench.protocols.metrics import average_precision_at, recall_at, unwanted_at
from pocketlens_bench.protocols.task import Example, Protocol, Task, View

PICTURES, QUERIES = "pictures.tsv", "queries.jsonl"
METRICS = (
    average_precision_at(10),
    *(average_precision_at(k) for k in (5, 25, 50)),
    *(recall_at(k) for k in (1, 5, 10)),
    unwanted_at(10),
)


def read(folder: Path, split: str) -> Task:
    """Return the queries of a split; every picture is a distractor, the query's own included.

    Raises:
        FormatError: a file is missing, or a field is wrong or names an unknown picture.
    """
    files = Annotations(folder)
    pictures = files.table(PICTURES, ("id", "concept", "base"))
    names = tuple(picture["id"] for picture in pictures)
    bases = {picture["concept"]: picture["base"] for picture in pictures}
    known = frozenset(names)
    entries = [entry for entry in files.lines(QUERIES) if entry.text("split") == split]
    return Task(
        protocol="emojicir",
        split=split,
        examples=tuple(_example(entry, known, bases, folder / QUERIES) for entry in entries),
        pools={"all": names},
        views={name: View((name, f"pictures/{name}")) for name in names},
        metrics=METRICS,
        data_sha256=files.sha256,
        notes=(
            "The reference picture stays in the ranking, as a distractor.",
            "Intervals draw base concepts: queries whose answers differ by skin tone or gender alone go together.",
        ),
    )


def _example(entry: Record, known: frozenset[str], bases: dict[str, str], path: Path) -> Example:
    id, target, answers = entry.text("id"), entry.text("target"), entry.texts("answers", least=1)
    reference, unwanted = entry.text("reference"), entry.texts("unwanted")
    for name in (reference, *answers, *unwanted):
        if name not in known:
            raise FormatError(f"{path}: query {id} names the picture {name!r}, which {PICTURES} does not have")
    concept = target.partition("!")[0]  # a target in one vendor's style is "concept!vendor"
    if concept not in bases:
        raise FormatError(f"{path}: query {id} has the target {target!r}, a concept that {PICTURES} does not have")
    return Example(
        id=id,
        families=(entry.text("family"),),
        group=bases[concept],
        reference=reference,
        texts=(entry.text("text"),),
        answers=frozenset(answers),
        negative=entry.optional_text("negative"),
        unwanted=frozenset(unwanted),
    )


PROTOCOL = Protocol(
    name="emojicir",
    files="pictures.tsv, queries.jsonl; pictures in pictures/<vendor>/",
    splits=("test", "validation", "train"),
    pictures=("pictures",),
    read=read,
)
