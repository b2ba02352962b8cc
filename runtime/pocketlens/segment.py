"""A segment of an index: the codes of some rows in one file, as USearch or partitions search them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pocketlens._native import usearch
from pocketlens._types import Bools, Float16s, Float32s, Int8s, Int64s
from pocketlens.errors import FormatError
from pocketlens.partitions import Partitions

_SPARE = 16  # rows more that are asked for where some are gone, so that one search mostly does
_HEADER_BYTES = 8  # of USearch's file: rows and bytes of a row, then the codes, row after row


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


def joint_spec(specs: Sequence[IndexSpec]) -> IndexSpec:
    """Return what holds of segments together: sums, the least recall, the greatest error."""
    if len(specs) == 1:
        return specs[0]
    some = any(spec.kind == "partitions" for spec in specs)
    return IndexSpec(
        kind="partitions" if some else "exhaustive",
        rows=sum(spec.rows for spec in specs),
        partitions=sum(spec.partitions for spec in specs) if some else 1,
        probes=sum(spec.probes for spec in specs) if some else 1,
        recall=min(spec.recall for spec in specs),
        code_error=max(spec.code_error for spec in specs),
    )


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows that are held and searched together.

    Attributes:
        codes: int8 (rows, dim).
        native: a USearch index over the codes whose keys are the rows.
        originals: float16 (rows, dim) unit vectors to re-score from, or None.
        partitions: the rows', unless the search is exhaustive.
        spec: how to search.
        gone: bool (rows,), which are no more; None for none.
    """

    codes: Int8s
    native: Any
    originals: Float16s | None
    partitions: Partitions | None
    spec: IndexSpec
    gone: Bools | None = None

    def nearest(self, code: Int8s, count: int, *, probes: int, threads: int) -> tuple[Int64s, Float32s]:
        """Return `count` rows or more that are nearest to a query's code, or all, in no order, and the cosines."""
        rows = self.spec.rows
        wanted = min(count if self.gone is None else 2 * count + _SPARE, rows)
        while True:
            found, cosines = self._nearest(code, wanted, probes, threads)
            if self.gone is None:
                return found, cosines
            left = ~self.gone[found]
            if wanted == rows or left.sum() >= count:
                return found[left], cosines[left]
            wanted = min(2 * wanted, rows)

    def save(self, path: Path) -> None:
        """Write the codes to a path inside a folder that is not in use yet (USearch writes in place, without fsync).

        Raises:
            OSError: it cannot be written, or fewer bytes arrived than the index has (USearch ignores a failing close).
        """
        try:
            self.native.save(str(path))
        except RuntimeError as error:
            raise OSError(f"{path}: {error}") from error
        if path.stat().st_size != self.native.serialized_length:
            raise OSError(f"{path}: wrote {path.stat().st_size} of {self.native.serialized_length} bytes; disk full?")

    def _nearest(self, code: Int8s, count: int, probes: int, threads: int) -> tuple[Int64s, Float32s]:
        if self.partitions is not None:
            return self.partitions.nearest(self.codes, code, count=count, probes=probes)
        matches = self.native.search(code, count, threads=threads, exact=True)
        return matches.keys.astype(np.int64), 1.0 - matches.distances.astype(np.float32)


def build_segment(codes: Int8s, originals: Float16s | None, spec: IndexSpec, partitions: Partitions | None) -> Segment:
    """Return a segment of int8 (rows, dim) codes."""
    native = _new_native(codes.shape[1])
    native.add(np.arange(len(codes), dtype=np.uint64), codes, threads=1)  # one thread: same codes, same bytes
    return Segment(codes, native, originals, partitions, spec)


def open_segment(
    path: Path, dim: int, originals: Float16s | None, spec: IndexSpec, partitions: Partitions | None
) -> Segment:
    """Map the index file at `path`, whose hash the caller has checked.

    Raises:
        FormatError: the file holds another number of rows or another width than the gallery's manifest says.
    """
    try:
        head: Any = usearch.Index.metadata(str(path))
        found = f"{head['count_present']} x {head['dimensions']} codes of type {head['kind_scalar'].name}"
        expected = f"{spec.rows} x {dim} codes of type I8"
        if found != expected:
            raise FormatError(f"{path} holds {found}, expected {expected}")
        native = None if partitions else _new_native(dim)
        if native is not None:
            native.view(str(path))
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"{path} is not a USearch index: {error}") from error
    codes = np.asarray(np.memmap(path, dtype=np.int8, mode="r", offset=_HEADER_BYTES, shape=(spec.rows, dim)))
    return Segment(codes, native, originals, partitions, spec)


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
