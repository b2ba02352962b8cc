"""Arrays too large for memory, in files that are filled from the first row to the last and go on after a stop."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketlens.errors import Refused
from pocketlens.files import write_file

_SAVE_SECONDS = 30.0
_FREE_SHARE = 0.9  # of the free disk space that the files may take


@dataclass(frozen=True, slots=True)
class Rows:
    """What one array is: its shape, the first axis being the rows, and its type."""

    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def size_bytes(self) -> int:
        """Size of the array."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class RowFiles:
    """Arrays of as many rows each, mapped to memory.

    Args:
        folder: of the files; made, or made anew unless it holds just such arrays.
        arrays: by name.
        wish: what helps when the disk is full, for the message.

    Raises:
        Refused: the disk has no room for the files.

    Attributes:
        arrays: the mapped arrays by name.
        done: how many rows they hold.
    """

    def __init__(self, folder: Path, arrays: Mapping[str, Rows], *, wish: str) -> None:
        self._folder = folder
        self._done_file = folder / "done.json"
        self._saved = time.monotonic()
        self.arrays: dict[str, np.memmap[Any, Any]] = {}
        done = self._open(arrays)
        if done is None:
            self._make(arrays, wish)
        self.done = done or 0

    def put(self, rows: range, values: Mapping[str, NDArray[Any]]) -> None:
        """Write the next rows; now and then, and at the end, they are counted as done."""
        assert rows.start == self.done
        for name, array in self.arrays.items():
            array[rows.start : rows.stop] = values[name]
        self.done = rows.stop
        at_end = all(len(array) == rows.stop for array in self.arrays.values())
        if at_end or time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Count what was written as done."""
        for array in self.arrays.values():
            array.flush()  # what is counted must be on the disk
        write_file(self._done_file, json.dumps({"rows": self.done}).encode())
        self._saved = time.monotonic()

    def _open(self, arrays: Mapping[str, Rows]) -> int | None:
        """Open the arrays and return how many rows they hold; None unless all is as it should be."""
        try:
            done = int(json.loads(self._done_file.read_bytes())["rows"])
            for name in arrays:  # a file that was cut short is refused here; opened to be written it would be filled up
                np.load(self._path(name), mmap_mode="r", allow_pickle=False)
            self.arrays = {name: np.load(self._path(name), mmap_mode="r+", allow_pickle=False) for name in arrays}
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole
            return None
        same = all(self.arrays[n].shape == a.shape and self.arrays[n].dtype == a.dtype for n, a in arrays.items())
        return done if same and all(0 <= done <= array.shape[0] for array in arrays.values()) else None

    def _make(self, arrays: Mapping[str, Rows], wish: str) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        needed, free = sum(array.size_bytes for array in arrays.values()), shutil.disk_usage(self._folder).free
        if needed > _FREE_SHARE * free:
            raise Refused(
                f"the arrays take {needed / 1e9:.1f} GB, and {self._folder} has {free / 1e9:.1f} GB free; {wish}"
            )
        for name, array in arrays.items():
            self.arrays[name] = np.lib.format.open_memmap(
                self._path(name), mode="w+", dtype=array.dtype, shape=array.shape
            )

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"
