"""Arrays that take long to make, kept from one training to the next; the folder may be removed at any time."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s
from pocketlens.files import write_file
from pocketlens_export.fit.recipe import Memory

_CODE = 1  # to be raised with every change to the code that makes remembered arrays


def remember_in(folder: Path, *, salt: str) -> Memory:
    """Return a function that makes an array unless a file of it is in the folder.

    Args:
        folder: is made when first written to.
        salt: what every array depends on beside what it is asked for by.
    """

    def remember(key: Sequence[object], make: Callable[[], Float32s]) -> Float32s:
        path = folder / f"{_name(salt, key)}.npy"
        if path.is_file():
            try:
                found: Float32s = np.load(path, allow_pickle=False)
            except (ValueError, OSError, EOFError):  # not a whole file: it is made again
                path.unlink()
            else:
                return found
        made = make()
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, made)
        write_file(path, buffer.getvalue())
        return made

    return remember


def _name(salt: str, key: Sequence[object]) -> str:
    digest = hashlib.sha256(f"{_CODE} {salt}".encode())
    for part in key:
        content = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:32]
