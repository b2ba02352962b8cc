"""What lies in a folder of pictures, in a fixed order, read and decoded ahead of the encoder."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pocketlens._types import Uint8s
from pocketlens.errors import BadImage, FormatError
from pocketlens.model import PictureSpec
from pocketlens.picture import decode, preprocess

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
UNSUPPORTED = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw"})
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
    """Return the files below `folder`, sorted by relative path.

    Hidden files and folders and bundles are left out. A linked folder is listed, to be counted, and not followed.

    Raises:
        FormatError: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder} is not a folder; expected a folder of pictures")
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_bundle(Path(root, name))]
        links = [name for name in folders if Path(root, name).is_symlink()]
        found += [Path(root, name) for name in (*names, *links) if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def load_all(folder: Path, paths: Sequence[Path], spec: PictureSpec, *, ahead: int = 32) -> Iterator[Loaded | Skipped]:
    """Yield every path's outcome in order, while two threads read and decode at most `ahead` files in advance."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting = [pool.submit(_load, folder, path, spec) for path in paths[:ahead]]
        for position in range(len(paths)):
            yield waiting.pop(0).result()
            if position + ahead < len(paths):
                waiting.append(pool.submit(_load, folder, paths[position + ahead], spec))


def _is_bundle(folder: Path) -> bool:
    return (folder / "bundle.json").is_file() and (folder / "gallery" / "gallery.json").is_file()


def _load(folder: Path, path: Path, spec: PictureSpec) -> Loaded | Skipped:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return Skipped(name, "linked folder", "links to folders are not followed")
        if path.suffix.lower() not in SUFFIXES:
            reason = "unsupported format" if path.suffix.lower() in UNSUPPORTED else "not a picture"
            return Skipped(name, reason, f"its suffix is {path.suffix or 'missing'}")
        if not stat.S_ISREG(status.st_mode):
            return Skipped(name, "unreadable", "not a regular file")  # reading a pipe would wait forever
        if status.st_size > MAX_FILE_BYTES:
            return Skipped(name, "too large", f"{status.st_size} bytes, expected at most {MAX_FILE_BYTES}")
        content = path.read_bytes()
        image = decode(content)
    except UnicodeEncodeError:
        return Skipped(name.encode(errors="replace").decode(), "name is not text", "its name is not valid UTF-8")
    except BadImage as error:
        return Skipped(name, "unreadable", error.reason)
    except OSError as error:
        return Skipped(name, "unreadable", error.strerror or str(error))
    return Loaded(name, hashlib.sha256(content).hexdigest(), image.width, image.height, preprocess(image, spec))
