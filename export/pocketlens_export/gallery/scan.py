"""What lies in a folder of pictures, in a fixed order, read and decoded ahead of the encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pocketlens._types import Uint8s
from pocketlens.decoders import SERVER, Limits
from pocketlens.errors import BadImage
from pocketlens.listing import Skipped as Skipped
from pocketlens.listing import list_files as list_files
from pocketlens.listing import skip_reason
from pocketlens.model import PictureSpec
from pocketlens.picture import load_upright, preprocess, read_picture


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


def _load(folder: Path, path: Path, spec: PictureSpec, limits: Limits) -> Loaded | Skipped:
    name = path.relative_to(folder).as_posix()
    return skip_reason(name, path, limits) or load_picture(
        name, lambda: read_picture(path, limits=limits), spec, limits
    )


def load_picture(id: str, read: Callable[[], bytes], spec: PictureSpec, limits: Limits) -> Loaded | Skipped:
    """Return a picture of the bytes that `read` gives, decoded and ready for the image tower, or why there is none."""
    try:
        content = read()
        upright = load_upright(content, side=spec.side, limits=limits)
    except BadImage as error:
        return Skipped(id, "unsupported format" if error.reason == "format" else error.reason, error.detail)
    except OSError as error:
        return Skipped(id, "unreadable", error.strerror or str(error))
    digest, pixels = hashlib.sha256(content).hexdigest(), preprocess(upright.image, spec)
    return Loaded(id, digest, len(content), upright.width, upright.height, upright.taken, pixels)


def read_span(path: str, start: int, size_bytes: int, limits: Limits) -> bytes:
    """Return a picture that is a stretch of a file.

    Raises:
        BadImage: it is too large, or the file ends before.
        OSError: the file cannot be read.
    """
    if size_bytes > limits.file_bytes:
        raise BadImage(path, "too large", f"{size_bytes} bytes, expected at most {limits.file_bytes}")
    with Path(path).open("rb") as file:
        file.seek(start)
        content = file.read(size_bytes)
    if len(content) < size_bytes:
        raise BadImage(path, "truncated", f"its archive ends after {len(content)} of its {size_bytes} bytes")
    return content
