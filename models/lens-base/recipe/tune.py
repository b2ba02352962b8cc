"""Chooses the methods' strengths on EmojiCIR's validation split and writes what was tried beside this file.

    python models/lens-base/recipe/tune.py --bundle B --data EMOJICIR

The bundle holds EmojiCIR's pictures and lens-base with its networks and its vocabulary. SEARLE takes what is chosen for
LinCIR. The test split is not read.
What the table says is set by hand as the parameters' defaults in pocketlens.compose.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pocketlens.compose import find_method
from pocketlens.compose.method import Value
from pocketlens.lens import open_lens
from pocketlens_bench.evaluate_kit import open_kit
from pocketlens_bench.evaluate_results import Judge
from pocketlens_bench.evaluate_task import Evaluation, Level
from pocketlens_bench.protocols import emojicir
from pocketlens_bench.protocols.task import Task

NEGATED = ("sum", "product", "centred-product", "weicom", "lincir", "pdv-lincir")
QUERIES = 1_000
"""So many of the split's, spread evenly."""

WALKS = ("pdv-lincir", "pdv-pic2word", "pdv-names")


Trial = tuple[str, dict[str, Value]]


def settings() -> Iterator[Trial]:
    """Yield a method and values of its parameters, for queries without a negative."""
    for method, share in itertools.product(("slerp", "weicom"), (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)):
        yield method, {"text_share": share}
    for method, template in itertools.product(("lincir", "pic2word"), ("that", "comma", "with", "plain")):
        yield method, {"template": template}
    for method in WALKS:
        for at in (1.0, 1.4):
            yield method, {"direction": "text", "text_strength": at}
        for ai in (1.0, 1.5, 2.0, 3.0):
            yield method, {"direction": "image", "image_strength": ai}
        for ai, at, b in itertools.product((1.2, 1.6), (1.0, 1.3), (0.3, 0.5, 0.8)):
            yield method, {"image_strength": ai, "text_strength": at, "balance": b}
    for count, centred in itertools.product((1, 5, 20), ("no", "yes")):
        yield "freedom", {"neighbours": count, "centred": centred}
    for harris, count in itertools.product((0.0, 0.1), (0, 25)):
        yield "basic", {"harris": harris, "expansion": count}


def negatives() -> Iterator[tuple[str, Level, dict[str, Value]]]:
    """Yield a method, a level and values, for queries with a negative."""
    for method in NEGATED:
        yield method, "without", {}
        for strength in (0.3, 0.5, 0.7, 1.0):
            yield method, "vector", {"negative_strength": strength}
        for strength, floor in itertools.product((0.5, 1.0, 2.0), (0.0, 0.5, 1.0)):
            yield method, "score", {"negative_strength": strength, "negative_floor": floor}


def named(task: Task, data: Path) -> Task:
    """Return the task with the full name of what is looked for as every query's text: the most its encoder can find."""
    lines = (data / "pictures.tsv").read_text(encoding="utf-8").splitlines()
    columns = lines[0].split("\t")
    rows = (dict(zip(columns, line.split("\t"), strict=True)) for line in lines[1:])
    names = {row["id"]: row["name"] for row in rows}
    plain = [example for example in task.examples if example.negative is None]
    return replace(task, examples=tuple(replace(e, texts=(names[min(e.answers)],)) for e in plain))


def tune(bundle: Path, data: Path) -> dict[str, Any]:
    """Return mAP@10 in percent of everything tried, and of the unwanted among the top 10 where something is."""
    task = emojicir.read(data, "validation")
    with open_lens(bundle, threads=1) as lens:
        kit = open_kit(bundle, lens)
        evaluation = Evaluation(task, lens, kit, [data / "pictures"], limit=QUERIES)
        plain = Judge(task.metrics, by_family=False)
        tried = []
        for name, values in settings():
            found = plain.summarise(evaluation.measure(find_method(name), values)).whole
            tried.append({"method": name, **values, "mAP@10": round(found["mAP@10"].value, 2)})
            print(tried[-1], flush=True)
        judge, avoided = Judge((*task.metrics, *task.negative_metrics), by_family=False), []
        for name, level, values in negatives():
            found = judge.summarise(evaluation.measure(find_method(name), values, level=level)).whole
            shown = {key: round(found[key].value, 2) for key in ("mAP@10", "unwanted@10")}
            avoided.append({"method": name, "level": level, **values, **shown})
            print(avoided[-1], flush=True)
        best = Evaluation(named(task, data), lens, kit, [data / "pictures"], limit=QUERIES)
        summary = plain.summarise(best.measure(find_method("text")))
        own_name = {"all": summary.whole, **summary.strata}
    return {
        "split": "validation",
        "own_name_as_text": {part: round(figures["mAP@10"].value, 2) for part, figures in own_name.items()},
        "queries": len(evaluation.examples),
        "data_sha256": dict(task.data_sha256),
        "tried": tried,
        "negatives": avoided,
    }


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="EmojiCIR's folder")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("composed_tried.json"))
    arguments = parser.parse_args()
    found = tune(arguments.bundle, arguments.data)
    arguments.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
