"""EmojiCIR: emoji of one vendor, changed in words; the answers are all vendors' pictures of what results."""

from __future__ import annotations

from pathlib import Path

from pocketlens.errors import FormatError
from pocketlens_bench.protocols.annotations import Annotations, Record
from pocketlens_bench.protocols.metrics import average_precision_at, recall_at, unwanted_at
from pocketlens_bench.protocols.task import Example, Protocol, Task, View

PICTURES, QUERIES = "pictures.tsv", "queries.jsonl"
SPLITS = ("test", "validation", "train")
METRICS = (
    average_precision_at(10),
    *(average_precision_at(k) for k in (5, 25, 50)),
    *(recall_at(k) for k in (1, 5, 10)),
)
NEGATIVE_METRICS = (unwanted_at(10),)


def read(folder: Path, split: str) -> Task:
    """Return the queries of a split; every picture is a distractor, the query's own included.

    Raises:
        FormatError: a file is missing, or a field is wrong or names an unknown picture.
    """
    files = Annotations(folder)
    pictures = files.table(PICTURES, ("id", "base", "encoder"))
    bases = {picture["id"]: picture["base"] for picture in pictures}
    seen = {picture["id"]: _is_seen(picture, folder / PICTURES) for picture in pictures}
    entries = [entry for entry in files.lines(QUERIES) if entry.text("split") == split]
    return Task(
        protocol="emojicir",
        split=split,
        examples=tuple(_example(entry, bases, seen, folder / QUERIES) for entry in entries),
        pools={"all": tuple(bases)},
        views={name: View((name, f"pictures/{name}")) for name in bases},
        metrics=METRICS,
        negative_metrics=NEGATIVE_METRICS,
        data_sha256=files.sha256,
        notes=(
            "The reference picture stays in the ranking, as a distractor.",
            "Seen: the encoder lens-base was trained on the untoned picture of the target; unseen: it never was.",
            "Intervals draw base concepts: queries whose answers differ by skin tone or gender alone go together.",
        ),
    )


def _is_seen(picture: dict[str, str], path: Path) -> bool:
    if picture["encoder"] not in SPLITS:
        expected = f"expected one of {', '.join(SPLITS)}"
        raise FormatError(f"{path}: picture {picture['id']} has the encoder split {picture['encoder']!r}, {expected}")
    return picture["encoder"] == "train"


def _example(entry: Record, bases: dict[str, str], seen: dict[str, bool], path: Path) -> Example:
    id, answers, stated = entry.text("id"), entry.texts("answers", least=1), entry.truth("seen")
    reference, unwanted = entry.text("reference"), entry.texts("unwanted")
    for name in (reference, *answers, *unwanted):
        if name not in bases:
            raise FormatError(f"{path}: query {id} names the picture {name!r}, which {PICTURES} does not have")
    if {seen[name] for name in answers} != {stated}:
        raise FormatError(f"{path}: query {id} has seen {stated}, but {PICTURES} does not say so of its answers")
    return Example(
        id=id,
        families=(entry.text("family"),),
        group=bases[min(answers)],  # all answers share the target's base concept
        reference=reference,
        texts=(entry.text("text"),),
        answers=frozenset(answers),
        negative=entry.optional_text("negative"),
        unwanted=frozenset(unwanted),
        stratum="seen" if stated else "unseen",
    )


PROTOCOL = Protocol(
    name="emojicir",
    files="pictures.tsv, queries.jsonl; pictures in pictures/<vendor>/",
    splits=SPLITS,
    pictures=("pictures",),
    read=read,
)
