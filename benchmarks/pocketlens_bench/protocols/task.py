"""What every protocol is read into: examples, the pictures they speak of, and how answers are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketlens_bench.protocols.metrics import Metric

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class View:
    """Where a picture of the protocol is found.

    Attributes:
        files: paths that it may have, relative to the folder of pictures.
        box: left, top, right, bottom in pixels of the part that is meant, padded to a black square; None: the whole.
    """

    files: tuple[str, ...]
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A query and its answers. Pictures are named as the protocol names them.

    Attributes:
        id: the protocol's.
        families: what figures it counts in beside the whole; may be none.
        group: examples of one group are drawn together by the bootstrap.
        reference: the picture part, or None.
        texts: the text parts.
        answers: the right pictures; empty where the protocol keeps them to itself.
        target: the one answer that counts where a metric knows only one; None: any answer.
        pool: the gallery part that is ranked, a key of `Task.pools`; None: `candidates` alone are ranked.
        candidates: a few pictures to be ranked among themselves; without a pool they are encoded for the query.
        excluded: taken out of the ranking.
        negative: what is not wanted, in words.
        unwanted: pictures that show it.
        stratum: a part of the examples for which the headline is given besides, such as "unseen"; None: no such part.
    """

    id: str
    families: tuple[str, ...]
    group: str
    reference: str | None
    texts: tuple[str, ...]
    answers: frozenset[str]
    target: str | None = None
    pool: str | None = "all"
    candidates: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()
    negative: str | None = None
    unwanted: frozenset[str] = frozenset()
    stratum: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A protocol's split, read.

    Attributes:
        protocol, split: which.
        examples: in the files' order.
        pools: gallery parts by name; each a tuple of pictures.
        views: where each picture is found, by name.
        metrics: of each example; the first is the headline.
        negative_metrics: besides, of the examples with something that is not wanted.
        by_family: whether a figure of the whole is the unweighted mean over families, not over examples.
        notes: what a reader of the figures must know.
        data_sha256: of every file read, by its path in the data folder.
        captions: whether pictures are also to find their texts, as in retrieval.
    """

    protocol: str
    split: str
    examples: tuple[Example, ...]
    pools: Mapping[str, tuple[str, ...]]
    views: Mapping[str, View]
    metrics: tuple[Metric, ...]
    data_sha256: Mapping[str, str]
    negative_metrics: tuple[Metric, ...] = ()
    by_family: bool = False
    notes: tuple[str, ...] = ()
    captions: bool = False

    @property
    def has_answers(self) -> bool:
        """Whether figures can be worked out: test servers keep the answers to themselves."""
        return any(example.answers for example in self.examples)


@dataclass(frozen=True, slots=True)
class Protocol:
    """A benchmark whose files can be read.

    Attributes:
        name: how it is asked for.
        files: what is expected where in the data folder, for people.
        splits: that it has; the first is the default.
        pictures: where the indexed pictures lie in the data folder, unless told otherwise; the first that exists.
        read: from the data folder and a split to the task. Raises FormatError.
    """

    name: str
    files: str
    splits: tuple[str, ...]
    pictures: tuple[str, ...]
    read: Callable[[Path, str], Task] = field(repr=False)
