from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlens.errors import Refused
from pocketlens_export.row_files import RowFiles, Rows

ARRAYS = {"pixels": Rows((5, 2, 3), np.uint8), "vectors": Rows((5, 4), np.float16)}
PIXELS = np.arange(30, dtype=np.uint8).reshape(5, 2, 3)
VECTORS = np.linspace(-1, 1, 20).astype(np.float16).reshape(5, 4)


def put(files: RowFiles, start: int, stop: int) -> None:
    files.put(range(start, stop), {"pixels": PIXELS[start:stop], "vectors": VECTORS[start:stop]})


def test_rows_are_there_again(tmp_path: Path) -> None:
    files = RowFiles(tmp_path / "rows", ARRAYS, wish="")
    assert files.done == 0
    put(files, 0, 3)
    put(files, 3, 5)
    again = RowFiles(tmp_path / "rows", ARRAYS, wish="")
    assert again.done == 5
    np.testing.assert_array_equal(again.arrays["pixels"], PIXELS)
    np.testing.assert_array_equal(again.arrays["vectors"], VECTORS)
    assert again.arrays["pixels"].dtype == np.uint8


def test_only_saved_rows_count(tmp_path: Path) -> None:
    files = RowFiles(tmp_path / "rows", ARRAYS, wish="")
    put(files, 0, 2)
    files.save()
    put(files, 2, 4)  # a power cut before these were saved
    assert RowFiles(tmp_path / "rows", ARRAYS, wish="").done == 2


@pytest.mark.parametrize("harm", ["shape", "type", "cut", "count", "no count"])
def test_what_is_not_whole_is_made_anew(tmp_path: Path, harm: str) -> None:
    files = RowFiles(tmp_path / "rows", ARRAYS, wish="")
    put(files, 0, 5)
    arrays = dict(ARRAYS)
    if harm == "shape":
        arrays["vectors"] = Rows((5, 3), np.float16)
    elif harm == "type":
        arrays["vectors"] = Rows((5, 4), np.float32)
    elif harm == "cut":
        path = tmp_path / "rows" / "pixels.npy"
        path.write_bytes(path.read_bytes()[:-10])
    elif harm == "count":
        (tmp_path / "rows" / "done.json").write_text('{"rows": 6}')
    else:
        (tmp_path / "rows" / "done.json").write_text('{"rows": nu')
    again = RowFiles(tmp_path / "rows", arrays, wish="")
    assert again.done == 0
    assert not again.arrays["pixels"].any()


def test_a_full_disk_is_noticed_before(tmp_path: Path) -> None:
    huge = {"pixels": Rows((2**40, 2**20), np.uint8)}
    with pytest.raises(Refused, match=r"take 1152921504.6 GB, and .* GB free; fewer of them help"):
        RowFiles(tmp_path / "rows", huge, wish="fewer of them help")
