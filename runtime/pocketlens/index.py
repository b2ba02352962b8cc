"""The code index of a gallery: exhaustive below a measured crossover, by partitions above it, re-scored from float16.

USearch holds the codes and compares them all; of partitions only the nearest are compared. This module decides how to
search and gives answers whose shape never depends on the data. Higher scores are nearer; a score is the cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pocketlens._native import usearch
from pocketlens._types import Float16s, Float32s, Int8s, Int64s
from pocketlens.codes import from_codes, to_codes, to_units
from pocketlens.errors import BadQuery, FormatError
from pocketlens.partitions import Partitions

MAX_K = 1_000
CROSSOVER_ROWS = 200_000  # from here on partitions take at most a third of a scan's time (results/partitions.json)
_RESCORED = 50  # rows re-scored for a short answer (recall: benchmarks/results/codes.json)
_RESCORED_PER_HIT = 3
_BLOCK_ROWS = 1_024
PARTITIONS = 2.0  # times the square root of the rows
_HEADER_BYTES = 8  # of USearch's file: rows and bytes of a row, then the codes, row after row
_FROM_HALVES = 2.0**112  # float32's exponent has 112 more below zero than float16's
_SIGN_EXPONENT_FRACTION = np.int32(0x8FFFE000 - (1 << 32))


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """How a gallery's codes are held and searched.

    Attributes:
        kind: "exhaustive" compares a query with every row; "partitions" with those of the nearest partitions.
        rows: number of code rows.
        partitions: how many there are; 1 when exhaustive.
        probes: how many of them a query looks through, tuned by the build.
        recall: share of the exact top 10 that so many found on text-like queries; 1.0 when exhaustive.
        code_error: the greatest distance of a row's original from the direction of its code, 0 to 2; 2 says nothing.
    """

    kind: Literal["exhaustive", "partitions"]
    rows: int
    partitions: int
    probes: int
    recall: float
    code_error: float = 2.0


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
    """Searches the codes of one gallery.

    Args:
        codes: int8 (rows, dim).
        native: a USearch index over the codes whose keys are the rows; None when there are partitions.
        rotation: float32 (dim, dim), the gallery's.
        originals: float16 (rows, dim) unit vectors to re-score from, or None.
        partitions: the rows', unless the search is exhaustive.
        spec: how to search.
        threads: threads of one exhaustive search; partitions are searched by one.
    """

    def __init__(
        self,
        codes: Int8s,
        native: Any,
        rotation: Float32s,
        originals: Float16s | None,
        spec: IndexSpec,
        *,
        partitions: Partitions | None = None,
        threads: int = 1,
    ) -> None:
        self.spec = spec
        self.codes = codes
        self._native = native
        self.rotation = rotation
        self.originals = originals
        self._partitions = partitions
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
        native = _new_native(codes.shape[1])
        native.add(np.arange(len(codes), dtype=np.uint64), codes, threads=1)  # one thread: same codes, same bytes
        return cls(codes, native, rotation, originals, spec, partitions=partitions)

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
        rows, dim = spec.rows, len(rotation)
        try:
            head: Any = usearch.Index.metadata(str(path))
            found = f"{head['count_present']} x {head['dimensions']} codes of type {head['kind_scalar'].name}"
            expected = f"{rows} x {dim} codes of type I8"
            if found != expected:
                raise FormatError(f"{path} holds {found}, expected {expected}")
            native = None if partitions else _new_native(dim)
            if native is not None:
                native.view(str(path))
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"{path} is not a USearch index: {error}") from error
        codes = np.asarray(np.memmap(path, dtype=np.int8, mode="r", offset=_HEADER_BYTES, shape=(rows, dim)))
        return cls(codes, native, rotation, originals, spec, partitions=partitions, threads=threads)

    def save(self, path: Path) -> None:
        """Write the index to a path inside a folder that is not in use yet (USearch writes in place, without fsync).

        Raises:
            OSError: it cannot be written, or fewer bytes arrived than the index has (USearch ignores a failing close).
        """
        try:
            self._native.save(str(path))
        except RuntimeError as error:
            raise OSError(f"{path}: {error}") from error
        if path.stat().st_size != self._native.serialized_length:
            raise OSError(f"{path}: wrote {path.stat().st_size} of {self._native.serialized_length} bytes; disk full?")

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
            found, cosines = self._candidates(code, min(wanted, self.spec.rows), probes)
            if self.originals is not None:
                cosines = self.originals[found].astype(np.float32) @ unit  # (candidates, dim) @ (dim,)
            best = np.lexsort((found, -cosines))[:k]  # equal scores in row order
            counts[i] = len(best)
            rows[i, : len(best)] = found[best]
            scores[i, : len(best)] = np.clip(cosines[best], -1, 1)  # a float16 row is not quite of length 1
        return Matches(rows, scores, counts)

    def candidates(self, queries: Float32s, count: int) -> Int64s:
        """Return the rows that are among the nearest `count` of any query by their codes, int64 (m,), sorted.

        Unlike `search` it neither re-scores nor limits `count`.

        Args:
            queries: float32 (n, dim), finite and not zero.
            count: from 1 on.

        Raises:
            BadQuery: a query is out of range.
        """
        codes = to_codes(np.asarray(queries, dtype=np.float32), self.rotation)
        found = [self._candidates(code, min(count, self.spec.rows), None)[0] for code in codes]
        return np.unique(np.concatenate(found))

    def partition_ranks(self, queries: Float32s, rows: Int64s) -> Int64s:
        """Return how many partitions are nearer to each query than those of its rows, int64 (n, k).

        Args:
            queries: float32 (n, dim), finite and not zero.
            rows: int64 (n, k), rows of each query.
        """
        assert self._partitions is not None
        return self._partitions.ranks(to_codes(queries, self.rotation), rows)

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

    def _candidates(self, code: Int8s, count: int, probes: int | None) -> tuple[Int64s, Float32s]:
        if self._partitions is not None:
            return self._partitions.nearest(self.codes, code, count=count, probes=probes or self.spec.probes)
        matches = self._native.search(code, count, threads=self._threads, exact=True)
        return matches.keys.astype(np.int64), 1.0 - matches.distances.astype(np.float32)


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


def _new_native(dim: int) -> Any:
    """Return an empty USearch index that is made to be searched exhaustively: next to no graph, no table of keys."""
    return usearch.Index(
        ndim=dim,
        metric="cos",
        dtype="i8",  # USearch's default depends on the CPU
        connectivity=2,
        expansion_add=1,
        expansion_search=1,
        enable_key_lookups=False,
    )
