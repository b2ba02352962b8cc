"""The code index of a gallery: exhaustive below a measured crossover, a graph above it, re-scored from float16.

USearch holds the codes and compares them; this module decides how to search and gives answers whose shape never
depends on the data. Higher scores are nearer; a score is the cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pocketlens._native import usearch
from pocketlens._types import Float16s, Float32s, Int8s, Int64s
from pocketlens.codes import from_codes, to_codes, to_units
from pocketlens.errors import BadQuery, FormatError

MAX_K = 1_000
CROSSOVER_ROWS = 400_000  # measured, benchmarks/results/crossover.json: below, graph and scan are within 20 % or so
_RESCORED = 50  # rows re-scored for a short answer (recall: benchmarks/results/codes.json)
_RESCORED_PER_HIT = 3
_BLOCK_ROWS = 1_024
_HEAD_BYTES = 8  # of an index file: rows and bytes of a row, uint32 each; then the codes
_FROM_HALVES = 2.0**112  # float32's exponent has 112 more below zero than float16's
_SIGN_EXPONENT_FRACTION = np.int32(0x8FFFE000 - (1 << 32))


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """How a gallery's codes are held and searched.

    Attributes:
        kind: "exhaustive" compares a query with every row; "graph" walks USearch's HNSW.
        rows: number of code rows.
        connectivity: links per node of the graph (2, the least, when there is none).
        expansion_add: width of the search that placed each node (1 when there is no graph).
        expansion_search: width of a query's search, tuned by the build; 0 when there is no graph.
        recall: share of the exact top 10 that the tuned search found on text-like queries; 1.0 when exhaustive.
        code_error: the greatest distance of a row's original from the direction of its code, 0 to 2; 2 says nothing.
    """

    kind: Literal["exhaustive", "graph"]
    rows: int
    connectivity: int
    expansion_add: int
    expansion_search: int
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
    """Return how to index `rows` codes: without a graph below the crossover, where one gains next to nothing."""
    if rows < CROSSOVER_ROWS:
        return IndexSpec("exhaustive", rows, connectivity=2, expansion_add=1, expansion_search=0, recall=1.0)
    return IndexSpec("graph", rows, connectivity=32, expansion_add=256, expansion_search=512, recall=0.0)


class Index:
    """Searches the codes of one gallery.

    Args:
        codes: a USearch index over int8 codes whose keys are the rows.
        rotation: float32 (dim, dim), the gallery's.
        originals: float16 (rows, dim) unit vectors to re-score from, or None.
        spec: how to search.
        threads: threads of one search.
        matrix: int8 (rows, dim), the codes themselves, row after row; None where they lie in `codes` alone.
    """

    def __init__(
        self,
        codes: Any,
        rotation: Float32s,
        originals: Float16s | None,
        spec: IndexSpec,
        *,
        threads: int = 1,
        matrix: Int8s | None = None,
    ) -> None:
        self.spec = spec
        self.matrix = matrix
        self.rotation = rotation
        self._codes = codes
        self.originals = originals
        self._threads = threads

    @classmethod
    def build(cls, codes: Int8s, rotation: Float32s, originals: Float16s | None, spec: IndexSpec) -> Index:
        """Return an index over int8 (rows, dim) codes; row i gets key i. One thread: same codes, same bytes."""
        index = _new_codes(codes.shape[1], spec, key_lookups=originals is None)
        index.add(np.arange(len(codes), dtype=np.uint64), codes, threads=1)
        return cls(index, rotation, originals, spec, matrix=codes)

    @classmethod
    def open(
        cls, path: Path, rotation: Float32s, originals: Float16s | None, spec: IndexSpec, *, threads: int = 1
    ) -> Index:
        """Map the index file at `path`, whose hash the caller has checked.

        Raises:
            FormatError: the file holds another number of rows or another width than the gallery's manifest says.
        """
        index = _new_codes(len(rotation), spec, key_lookups=originals is None)
        try:
            index.view(str(path))
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"{path} is not a USearch index: {error}") from error
        found = f"{len(index)} x {index.ndim} codes of type {index.dtype.name}"
        expected = f"{spec.rows} x {len(rotation)} codes of type I8"
        if found != expected:
            raise FormatError(f"{path} holds {found}, expected {expected}")
        matrix = np.memmap(path, dtype=np.int8, mode="r", offset=_HEAD_BYTES, shape=(spec.rows, len(rotation)))
        return cls(index, rotation, originals, spec, threads=threads, matrix=matrix)

    def save(self, path: Path) -> None:
        """Write the index to a path inside a folder that is not in use yet (USearch writes in place, without fsync).

        Raises:
            OSError: it cannot be written, or fewer bytes arrived than the index has (USearch ignores a failing close).
        """
        try:
            self._codes.save(str(path))
        except RuntimeError as error:
            raise OSError(f"{path}: {error}") from error
        if path.stat().st_size != self._codes.serialized_length:
            raise OSError(f"{path}: wrote {path.stat().st_size} of {self._codes.serialized_length} bytes; disk full?")

    def search(self, queries: Float32s, *, k: int, expansion_search: int | None = None) -> Matches:
        """Return the k nearest rows of each query.

        Args:
            queries: float32 (n, dim), finite and not zero; only their direction matters.
            k: 1 to 1,000. With fewer rows than k the answer is padded and counted.
            expansion_search: another width than the gallery's, for tuning and benchmarks.

        Raises:
            BadQuery: k or a query is out of range.
        """
        check_k(k)
        queries = np.asarray(queries, dtype=np.float32)
        query_codes = to_codes(queries, self.rotation)
        units = to_units(queries)
        wanted = k if self.originals is None else max(_RESCORED, _RESCORED_PER_HIT * k)
        self._codes.expansion_search = expansion_search or self.spec.expansion_search or 1  # files do not store it
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        counts = np.zeros(len(queries), dtype=np.int64)
        for i, (code, unit) in enumerate(zip(query_codes, units, strict=True)):
            found, cosines = self._candidates(code, min(wanted, self.spec.rows))
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
        self._codes.expansion_search = max(self.spec.expansion_search, 1)
        found = [self._candidates(code, min(count, self.spec.rows))[0] for code in codes]
        return np.unique(np.concatenate(found))

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
        codes = self._codes.get(rows.astype(np.uint64))  # one array a row
        return from_codes(np.stack(codes), self.rotation)

    def _candidates(self, code: Int8s, count: int) -> tuple[Int64s, Float32s]:
        matches = self._codes.search(code, count, threads=self._threads, exact=self.spec.kind == "exhaustive")
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


def _new_codes(dim: int, spec: IndexSpec, *, key_lookups: bool) -> Any:
    return usearch.Index(
        ndim=dim,
        metric="cos",
        dtype="i8",  # USearch's default depends on the CPU
        connectivity=spec.connectivity,
        expansion_add=spec.expansion_add,
        expansion_search=spec.expansion_search or 1,
        enable_key_lookups=key_lookups,  # only needed to read codes back; 40 bytes a row
    )
