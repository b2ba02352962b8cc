"""EmojiCIR's composed queries over the heavy model's gallery: their pictures by the heavy tower, and by light ones.

All models answer through the runtime's own methods, with the heavy model's text tower where they have none themselves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketlens.compose import METHODS, Method, Query, Text, find_method
from pocketlens.compose.choice import choose
from pocketlens.errors import BadQuery
from pocketlens.gallery import Counts
from pocketlens.gallery_writer import write_gallery
from pocketlens.items import Item
from pocketlens.lens import open_lens
from pocketlens.model import Model
from pocketlens.needs import has_need, lacking, measured_figures
from pocketlens.plan import AUTO
from pocketlens_bench.asymmetric_figures import PartFigures, Scorer
from pocketlens_bench.asymmetric_models import Entrant
from pocketlens_bench.asymmetric_sets import ALL
from pocketlens_bench.evaluate_kit import open_kit
from pocketlens_bench.evaluate_task import Evaluation
from pocketlens_bench.progress import Progress
from pocketlens_bench.protocols import emojicir, read_task
from pocketlens_bench.protocols.metrics import Ranking, average_precision_at, recall_at
from pocketlens_bench.protocols.task import Example, Task
from pocketlens_export.embeddings import Embeddings
from pocketlens_export.gallery.build import pack_bundle

HEADLINE = average_precision_at(10)
METRICS = (HEADLINE, recall_at(10))


@dataclass(frozen=True, slots=True)
class ComposedRow:
    """What a model found by a method.

    Attributes:
        model: the label of the one that encodes the queries' pictures.
        method: as asked for, "auto" included.
        used: what composed; None where the model lacks what the method needs.
        lacks: what it lacks.
        parts: figures by part, the whole first; shares are of the heavy model's by the same method.
    """

    model: str
    method: str
    used: str | None
    lacks: tuple[str, ...]
    parts: Mapping[str, PartFigures]


@dataclass(frozen=True, slots=True)
class _Answers:
    """One model's rankings by method as asked for, what composed, and what was lacking."""

    examples: tuple[Example, ...]
    rankings: Mapping[str, Sequence[Ranking]]
    used: Mapping[str, str]
    lacks: Mapping[str, tuple[str, ...]]


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Return methods' names, each once.

    Raises:
        BadQuery: one is neither a method nor "auto".
    """
    for name in names:
        if name != AUTO and name not in METHODS:
            raise BadQuery(f"--methods has {name!r}, expected {AUTO} or some of {', '.join(METHODS)}")
    return tuple(dict.fromkeys(names))


def compare_composed(
    entrants: Sequence[Entrant],
    folder: Path,
    gallery: Embeddings,
    methods: Sequence[str],
    *,
    split: str,
    limit: int | None,
    threads: int | None,
    progress: Progress,
) -> tuple[ComposedRow, ...]:
    """Return the figures of the heavy model and of every query model, by method.

    Args:
        entrants: the models, the heavy one first; light ones of another space are passed over.
        folder: EmojiCIR's data folder.
        gallery: its pictures, as the heavy model sees them.
        methods: names, or "auto" for what the runtime would take; none give no rows.
        split: of EmojiCIR's queries, which is that of their targets; all: the test split.
        limit: so many queries, spread evenly; None: all.
        threads: of the encoders.
        progress: told of encoding and answering.

    Raises:
        FormatError: queries.jsonl is missing or wrong, or no query can be evaluated.
    """
    heavy = entrants[0].model
    asked = [entrant for entrant in entrants if entrant.role != "light"]
    if not methods or len(asked) < 2 or not heavy.manifest.can_read:
        return ()
    task = read_task(emojicir.PROTOCOL, folder, emojicir.SPLITS[0] if split == ALL else split)
    found: dict[str, _Answers] = {}
    with tempfile.TemporaryDirectory(prefix="pocketlens-eval-") as temporary:
        _write_gallery(Path(temporary) / "gallery", heavy, gallery)
        for number, entrant in enumerate(asked):
            bundle = Path(temporary) / f"bundle-{number}"
            text = entrant.model if entrant.model.manifest.can_read else heavy
            pack_bundle(bundle, gallery=Path(temporary) / "gallery", text=text, image=entrant.model)
            told = _named(progress, entrant.label)
            wanted = {name: _find(name, text, entrant.model) for name in methods}
            pictures = folder / "pictures"
            found[entrant.label] = _answer(bundle, task, pictures, wanted, limit=limit, threads=threads, progress=told)
    return _rows(found, methods)


def _answer(
    bundle: Path,
    task: Task,
    pictures: Path,
    methods: Mapping[str, tuple[Method, tuple[str, ...]]],
    *,
    limit: int | None,
    threads: int | None,
    progress: Progress,
) -> _Answers:
    """Return a bundle's answers by the methods, each given with what the bundle lacks for it."""
    with open_lens(bundle, threads=threads) as lens:
        kit = open_kit(bundle, lens, threads=threads)
        evaluation = Evaluation(task, lens, kit, [pictures], limit=limit, on_progress=progress)
        examples = evaluation.select(None)
        rankings = {
            name: evaluation.measure(method, on_progress=_counted(progress, name, len(examples))).rankings
            for name, (method, lacks) in methods.items()
            if not lacks
        }
    used = {name: methods[name][0].name for name in rankings}
    return _Answers(examples, rankings, used, {name: lacks for name, (_, lacks) in methods.items()})


def _rows(found: Mapping[str, _Answers], methods: Sequence[str]) -> tuple[ComposedRow, ...]:
    heavy = next(iter(found.values()))
    scorer = Scorer(heavy.examples, METRICS, _strata)
    values: dict[tuple[str, str], NDArray[np.float64]] = {
        (label, name): scorer.values(rankings)
        for label, answers in found.items()
        for name, rankings in answers.rankings.items()
    }
    base = next(iter(found))
    rows = []
    for name in methods:
        for label, answers in found.items():
            assert answers.examples == heavy.examples  # the same files were read
            parts = scorer.figures(values[label, name], values.get((base, name))) if name in answers.used else {}
            rows.append(ComposedRow(label, name, answers.used.get(name), answers.lacks[name], parts))
    return tuple(rows)


def _find(name: str, text: Model, image: Model) -> tuple[Method, tuple[str, ...]]:
    """Return a method, or what the runtime's `auto` takes for a picture and a text, and what the towers lack for it."""
    manifests = text.manifest, image.manifest
    if name != AUTO:
        method = find_method(name)
    else:
        query = Query(np.zeros(0, dtype=np.float32), (Text("a text"),))
        method = choose(query, lambda need: has_need(*manifests, need), measured_figures(text.manifest))
    return method, tuple(lacking(method, *manifests))


def _strata(example: Example) -> tuple[str, ...]:
    return () if example.stratum is None else (f"{example.stratum} targets",)


def _write_gallery(folder: Path, model: Model, found: Embeddings) -> None:
    folder.mkdir()
    items = [
        Item(id, row, id, 0, 0, sha256, attributes={})  # nobody is shown it: sizes are not read
        for row, (id, sha256) in enumerate(zip(found.ids, found.sha256, strict=True))
    ]
    counts = Counts(len(items), len(items), duplicates=0, skipped={})
    write_gallery(folder, found.vectors, items, space=model.manifest.space, model=model.manifest.name, counts=counts)


def _named(progress: Progress, label: str) -> Progress:
    return lambda what, done, of: progress(f"{label}: {what} of composed queries", done, of)


def _counted(progress: Progress, method: str, total: int) -> Callable[[int], None]:
    return lambda done: progress(method, done, total)
