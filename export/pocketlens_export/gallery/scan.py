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
from pocketlens.decoders import FORMATS, SERVER, Limits
from pocketlens.errors import BadImage, FormatError
from pocketlens.model import PictureSpec
from pocketlens.picture import load_upright, preprocess, read_picture

_NEVER = frozenset({".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw"})
_BY_OPTION = {suffix: name for name, format in FORMATS.items() for suffix in format.suffixes}


@dataclass(frozen=True, slots=True)
class Loaded:
    """One picture file, decoded and ready for the image tower.

    Attributes:
        id: its path relative to the scanned folder, with forward slashes.
        sha256: hex, over its bytes.
        size_bytes: of the file.
        width, height: of the upright picture, in pixels.
        taken: the camera's local time, as "2024:07:31 18:30:00"; None where the picture does not say.
        pixels: uint8 (side, side, 3) RGB.
    """

    id: str
    sha256: str
    size_bytes: int
    width: int
    height: int
    taken: str | None
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


def load_all(
    folder: Path, paths: Sequence[Path], spec: PictureSpec, *, limits: Limits = SERVER, ahead: int = 32
) -> Iterator[Loaded | Skipped]:
    """Yield every path's outcome in order, while two threads read and decode at most `ahead` files in advance.

    Files are known by their suffixes, those of the formats in `limits`.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting = [pool.submit(_load, folder, path, spec, limits) for path in paths[:ahead]]
        for position in range(len(paths)):
            yield waiting.pop(0).result()
            if position + ahead < len(paths):
                waiting.append(pool.submit(_load, folder, paths[position + ahead], spec, limits))


def _is_bundle(folder: Path) -> bool:
    return (folder / "bundle.json").is_file() and (folder / "gallery" / "gallery.json").is_file()


def _load(folder: Path, path: Path, spec: PictureSpec, limits: Limits) -> Loaded | Skipped:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
        if stat.S_ISDIR(path.stat().st_mode):
            return Skipped(name, "linked folder", "links to folders are not followed")
        if path.suffix.lower() not in limits.suffixes():
            return _skipped_by_suffix(name, path.suffix)
        content = read_picture(path, limits=limits)
        upright = load_upright(content, side=spec.side, limits=limits)
    except UnicodeEncodeError:
        return Skipped(name.encode(errors="replace").decode(), "name is not text", "its name is not valid UTF-8")
    except BadImage as error:
        return Skipped(name, "unsupported format" if error.reason == "format" else error.reason, error.detail)
    except OSError as error:
        return Skipped(name, "unreadable", error.strerror or str(error))
    digest, pixels = hashlib.sha256(content).hexdigest(), preprocess(upright.image, spec)
    return Loaded(name, digest, len(content), upright.width, upright.height, upright.taken, pixels)


def _skipped_by_suffix(name: str, suffix: str) -> Skipped:
    if suffix.lower() in _BY_OPTION:
        return Skipped(name, "unsupported format", f"{suffix} is read with --formats {_BY_OPTION[suffix.lower()]}")
    reason = "unsupported format" if suffix.lower() in _NEVER else "not a picture"
    return Skipped(name, reason, f"its suffix is {suffix or 'missing'}")
