"""Evaluates composition methods on a task: from Python, `evaluate`; from a shell, `pocketlens eval`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pocketlens.compose import METHODS, Kit, Method, find_method
from pocketlens.compose.choice import missing
from pocketlens.compose.method import Values
from pocketlens.errors import MissingPart
from pocketlens.lens import Lens
from pocketlens_bench.evaluate_kit import has_part
from pocketlens_bench.evaluate_results import Judge, Results, Summary
from pocketlens_bench.evaluate_task import LEVELS, Evaluation, Level, Progress, Run
from pocketlens_bench.protocols.task import Task


def evaluate(
    task: Task,
    lens: Lens,
    kit: Kit,
    methods: Sequence[str] | None = None,
    *,
    pictures: Sequence[Path],
    parameters: Mapping[str, Values] | None = None,
    limit: int | None = None,
    on_progress: Progress = lambda what, done, of: None,
) -> Results:
    """Return the figures of composition methods on a task.

    Args:
        task: what to answer.
        lens: an opened bundle.
        kit: over that lens.
        methods: by name; None: all that the task's queries and the bundle allow, the others being named in `skipped`.
        pictures: folders in which the task's pictures may lie.
        parameters: values by method's name; others take their defaults.
        limit: so many examples, spread evenly over the task's; None: all.
        on_progress: called with what is being done, how much of it is done, and of how much.

    Raises:
        BadQuery: a method or a value is unknown.
        MissingPart: a method that was asked for needs what the bundle or the task does not have.
        FormatError: no example can be evaluated.
    """
    chosen, skipped = _choose(task, kit, methods)
    evaluation = Evaluation(task, lens, kit, pictures, limit=limit, on_progress=on_progress)
    runs = _measure_all(evaluation, chosen, parameters or {}, on_progress)
    if task.captions and any(method.name == "text" for method in chosen):
        runs.append(evaluation.measure_captions(on_progress=on_progress))
    count, gaps = len(evaluation.examples), evaluation.gaps
    if not task.has_answers:
        return Results(task, count, gaps, tuple(Summary(run, {}, {}, {}, {}, {}) for run in runs), (), skipped)
    judge = Judge(task.metrics, by_family=task.by_family)
    plain = tuple(judge.summarise(run) for run in runs if run.level is None)
    return Results(task, count, gaps, plain, _judge_negative(task, runs), skipped)


def _judge_negative(task: Task, runs: Sequence[Run]) -> tuple[Summary, ...]:
    judge = Judge((*task.metrics, *task.negative_metrics), by_family=False)
    return tuple(judge.summarise(run) for run in runs if run.level is not None)


def _measure_all(
    evaluation: Evaluation, methods: Sequence[Method], parameters: Mapping[str, Values], on_progress: Progress
) -> list[Run]:
    levels: list[Level | None] = [level for level in (None, *LEVELS) if evaluation.select(level)]
    total = len(methods) * sum(len(evaluation.select(level)) for level in levels)
    runs: list[Run] = []
    before = 0
    for method in methods:
        for level in levels:
            shown = _shifted(on_progress, before, total)
            runs.append(evaluation.measure(method, parameters.get(method.name), level=level, on_progress=shown))
            before += len(runs[-1].examples)
    return runs


def _shifted(on_progress: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda done: on_progress("queries", before + done, total)


def _choose(task: Task, kit: Kit, names: Sequence[str] | None) -> tuple[list[Method], dict[str, Sequence[str]]]:
    """Return the methods to evaluate, and what keeps the others from it."""
    methods = list(METHODS.values()) if names is None else [find_method(name) for name in dict.fromkeys(names)]
    pictures = all(example.reference is not None for example in task.examples)
    lacking: dict[str, Sequence[str]] = {
        method.name: [
            *(["queries with a picture"] if "image" in method.needs and not pictures else []),
            *missing(method, lambda need: has_part(kit, need)),
        ]
        for method in methods
    }
    skipped = {name: lacks for name, lacks in lacking.items() if lacks}
    if names is not None and skipped:
        name, lacks = next(iter(skipped.items()))
        raise MissingPart(f"method {name} needs {'; '.join(lacks)}")
    return [method for method in methods if method.name not in skipped], skipped
