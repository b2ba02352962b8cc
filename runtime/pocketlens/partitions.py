"""Coarse partitions of a gallery's rows: a query compares itself with their centres, then with the nearest ones' codes.

Rows of a partition follow each other, so that each is one stretch of memory, scanned by NumKong, the kernels that
USearch itself calls. A graph would take minutes to build where this takes seconds, for little at the recall that
is asked for (benchmarks/results/index.json, partitions.json).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens._native import numkong
from pocketlens._types import Float16s, Float32s, Int8s, Int64s
from pocketlens.codes import to_codes
from pocketlens.errors import FormatError
from pocketlens.files import read_arrays

_ROUNDS = 5  # of Lloyd's k-means
_SAMPLED = 40  # rows a partition to learn the centres from
_BLOCK_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Partitions:
    """Where the partitions of `rows` rows are.

    Attributes:
        centers: int8 (partitions, dim), the code of the mean of each one's vectors.
        weights: float32 (partitions,), length of that mean / length of its code.
        starts: int64 (partitions + 1,), rising from 0 to `rows`: the first row of each, and the end.
        scales: float32 (rows,), 1 / length of each row's code.
    """

    centers: Int8s
    weights: Float32s
    starts: Int64s
    scales: Float32s

    @property
    def count(self) -> int:
        """How many partitions there are."""
        return len(self.centers)

    def nearest(self, codes: Int8s, code: Int8s, *, count: int, probes: int) -> tuple[Int64s, Float32s]:
        """Return the `count` best rows of the nearest partitions, in no order, and their codes' cosines.

        Args:
            codes: int8 (rows, dim), of all rows.
            code: int8 (dim,), the query's.
            count: 1 to `rows`.
            probes: how many partitions to look through; more when these hold fewer than `count` rows.
        """
        chosen = np.sort(self._choose(self._scores(code[np.newaxis])[0], count, probes))
        starts, stops = self.starts[chosen], self.starts[chosen + 1]
        ends = np.cumsum(stops - starts)
        parts = [slice(*each) for each in zip(starts.tolist(), stops.tolist(), strict=True)]
        dots = np.empty((1, int(ends[-1])), dtype=np.float32)
        for part, end in zip(parts, ends.tolist(), strict=True):
            _dot(code[np.newaxis], codes[part], dots[:, end - part.stop + part.start : end])
        cosines = dots[0]
        cosines *= np.concatenate([self.scales[part] for part in parts])
        cosines /= np.linalg.norm(code.astype(np.float32))
        best = np.argpartition(cosines, -count)[-count:]
        return best + (stops - ends)[np.searchsorted(ends, best, side="right")], cosines[best]

    def ranks(self, codes: Int8s, rows: Int64s) -> Int64s:
        """Return how many partitions are nearer to each query than the one of each of its rows, int64 (n, k).

        Args:
            codes: int8 (n, dim), the queries'.
            rows: int64 (n, k), rows of each query.
        """
        near = self._scores(codes)
        places = np.empty(near.shape, dtype=np.int64)
        order = np.argsort(-near, axis=1, kind="stable")
        np.put_along_axis(places, order, np.arange(near.shape[1])[np.newaxis], axis=1)
        return np.take_along_axis(places, np.searchsorted(self.starts, rows, side="right") - 1, axis=1)

    def save(self, path: Path) -> None:
        """Write the arrays to an .npz file in a folder that is not in use yet."""
        np.savez(path, centers=self.centers, weights=self.weights, starts=self.starts, scales=self.scales)

    def _scores(self, codes: Int8s) -> Float32s:
        """Return inner products of queries' codes, int8 (n, dim), with the means, float32 (n, partitions)."""
        dots = np.empty((len(codes), len(self.centers)), dtype=np.float32)
        _dot(codes, self.centers, dots)
        return dots * self.weights

    def _choose(self, near: Float32s, count: int, probes: int) -> Int64s:
        while probes < len(near):
            chosen = np.argpartition(near, -probes)[-probes:]
            if int((self.starts[chosen + 1] - self.starts[chosen]).sum()) >= count:
                return chosen
            probes *= 2
        return np.arange(len(near))


def make_partitions(
    vectors: Float32s | Float16s, codes: Int8s, rotation: Float32s, count: int
) -> tuple[Int64s, Partitions]:
    """Return an order of the rows, int64 (rows,), that puts those of a partition together, and the partitions in it.

    Args:
        vectors: float32 or float16 (rows, dim) unit vectors; they may be mapped, and are read in blocks.
        codes: int8 (rows, dim), theirs.
        rotation: float32 (dim, dim), the codes'.
        count: of partitions at most; those that no row is nearest to are left out.
    """
    generator = np.random.default_rng(0)
    chosen = np.sort(generator.choice(len(vectors), size=min(len(vectors), _SAMPLED * count), replace=False))
    sample: Float32s = vectors[chosen].astype(np.float32)
    centers = sample[generator.choice(len(sample), size=min(len(sample), count), replace=False)]
    for _ in range(_ROUNDS):
        centers = _means(sample, _assign(sample, centers))[2]
    order, starts, means = _means(vectors, _assign(vectors, centers))
    mean_codes = to_codes(means, rotation)
    weights = np.linalg.norm(means, axis=1) * _scales(mean_codes)
    return order, Partitions(mean_codes, weights, starts, _scales(codes)[order])


def open_partitions(path: Path, *, rows: int, dim: int, count: int) -> Partitions:
    """Return the partitions in a file whose hash the caller has checked.

    Raises:
        FormatError: they are not partitions of such a gallery.
    """
    expected = {
        "centers": f"int8 {(count, dim)}",
        "weights": f"float32 {(count,)}",
        "starts": f"int64 {(count + 1,)}",
        "scales": f"float32 {(rows,)}",
    }
    arrays = read_arrays(path, expected)
    for name, shape in expected.items():
        found = f"{arrays[name].dtype} {arrays[name].shape}"
        if found != shape or not np.isfinite(arrays[name]).all():
            raise FormatError(f"{path}: {name} is {found}, expected finite {shape}")
    starts = arrays["starts"]
    if starts[0] != 0 or starts[-1] != rows or (np.diff(starts) < 1).any():
        raise FormatError(f"{path}: starts do not rise from 0 to {rows}")
    return Partitions(**arrays)


def _scales(codes: Int8s) -> Float32s:
    scales = np.empty(len(codes), dtype=np.float32)
    for start in range(0, len(codes), _BLOCK_ROWS):
        block = codes[start : start + _BLOCK_ROWS].astype(np.float32)
        scales[start : start + _BLOCK_ROWS] = 1 / np.linalg.norm(block, axis=1)
    return scales


def _dot(queries: Int8s, codes: Int8s, out: Float32s) -> None:
    """Write inner products, float32 (n, m), of int8 (n, dim) with int8 (m, dim); exact up to 1,040 dimensions."""
    numkong.cdist(queries, codes, "dot", out=out)


def _assign(vectors: Float32s | Float16s, centers: Float32s) -> Int64s:
    """Return the nearest centre of each vector, int64 (n,), by distance."""
    half = 0.5 * (centers * centers).sum(axis=1)
    nearest = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS].astype(np.float32) @ centers.T  # (block, centers)
        nearest[start : start + _BLOCK_ROWS] = np.argmax(np.subtract(block, half, out=block), axis=1)
    return nearest


def _means(vectors: Float32s | Float16s, nearest: Int64s) -> tuple[Int64s, Int64s, Float32s]:
    """Return rows by partition, where each begins, and the mean of each, without those that are empty."""
    order = np.argsort(nearest, kind="stable")
    sizes = np.bincount(nearest)
    starts = np.concatenate([[0], np.cumsum(sizes[sizes > 0])])
    means = [vectors[order[start:end]].mean(axis=0, dtype=np.float32) for start, end in itertools.pairwise(starts)]
    return order, starts, np.stack(means)
