"""Flickr30k and COCO by Karpathy's splits (arXiv 1412.2306): a picture's five captions find it, and it finds them."""

from __future__ import annotations

from pathlib import Path

from pocketlens.errors import FormatError
from pocketlens_bench.protocols.annotations import Annotations
from pocketlens_bench.protocols.metrics import recall_at
from pocketlens_bench.protocols.task import Example, Protocol, Task, View

METRICS = (recall_at(1), recall_at(5), recall_at(10))
CAPTIONS = 5
_FLICKR30K, _COCO, _COCO_2017 = "dataset_flickr30k.json", "dataset_coco.json", "captions_val2017.json"


def read_flickr30k(folder: Path, split: str) -> Task:
    """Return Flickr30k's captions of a split.

    Raises:
        FormatError: the file is missing or a field is wrong.
    """
    files = Annotations(folder)
    return _task("flickr30k", split, _read_karpathy(files, _FLICKR30K, split), files)


def read_coco(folder: Path, split: str) -> Task:
    """Return COCO's captions of a split of Karpathy's, or of val2017.

    Raises:
        FormatError: the file is missing or a field is wrong.
    """
    files = Annotations(folder)
    if split != "val2017":
        return _task("coco", split, _read_karpathy(files, _COCO, split), files)
    return _task("coco", split, _read_2017(files, files.first(f"annotations/{_COCO_2017}", _COCO_2017)), files)


def _read_karpathy(files: Annotations, name: str, split: str) -> dict[str, list[str]]:
    captions = {}
    for image in files.record(name).records("images"):
        if image.text("split") == split:
            path = f"{image.text('filepath')}/" if "filepath" in image else ""
            captions[path + image.text("filename")] = [text.text("raw") for text in image.records("sentences")]
    return captions


def _read_2017(files: Annotations, name: str) -> dict[str, list[str]]:
    data = files.record(name)
    names = {image.integer("id"): image.text("file_name") for image in data.records("images")}
    by_id = sorted(data.records("annotations"), key=lambda annotation: annotation.integer("id"))
    captions: dict[str, list[str]] = {picture: [] for picture in names.values()}
    for annotation in by_id:
        image_id = annotation.integer("image_id")
        if image_id not in names:
            raise FormatError(f"{files.folder / name}: caption {annotation.integer('id')} is of the unknown {image_id}")
        captions[names[image_id]].append(annotation.text("caption"))
    return captions


def _task(protocol: str, split: str, captions: dict[str, list[str]], files: Annotations) -> Task:
    examples = [
        Example(
            id=f"{picture}#{number}",
            families=(),
            group=picture,
            reference=None,
            texts=(text,),
            answers=frozenset([picture]),
        )
        for picture, texts in captions.items()
        for number, text in enumerate(texts[:CAPTIONS])
    ]
    return Task(
        protocol=protocol,
        split=split,
        examples=tuple(examples),
        pools={"all": tuple(captions)},
        views={picture: View((picture, picture.rpartition("/")[2])) for picture in captions},
        metrics=METRICS,
        data_sha256=files.sha256,
        notes=(f"The first {CAPTIONS} captions of every picture are queries.",),
        captions=True,
    )


FLICKR30K = Protocol(
    name="flickr30k",
    files=f"{_FLICKR30K} (Karpathy's); pictures in flickr30k-images/",
    splits=("test", "val", "train"),
    pictures=("flickr30k-images", "."),
    read=read_flickr30k,
)
COCO = Protocol(
    name="coco",
    files=f"{_COCO} (Karpathy's), or annotations/{_COCO_2017} for --split val2017; pictures in val2014/ or val2017/",
    splits=("test", "val", "val2017", "restval", "train"),
    pictures=(".",),
    read=read_coco,
)
