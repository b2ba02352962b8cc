"""Answers a protocol's queries by composition methods over an opened bundle: exhaustively and exactly.

Everything that methods and strengths share is done once: pictures and texts are encoded, the gallery's vectors are
held in float32, and prompts are remembered. A script that sweeps strengths keeps one `Evaluation` and calls `measure`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose import Composed, FeatureMap, Kit, Method, Negative, Query, Scores, Text, check_values, compose
from pocketlens.compose.method import Value
from pocketlens.errors import BadQuery, FormatError
from pocketlens.lens import Lens
from pocketlens_bench.evaluate_kit import CachedKit
from pocketlens_bench.evaluate_pictures import PictureFiles, locate
from pocketlens_bench.protocols.metrics import Ranking
from pocketlens_bench.protocols.ranking import Pool
from pocketlens_bench.protocols.task import Example, Task

Level: TypeAlias = Literal["without", "vector", "score"]
LEVELS: tuple[Level, ...] = ("without", "vector", "score")
Progress: TypeAlias = Callable[[str, int, int], None]  # what is done, how many of them, of how many

TOP = 50  # what CIRR's and CIRCO's servers take, and the deepest metric
_BLOCK_SCORES = 1 << 22  # scores held at once: 16 MB


def _silent(what: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Run:
    """A method's answers to some examples.

    Attributes:
        method: its name, or what was done where no method was.
        values: of its parameters.
        text_passes: texts encoded for a query of one text.
        examples: that were answered.
        rankings: one for each.
        level: where what is not wanted was avoided; None: the examples have no such part.
        failed: why examples have an empty ranking, by their ids.
    """

    method: str
    values: Mapping[str, Value]
    text_passes: int
    examples: tuple[Example, ...]
    rankings: tuple[Ranking, ...]
    level: Level | None = None
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gaps:
    """What could not be evaluated.

    Attributes:
        missing: pictures to be ranked that the gallery does not have.
        unreadable: why a picture that had to be encoded was not, by its name.
        dropped: why an example was left out, by its id.
        unanswerable: ids of examples whose answers the gallery does not have; they are answered, and wrongly.
        incomplete: ids of examples of whose candidates the gallery lacks some: those are not ranked among themselves.
    """

    missing: tuple[str, ...]
    unreadable: Mapping[str, str]
    dropped: Mapping[str, str]
    unanswerable: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()


class Evaluation:
    """A task made ready for a bundle.

    Args:
        task: what to answer.
        lens: an opened bundle; its image tower encodes the queries' pictures.
        kit: over that lens.
        pictures: folders in which the pictures' paths may begin; the first that has a file counts.
        limit: so many examples, spread evenly over the task's; None: all.
        on_progress: called while encoding.

    Attributes:
        examples: those that can be answered and judged.
        gaps: what could not be.

    Raises:
        FormatError: no example can be evaluated.
        MissingPart: the bundle lacks a tower that is needed.
    """

    def __init__(
        self,
        task: Task,
        lens: Lens,
        kit: Kit,
        pictures: Sequence[Path],
        *,
        limit: int | None = None,
        on_progress: Progress = _silent,
    ) -> None:
        self.task = task
        examples = _spread(task.examples, limit)
        items = {item.id: item for item in lens.gallery.items.read_all()}
        located = locate(task, items.values())
        rows = lens.gallery.index.vectors()  # (rows, dim)
        self._kit = CachedKit(kit, rows)
        order = {id: position for position, id in enumerate(items)}  # by row, then by id
        self._pools = {}
        for pool in sorted({example.pool for example in examples if example.pool is not None}):
            names = sorted((name for name in task.pools[pool] if name in located), key=lambda n: order[located[n].id])
            self._pools[pool] = Pool(names, rows[[located[name].row for name in names]])
        self._files, self._encoder = PictureFiles(task, located, pictures), lens.image_encoder
        self._vectors, unreadable = _encode_pictures(
            self._files, examples, lens, lambda done, of: on_progress("pictures", done, of)
        )
        dropped = {example.id: why for example in examples if (why := self._lacking(example)) is not None}
        self.examples = tuple(example for example in examples if example.id not in dropped)
        missing = (name for pool in self._pools for name in task.pools[pool] if name not in located)
        unanswerable = tuple(example.id for example in self.examples if not self._has_answer(example))
        incomplete = tuple(example.id for example in self.examples if not self._has_candidates(example))
        self.gaps = Gaps(tuple(dict.fromkeys(missing)), unreadable, dropped, unanswerable, incomplete)
        if len(unanswerable) == len(self.examples):
            raise FormatError(_nothing_left(task, self.gaps, pictures))
        self._encode_texts(self.examples, lambda done, of: on_progress("texts", done, of))

    def measure(
        self,
        method: Method,
        values: Mapping[str, Value] | None = None,
        *,
        level: Level | None = None,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> Run:
        """Return a method's answers.

        Args:
            method: what to compose with.
            values: of its parameters; those left out take their defaults.
            level: None answers the examples without a negative part; else those with one, which is left out
                ("without") or avoided at the vector or at the score level.
            on_progress: called with the number of examples that are done.

        Raises:
            BadQuery: a value is out of range, or no example can be composed.
            MissingPart: the bundle lacks what the method needs.
        """
        at_level = (
            dict(values or {}) if level in (None, "without") else {**(values or {}), "negative_level": str(level)}
        )
        checked = check_values(method, at_level)
        examples = self.select(level)
        rankings: dict[str, Ranking] = {}
        failed: dict[str, str] = {}
        for pool in dict.fromkeys(example.pool for example in examples):
            members = [example for example in examples if example.pool == pool]
            composed = self._compose_all(members, method, checked, level, failed)
            for example, ranking in self._rank_all(composed):
                rankings[example.id] = ranking
                on_progress(len(rankings))
        if examples and len(failed) == len(examples):
            raise BadQuery(f"method {method.name} answers no query: {next(iter(failed.values()))}")
        answers = tuple(rankings.get(example.id, Ranking(())) for example in examples)
        return Run(method.name, checked, method.text_passes, examples, answers, level, failed)

    def select(self, level: Level | None) -> tuple[Example, ...]:
        """Return the examples that `measure` answers at a level."""
        return tuple(example for example in self.examples if (example.negative is None) == (level is None))

    def measure_captions(self, *, on_progress: Progress = _silent) -> Run:
        """Return how the examples' pictures find their texts: all the task's are ranked, whatever the limit.

        A text's score is its product with the picture's vector in the gallery; without one the answer is wrong.
        """
        everything = self.task.examples
        self._encode_texts(everything, lambda done, of: on_progress("captions", done, of))
        pool = self._pools["all"]
        texts = Pool([e.id for e in everything], np.concatenate([self._kit.encode_texts(e.texts) for e in everything]))
        captions: dict[str, list[str]] = {}
        for example in everything:
            captions.setdefault(next(iter(example.answers)), []).append(example.id)
        asked = dict.fromkeys(next(iter(example.answers)) for example in self.examples)
        examples = tuple(Example(name, (), name, name, (), frozenset(captions[name])) for name in asked)
        rankings = (texts.best(texts.vectors @ pool.vector(name), TOP) if name in pool else () for name in asked)
        return Run("picture to text", {}, 0, examples, tuple(map(Ranking, rankings)))

    def _encode_texts(self, examples: Sequence[Example], on_progress: Callable[[int, int], None]) -> None:
        texts = [text for e in examples for text in (*e.texts, *filter(None, [e.negative]))]
        unique = sorted(set(texts), key=lambda text: (len(text), text))
        for start in range(0, len(unique), 64):
            self._kit.encode_texts(unique[start : start + 64])
            on_progress(min(start + 64, len(unique)), len(unique))

    def _lacking(self, example: Example) -> str | None:
        """Return what keeps an example from being evaluated, if anything does."""
        if example.reference is not None and example.reference not in self._vectors:
            return f"its picture {example.reference} cannot be read"
        if example.pool is None:
            return None if all(name in self._vectors for name in example.candidates) else "a candidate cannot be read"
        return None

    def _has_answer(self, example: Example) -> bool:
        """Return whether one of its answers can be found; where they are not known, whether there is any picture."""
        if example.pool is None:
            return True
        pool = self._pools[example.pool]
        return any(name in pool for name in example.answers) if example.answers else len(pool.names) > 0

    def _has_candidates(self, example: Example) -> bool:
        return example.pool is None or all(name in self._pools[example.pool] for name in example.candidates)

    def _compose_all(
        self,
        examples: Sequence[Example],
        method: Method,
        values: Mapping[str, Value],
        level: Level | None,
        failed: dict[str, str],
    ) -> Iterator[tuple[Example, Composed]]:
        for example in examples:
            image = None if example.reference is None else self._vectors[example.reference]
            query = Query(image, tuple(map(Text, example.texts)), features=self._see(method, example))
            negative = None
            if example.negative is not None and level in ("vector", "score"):
                negative = Negative(self._kit.encode_texts([example.negative]), np.ones(1, dtype=np.float32))
            try:
                yield example, compose(query, negative, self._kit, method, values)
            except BadQuery as error:  # parts that cancel out: no answer is a wrong answer
                failed[example.id] = str(error)

    def _see(self, method: Method, example: Example) -> tuple[FeatureMap, ...]:
        """Return the features of the example's picture for a method that takes them; too large to keep all of them."""
        if "features" not in method.needs or example.reference is None:
            return ()
        return (self._files.see(example.reference, self._encoder()),)

    def _rank_all(self, composed: Iterator[tuple[Example, Composed]]) -> Iterator[tuple[Example, Ranking]]:
        """Yield rankings of queries into one pool, scored in blocks by one matrix product each."""
        block: list[tuple[Example, Composed]] = []
        for pair in composed:
            block.append(pair)
            pool = self._pool_of(pair[0])
            if pair[0].pool is None or len(block) * len(pair[1].vectors) * len(pool.vectors) >= _BLOCK_SCORES:
                yield from self._rank(block, pool)
                block = []
        if block:
            yield from self._rank(block, self._pool_of(block[0][0]))

    def _rank(self, block: Sequence[tuple[Example, Composed]], pool: Pool) -> Iterator[tuple[Example, Ranking]]:
        vectors = np.concatenate([composed.vectors for _, composed in block])  # (all p, dim)
        values = vectors @ pool.vectors.T  # (all p, u)
        means = vectors @ self._kit.mean
        deviations = np.sqrt(np.maximum(((vectors @ self._kit.covariance) * vectors).sum(axis=1), 0.0))
        start = 0
        for example, composed in block:
            part = slice(start, start + len(composed.vectors))
            start = part.stop
            scores = values[start - 1]
            if composed.fuse is not None:
                scores = composed.fuse(Scores(values[part], means[part], deviations[part], pool.vectors.__getitem__))
            yield example, self._ranking(example, pool, scores)

    def _ranking(self, example: Example, pool: Pool, scores: Float32s) -> Ranking:
        assert np.isfinite(scores).all(), f"{example.id}: a score is not finite"
        within: tuple[str, ...] | None = ()
        if example.pool is not None:
            within = pool.order(scores, example.candidates) if self._has_candidates(example) else None
        return Ranking(pool.best(scores, TOP, excluded=example.excluded), within)

    def _pool_of(self, example: Example) -> Pool:
        if example.pool is not None:
            return self._pools[example.pool]
        return Pool(example.candidates, np.stack([self._vectors[name] for name in example.candidates]))


def _spread(examples: tuple[Example, ...], limit: int | None) -> tuple[Example, ...]:
    if limit is None or limit >= len(examples):
        return examples
    places = np.linspace(0, len(examples) - 1, limit).round().astype(int)
    return tuple(examples[place] for place in places)


def _encode_pictures(
    files: PictureFiles, examples: Sequence[Example], lens: Lens, on_progress: Callable[[int, int], None]
) -> tuple[dict[str, Float32s], dict[str, str]]:
    references = [example.reference for example in examples if example.reference is not None]
    candidates = [name for example in examples if example.pool is None for name in example.candidates]
    names = sorted({*references, *candidates})
    if not names:
        return {}, {}
    return files.encode(names, lens.image_encoder(), lambda done: on_progress(done, len(names)))


def _nothing_left(task: Task, gaps: Gaps, pictures: Sequence[Path]) -> str:
    reasons = {**gaps.dropped, **dict.fromkeys(gaps.unanswerable, "the gallery has none of its answers")}
    id, why = next(iter(reasons.items()))
    searched = ", ".join(map(str, pictures))
    return (
        f"{task.protocol} {task.split}: none of {len(reasons)} queries can be evaluated; {len(gaps.missing)} of "
        f"its pictures are not in the gallery (query {id}: {why}; pictures were sought in {searched}, see --pictures)"
    )
