"""GeneCIS (Vaze et al., arXiv 2306.07969): four tasks, fifteen candidates a query, no shared gallery.

The official lists put the answer before the other candidates, where a stable sort would give it every tie (a product
of clamped scores ties often). Candidates are therefore kept in the order of their names.
"""

from __future__ import annotations

from pathlib import Path

from pocketlens_bench.protocols.annotations import Annotations, Record
from pocketlens_bench.protocols.metrics import recall_at
from pocketlens_bench.protocols.task import Box, Example, Protocol, Task, View

TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
METRICS = (recall_at(1), recall_at(2), recall_at(3))
_DILATION = 0.7


def read(folder: Path, split: str) -> Task:
    """Return the queries of the four tasks.

    Raises:
        FormatError: a file is missing or a field is wrong.
    """
    files = Annotations(folder)
    views: dict[str, View] = {}
    examples = []
    for task in TASKS:
        for number, entry in enumerate(files.records(files.first(f"genecis/{task}.json", f"{task}.json"))):
            examples.append(_example(entry, task, number, views))
    return Task(
        protocol="genecis",
        split=split,
        examples=tuple(examples),
        pools={},
        views=views,
        metrics=METRICS,
        data_sha256=files.sha256,
        by_family=True,
        notes=(
            "Candidates are encoded by the bundle's image tower; its gallery gives statistics and neighbours only.",
            "Equal scores are ordered by the candidates' names. The whole is the mean of the four tasks.",
        ),
    )


def _example(entry: Record, task: str, number: int, views: dict[str, View]) -> Example:
    reference, target = (_name(entry.record(key), views) for key in ("reference", "target"))
    others = [_name(item, views) for item in entry.records("gallery")]
    return Example(
        id=f"{task}-{number}",
        families=(task,),
        group=reference,
        reference=reference,
        texts=(entry.text("condition"),),
        answers=frozenset([target]),
        pool=None,
        candidates=tuple(sorted({target, *others})),
    )


def _name(item: Record, views: dict[str, View]) -> str:
    """Return an item's name, and note where its picture is: of COCO val2017, or a box of a picture of Visual Genome."""
    if "val_image_id" in item:
        name = f"{item.integer('val_image_id'):012d}"
        views[name] = View((f"val2017/{name}.jpg", f"{name}.jpg"))
        return name
    id = item.integer("image_id")
    left, top, width, height = item.numbers("instance_bbox", 4)
    name = f"{id}:{left:g},{top:g},{width:g},{height:g}"
    views[name] = View((f"VG_100K_all/{id}.jpg", f"{id}.jpg"), (left, top, width, height))
    return name


def dilate(box: Box, width: int, height: int) -> Box:
    """Return left, top, right, bottom of the part that an instance's box (left, top, width, height) is shown by.

    The official loader's: right and bottom follow from the clipped left and top, so that the box grows to the left and
    to the top only.
    """
    x, y, w, h = box
    left, top = max(0.0, x - _DILATION * w), max(0.0, y - _DILATION * h)
    grown = 1 + _DILATION
    return left, top, min(float(width), left + grown * w), min(float(height), top + grown * h)


PROTOCOL = Protocol(
    name="genecis",
    files="genecis/{focus,change}_{attribute,object}.json; pictures in val2017/ (COCO) and VG_100K_all/",
    splits=("val",),
    pictures=(".",),
    read=read,
)
