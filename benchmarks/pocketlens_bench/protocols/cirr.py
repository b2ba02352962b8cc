"""CIRR (Liu et al., arXiv 2108.04024): the reference leaves the ranking; a subset of five is ranked as well."""

from __future__ import annotations

from pathlib import Path

from pocketlens.errors import FormatError
from pocketlens_bench.protocols.annotations import Annotations, Record
from pocketlens_bench.protocols.metrics import recall_at, subset_recall_at
from pocketlens_bench.protocols.task import Example, Protocol, Task, View

METRICS = (recall_at(1), recall_at(5), recall_at(10), recall_at(50), *(subset_recall_at(k) for k in (1, 2, 3)))


def read(folder: Path, split: str) -> Task:
    """Return a split's queries; those of test1 have no answers.

    Raises:
        FormatError: a file is missing, or a field is wrong or names a picture that the split does not have.
    """
    files = Annotations(folder)
    split_name = f"image_splits/split.rc2.{split}.json"
    paths = dict(files.record(split_name).paths())
    captions = f"captions/cap.rc2.{split}.json"
    return Task(
        protocol="cirr",
        split=split,
        examples=tuple(_example(entry, paths, folder / captions) for entry in files.records(captions)),
        pools={"all": tuple(paths)},
        views={name: _view(path) for name, path in paths.items()},
        metrics=METRICS,
        data_sha256=files.sha256,
        notes=(
            "The reference is taken out of the ranking.",
            "Rs@K ranks the five other members of the query's set."
            " It leaves out queries of whose sets the gallery lacks a picture.",
        ),
    )


def _example(entry: Record, paths: dict[str, str], where: Path) -> Example:
    id, reference = str(entry.integer("pairid")), entry.text("reference")
    members = entry.record("img_set").texts("members", least=2)
    target = entry.text("target_hard") if "target_hard" in entry else None
    for name in (reference, *members, *filter(None, [target])):
        if name not in paths:
            raise FormatError(f"{where}: pair {id} names the picture {name!r}, which the split file does not have")
    return Example(
        id=id,
        families=(),
        group=reference,
        reference=reference,
        texts=(entry.text("caption"),),
        answers=frozenset() if target is None else frozenset([target]),
        candidates=tuple(member for member in members if member != reference),
        excluded=frozenset([reference]),
    )


def _view(path: str) -> View:
    plain = path.removeprefix("./")
    return View((plain, plain.rpartition("/")[2]))


PROTOCOL = Protocol(
    name="cirr",
    files="captions/cap.rc2.SPLIT.json, image_splits/split.rc2.SPLIT.json; pictures in dev/, test1/ as the latter says",
    splits=("val", "test1", "train"),
    pictures=("images", "."),
    read=read,
)
