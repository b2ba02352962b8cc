"""CIRCO (Baldrati et al., arXiv 2303.15247): COCO's unlabeled pictures, several answers a query."""

from __future__ import annotations

from pathlib import Path

from pocketlens.errors import FormatError
from pocketlens_bench.protocols.annotations import Annotations, Record
from pocketlens_bench.protocols.metrics import average_precision_at, recall_at
from pocketlens_bench.protocols.task import Example, Protocol, Task, View

METRICS = (
    average_precision_at(10),
    *(average_precision_at(k) for k in (5, 25, 50)),
    *(recall_at(k) for k in (5, 10, 25, 50)),
)
_IMAGE_INFO = "image_info_unlabeled2017.json"
_IMAGE_INFO_PLACES = tuple(
    f"{folder}{_IMAGE_INFO}" for folder in ("COCO2017_unlabeled/annotations/", "annotations/", "")
)


def read(folder: Path, split: str) -> Task:
    """Return a split's queries; those of test have no answers.

    Raises:
        FormatError: a file is missing, or a field is wrong or names an unknown picture.
    """
    files = Annotations(folder)
    captions = files.first(f"annotations/{split}.json", f"{split}.json")
    entries = files.records(captions)
    images = files.record(files.first(*_IMAGE_INFO_PLACES)).records("images")
    names = {str(image.integer("id")): image.text("file_name") for image in images}
    return Task(
        protocol="circo",
        split=split,
        examples=tuple(_example(entry, names, folder / captions) for entry in entries),
        pools={"all": tuple(names)},
        views={id: View((name,)) for id, name in names.items()},
        metrics=METRICS,
        data_sha256=files.sha256,
        notes=(
            "The reference stays in the ranking; R@K counts the target alone, mAP@K every answer.",
            "Families are the semantic aspects; a query may have several.",
        ),
    )


def _example(entry: Record, names: dict[str, str], where: Path) -> Example:
    id, reference = str(entry.integer("id")), str(entry.integer("reference_img_id"))
    answers = tuple(map(str, entry.integers("gt_img_ids"))) if "gt_img_ids" in entry else ()
    target = str(entry.integer("target_img_id")) if answers else None
    for name in (reference, *answers, *filter(None, [target])):
        if name not in names:
            raise FormatError(f"{where}: query {id} names the picture {name}, which {_IMAGE_INFO} does not have")
    return Example(
        id=id,
        families=entry.texts("semantic_aspects") if "semantic_aspects" in entry else (),
        group=reference,
        reference=reference,
        texts=(entry.text("relative_caption"),),
        answers=frozenset(answers),
        target=target,
    )


PROTOCOL = Protocol(
    name="circo",
    files="annotations/SPLIT.json, COCO2017_unlabeled/annotations/image_info_unlabeled2017.json; "
    "pictures in COCO2017_unlabeled/unlabeled2017/",
    splits=("val", "test"),
    pictures=("COCO2017_unlabeled/unlabeled2017", "unlabeled2017"),
    read=read,
)
