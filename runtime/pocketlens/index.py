"""The code index of a gallery: exhaustive below a measured crossover, by partitions above it, re-scored from float16.

USearch holds the codes and compares them all; of partitions only the nearest are compared. A large or an updated
gallery has several segments, which are searched as one. This module decides how to search and gives answers whose shape
never depends on the data. Higher scores are nearer; a score is the cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketlens._types import Bools, Float16s, Float32s, Int8s, Int64s
from pocketlens.codes import from_codes, to_codes, to_units
from pocketlens.errors import BadQuery
from pocketlens.partitions import Partitions
from pocketlens.rows import Rows
from pocketlens.segment import IndexSpec as IndexSpec
from pocketlens.segment import Segment, build_segment, joint_spec, open_segment

MAX_K = 1_000
CROSSOVER_ROWS = (
    200_000  # above what is always scanned, and a third of a scan's time (benchmarks/results/partitions.json)
)
_RESCORED = 50  # rows re-scored for a short answer (recall: benchmarks/results/codes.json)
_RESCORED_PER_HIT = 3
_WIDER = 3  # times the tuned probes, for candidates (benchmarks/results/fusion.json)
_BLOCK_ROWS = 1_024
PARTITIONS = 2.0  # times the square root of the rows
_FROM_HALVES = 2.0**112  # float32's exponent has 112 more below zero than float16's
_SIGN_EXPONENT_FRACTION = np.int32(0x8FFFE000 - (1 << 32))


@dataclass(frozen=True, slots=True)
class Matches:
    """Answers to n queries, best first.

    Attributes:
        rows: int64 (n, k); -1 past `counts`.
        scores: float32 (n, k) cosines; -inf past `counts`.
        counts: int64 (n,), how many of the k are real.
    """

    rows: Int64s
    scores: Float32s
    counts: Int64s


def spec_for(rows: int) -> IndexSpec:
    """Return how to index `rows` codes: exhaustively below the crossover, where partitions gain little."""
    if rows < CROSSOVER_ROWS:
        return IndexSpec("exhaustive", rows, partitions=1, probes=1, recall=1.0)
    count = round(PARTITIONS * sqrt(rows))
    return IndexSpec("partitions", rows, partitions=count, probes=count, recall=1.0)


class Index:
    """Searches the codes of one gallery, whose rows are numbered through all segments.

    Args:
        segments: some; all of them have originals, or none.
        rotation: float32 (dim, dim), the gallery's.
        threads: threads of one exhaustive search; partitions are searched by one.

    Attributes:
        spec: what holds of all segments together.
        codes: int8, all rows'.
        originals: float16, all rows', or None.
        rotation: as given.
    """

    def __init__(self, segments: Sequence[Segment], rotation: Float32s, *, threads: int = 1) -> None:
        self.spec = joint_spec([segment.spec for segment in segments])
        self.codes: Rows[np.int8] = Rows([segment.codes for segment in segments])
        originals = [segment.originals for segment in segments if segment.originals is not None]
        self.originals: Rows[np.float16] | None = Rows(originals) if originals else None
        self.rotation = rotation
        self._segments = segments
        self._threads = threads

    @classmethod
    def build(
        cls,
        codes: Int8s,
        rotation: Float32s,
        originals: Float16s | None,
        spec: IndexSpec,
        *,
        partitions: Partitions | None = None,
    ) -> Index:
        """Return an index over int8 (rows, dim) codes, by partitions when there are some."""
        return cls([build_segment(codes, originals, spec, partitions)], rotation)

    @classmethod
    def open(
        cls,
        path: Path,
        rotation: Float32s,
        originals: Float16s | None,
        spec: IndexSpec,
        *,
        partitions: Partitions | None = None,
        threads: int = 1,
    ) -> Index:
        """Map the index file at `path`, whose hash the caller has checked.

        Raises:
            FormatError: the file holds another number of rows or another width than the gallery's manifest says.
        """
        return cls([open_segment(path, len(rotation), originals, spec, partitions)], rotation, threads=threads)

    @classmethod
    def join(cls, parts: Sequence[Index], gone: Bools | None = None) -> Index:
        """Return one index over the segments of several with the same rotation and threads.

        Args:
            parts: some indexes; of a later one, rows follow those of the earlier ones.
            gone: bool (rows,), rows that no search finds; None for none.
        """
        segments = [segment for part in parts for segment in part._segments]
        if gone is not None:
            ends = np.cumsum([segment.spec.rows for segment in segments])
            each = np.split(gone, ends[:-1])
            segments = [
                replace(segment, gone=some if some.any() else None)
                for segment, some in zip(segments, each, strict=True)
            ]
        return cls(segments, parts[0].rotation, threads=parts[0]._threads)

    @property
    def rows(self) -> Int64s:
        """The rows that a search may find, int64 (n,), rising."""
        if all(segment.gone is None for segment in self._segments):
            return np.arange(self.spec.rows)
        masks = [
            np.zeros(segment.spec.rows, dtype=bool) if segment.gone is None else segment.gone
            for segment in self._segments
        ]
        return np.flatnonzero(~np.concatenate(masks))

    def save(self, path: Path) -> None:
        """Write the one segment to a path; see `Segment.save`."""
        (segment,) = self._segments
        segment.save(path)

    def search(self, queries: Float32s, *, k: int, probes: int | None = None) -> Matches:
        """Return the k nearest rows of each query.

        Args:
            queries: float32 (n, dim), finite and not zero; only their direction matters.
            k: 1 to 1,000. With fewer rows than k the answer is padded and counted.
            probes: another number of partitions than the gallery's, for tuning and benchmarks.

        Raises:
            BadQuery: k or a query is out of range.
        """
        check_k(k)
        queries = np.asarray(queries, dtype=np.float32)
        query_codes = to_codes(queries, self.rotation)
        units = to_units(queries)
        wanted = k if self.originals is None else max(_RESCORED, _RESCORED_PER_HIT * k)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        counts = np.zeros(len(queries), dtype=np.int64)
        for i, (code, unit) in enumerate(zip(query_codes, units, strict=True)):
            found, cosines = self._candidates(code, wanted, probes)
            if self.originals is not None:
                found.sort()  # the last bits of a product depend on the order of rows, which segments must not change
                cosines = self.originals[found].astype(np.float32) @ unit  # (candidates, dim) @ (dim,)
            best = np.lexsort((found, -cosines))[:k]  # equal scores in row order
            counts[i] = len(best)
            rows[i, : len(best)] = found[best]
            scores[i, : len(best)] = np.clip(cosines[best], -1, 1)  # a float16 row is not quite of length 1
        return Matches(rows, scores, counts)

    def candidates(self, queries: Float32s, count: int) -> Int64s:
        """Return the rows that are among the nearest `count` of any query by their codes, int64 (m,), sorted.

        Unlike `search` it neither re-scores nor limits `count`, and it looks through three times as many partitions: of
        hundreds of rows, the last ones lie further out.

        Args:
            queries: float32 (n, dim), finite and not zero.
            count: from 1 on.

        Raises:
            BadQuery: a query is out of range.
        """
        codes = to_codes(np.asarray(queries, dtype=np.float32), self.rotation)
        found = [self._candidates(code, count, None, wider=_WIDER)[0] for code in codes]
        return np.unique(np.concatenate(found))

    def partition_ranks(self, queries: Float32s, rows: Int64s) -> Int64s:
        """Return how many partitions of the one segment are nearer to each query than those of its rows, int64 (n, k).

        Args:
            queries: float32 (n, dim), finite and not zero.
            rows: int64 (n, k), rows of each query.
        """
        (segment,) = self._segments
        assert segment.partitions is not None
        return segment.partitions.ranks(to_codes(queries, self.rotation), rows)

    def inner_products(self, vectors: Float32s, rows: Int64s | None = None) -> Float32s:
        """Return inner products, float32 (p, n), of vectors, float32 (p, dim), with the rows (by default all).

        The rows are the originals, else the codes at length 1. Work goes in blocks that stay in a core's cache.
        """
        count = self.spec.rows if rows is None else len(rows)
        scaled = vectors * np.float32(_FROM_HALVES)
        values = np.empty((len(vectors), count), dtype=np.float32)
        bits = np.empty((min(count, _BLOCK_ROWS), vectors.shape[1]), dtype=np.int32)  # memory that stays warm
        for start in range(0, count, _BLOCK_ROWS):
            part = slice(start, min(start + _BLOCK_ROWS, count))
            if self.originals is None:
                block = self.vectors(np.arange(part.start, part.stop) if rows is None else rows[part])
                values[:, part] = vectors @ block.T
            else:
                halves = self.originals[part if rows is None else rows[part]]  # (b, dim)
                block = _widened(halves, bits[: len(halves)])
                for vector, products in zip(scaled, values, strict=True):  # faster than one product of few columns
                    np.dot(block, vector, out=products[part])
        return values

    def vectors(self, rows: Int64s | None = None) -> Float32s:
        """Return unit vectors, float32 (n, dim), of the rows (by default all): the originals', else the codes'."""
        rows = np.arange(self.spec.rows) if rows is None else rows
        if self.originals is not None:
            return self.originals[rows].astype(np.float32)
        return from_codes(self.codes[rows], self.rotation)

    def _candidates(self, code: Int8s, count: int, probes: int | None, *, wider: int = 1) -> tuple[Int64s, Float32s]:
        """Return the `count` rows of all segments that are nearest to a query's code, in no order, and the cosines."""
        found = [
            segment.nearest(code, count, probes=probes or wider * segment.spec.probes, threads=self._threads)
            for segment in self._segments
        ]
        rows = np.concatenate([rows + start for (rows, _), start in zip(found, self.codes.starts, strict=True)])
        cosines = np.concatenate([cosines for _, cosines in found])
        if len(rows) <= count:
            return rows, cosines
        best = np.argpartition(cosines, -count)[-count:]
        return rows[best], cosines[best]


def check_k(k: Any) -> None:
    """Raise `BadQuery` unless `k` is an integer from 1 to 1,000."""
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MAX_K:
        raise BadQuery(f"k is {k!r}, expected an integer from 1 to {MAX_K}")


def _widened(halves: Float16s, bits: NDArray[np.int32]) -> Float32s:
    """Return float16 numbers times 2 ** -112 as float32, in the memory of `bits`: several times as fast as a cast."""
    np.copyto(bits, halves.view("<i2"))  # the sign is repeated in the upper half
    np.left_shift(bits, 13, out=bits)  # ten bits of fraction become the first of 23, five of exponent the last of eight
    np.bitwise_and(bits, _SIGN_EXPONENT_FRACTION, out=bits)
    return np.asarray(bits.view(np.float32))
