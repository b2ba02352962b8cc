"""FashionIQ (Wu et al., arXiv 1905.12794): clothes, two captions a query, a gallery for each of three categories.

The two captions are one text, "First and second". SEARLE encodes both orders and averages the two queries; methods that
fuse scores have no query to average, so all get the one order. Figures compare methods here; published ones of SEARLE
are of other queries.
"""

from __future__ import annotations

from pathlib import Path

from pocketlens_bench.protocols.annotations import Annotations, Record
from pocketlens_bench.protocols.metrics import recall_at
from pocketlens_bench.protocols.task import Example, Protocol, Task, View

CATEGORIES = ("dress", "shirt", "toptee")
METRICS = (recall_at(10), recall_at(50))
_SUFFIXES = (".png", ".jpg")


def read(folder: Path, split: str) -> Task:
    """Return a split's queries; a category's gallery is its whole split ("original split"), the reference included.

    Raises:
        FormatError: a file is missing or a field is wrong.
    """
    files = Annotations(folder)
    pools = {category: files.texts(f"image_splits/split.{category}.{split}.json") for category in CATEGORIES}
    examples = [
        _example(entry, category, number)
        for category in CATEGORIES
        for number, entry in enumerate(files.records(f"captions/cap.{category}.{split}.json"))
    ]
    names = {name for pool in pools.values() for name in pool}
    names |= {example.reference for example in examples if example.reference is not None}
    return Task(
        protocol="fashioniq",
        split=split,
        examples=tuple(examples),
        pools=pools,
        views={name: _view(name) for name in sorted(names)},
        metrics=METRICS,
        data_sha256=files.sha256,
        by_family=True,
        notes=(
            "Each category's gallery is its split file (the original split); the reference stays in it.",
            "The text is the captions in one order, 'First and second'; SEARLE averages the queries of both orders.",
            "The whole is the mean of the three categories.",
        ),
    )


def _example(entry: Record, category: str, number: int) -> Example:
    first, second = (caption.strip(".?, ") for caption in entry.texts("captions", least=2)[:2])
    reference = entry.text("candidate")
    return Example(
        id=f"{category}-{number}",
        families=(category,),
        group=reference,
        reference=reference,
        texts=(f"{first.capitalize()} and {second}",),
        answers=frozenset([entry.text("target")]) if "target" in entry else frozenset(),
        pool=category,
    )


def _view(name: str) -> View:
    return View(tuple(f"{folder}{name}{suffix}" for folder in ("", "images/") for suffix in _SUFFIXES))


PROTOCOL = Protocol(
    name="fashioniq",
    files="captions/cap.{dress,shirt,toptee}.SPLIT.json, image_splits/split.{dress,shirt,toptee}.SPLIT.json; "
    "pictures in images/",
    splits=("val", "train"),
    pictures=("images",),
    read=read,
)
