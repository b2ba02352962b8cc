"""What lies in a folder of pictures, in a fixed order, read and decoded ahead of the encoder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pocketlens._types import Uint8s
from pocketlens.errors import BadImage, FormatError
from pocketlens.model import PictureSpec
from pocketlens.picture import decode, preprocess, upright_size

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_FILE_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """One picture file, decoded and ready for the image tower.

    Attributes:
        id: its path relative to the scanned folder, with forward slashes.
        sha256: hex, over its bytes.
        width, height: of the upright picture, in pixels.
        pixels: uint8 (side, side, 3) RGB.
    """

    id: str
    sha256: str
    width: int
    height: int
    pixels: Uint8s


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not indexed: `reason` is a short fixed phrase that is counted, `detail` says more."""

    id: str
    reason: str
    detail: str


def list_files(folder: Path) -> list[Path]:
    """Return the files below `folder`, sorted by relative path; hidden files and folders are left out.

    Raises:
        FormatError: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder} is not a folder; expected a folder of pictures")
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def load_all(folder: Path, paths: Sequence[Path], spec: PictureSpec, *, ahead: int = 32) -> Iterator[Loaded | Skipped]:
    """Yield every path's outcome in order, while two threads read and decode at most `ahead` files in advance."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting = [pool.submit(_load, folder, path, spec) for path in paths[:ahead]]
        for position in range(len(paths)):
            yield waiting.pop(0).result()
            if position + ahead < len(paths):
                waiting.append(pool.submit(_load, folder, paths[position + ahead], spec))


def _load(folder: Path, path: Path, spec: PictureSpec) -> Loaded | Skipped:
    name = path.relative_to(folder).as_posix()
    if path.suffix.lower() not in SUFFIXES:
        return Skipped(name, "not a picture", f"its suffix is {path.suffix or 'missing'}")
    try:
        name.encode()
        if path.stat().st_size > MAX_FILE_BYTES:
            return Skipped(name, "too large", f"{path.stat().st_size} bytes, expected at most {MAX_FILE_BYTES}")
        content = path.read_bytes()
        image = decode(content)
        width, height = upright_size(content)
    except UnicodeEncodeError:
        return Skipped(name.encode(errors="replace").decode(), "name is not text", "its name is not valid UTF-8")
    except BadImage as error:
        return Skipped(name, "unreadable", error.reason)
    except OSError as error:
        return Skipped(name, "unreadable", error.strerror or str(error))
    return Loaded(name, hashlib.sha256(content).hexdigest(), width, height, preprocess(image, spec))
