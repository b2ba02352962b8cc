"""Two disjoint sets of pictures and of texts: what quantizing is steered on, and what only its proof sees.

Everything is ordered by sha256, of a picture's preprocessed pixels or of a text, so that a set depends on neither file
names nor the order of files or lines. Only exact copies are recognised: two sizes of one photo are two pictures, and
may lie on different sides.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens._types import Uint8s
from pocketlens.decoders import SERVER
from pocketlens.errors import BadImage, FormatError
from pocketlens.model import PictureSpec
from pocketlens.picture import load_pixels
from pocketlens_quantize.queries import sample_queries

SUFFIXES = SERVER.suffixes()  # those that `index` takes
MIN_A_SIDE = 64  # the worst 5 % of 64 are three; a tail of fewer says nothing
MAX_PICTURES = 512  # a side: they take 77 MB at 224 pixels
MAX_TEXTS = 1_000  # a side
MAX_TEXT_CHARACTERS = 10_000  # no query is that long: the file is probably not a list of queries
BUILT_IN_TEXTS = 512


@dataclass(frozen=True, slots=True, eq=False)
class PictureSet:
    """Different pictures in the order of their sha256.

    Attributes:
        names: paths relative to the folder they were read from, with forward slashes. Of copies, the first by name.
        pixels: uint8 (n, side, side, 3) RGB, what the image tower takes.
    """

    names: tuple[str, ...]
    pixels: Uint8s

    @property
    def sha256(self) -> str:
        """Hex sha256 over the sorted sha256 digests of the pictures' pixels; names do not enter."""
        return hashlib.sha256(b"".join(sorted(map(_hash_of, self.pixels)))).hexdigest()


@dataclass(frozen=True, slots=True)
class PictureSplit:
    """Pictures to steer by and pictures to prove with; `unreadable` counts the files that could not be decoded."""

    calibration: PictureSet
    measuring: PictureSet
    unreadable: int


@dataclass(frozen=True, slots=True)
class TextSet:
    """Different texts in the order of their sha256.

    Attributes:
        texts: queries, each with its white space collapsed.
        pictures: for each text the sorted names of the pictures that it describes, as the file gave them; often none.
    """

    texts: tuple[str, ...]
    pictures: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class TextSplit:
    """Texts to steer by and texts to prove with."""

    calibration: TextSet
    measuring: TextSet


def read_pictures(
    calibration: Path, measuring: Path | None, spec: PictureSpec, progress: Callable[[str], None]
) -> PictureSplit:
    """Return two disjoint sets of 64 to 512 pictures, each read from its folder or both from the one folder.

    Folders are searched recursively, without hidden files and folders. Of more pictures than fit, the first by sha256
    are taken.

    Args:
        calibration: the pictures to steer by; without a `measuring` folder, half of them are set aside to measure.
        measuring: a folder of other pictures to prove with.
        spec: the preprocessing of the tower that will see them.
        progress: called with one line for every picture file that cannot be decoded.

    Raises:
        FormatError: a folder is missing or holds too few pictures, or a picture is in both.
    """
    if measuring is None:
        found = _read_folder(calibration, spec, 2 * MAX_PICTURES, progress)
        wanted = f"{2 * MIN_A_SIDE}: {MIN_A_SIDE} that calibrate and {MIN_A_SIDE} that measure, or a folder for each"
        _check_count(found, 2 * MIN_A_SIDE, wanted)
        halves = _halves(found.names, MAX_PICTURES)
        return PictureSplit(found.chosen(halves[0]), found.chosen(halves[1]), found.unreadable)
    steering = _read_folder(calibration, spec, MAX_PICTURES, progress)
    proving = _read_folder(measuring, spec, MAX_PICTURES, progress)
    _check_count(steering, MIN_A_SIDE, f"{MIN_A_SIDE} that calibrate")
    _check_count(proving, MIN_A_SIDE, f"{MIN_A_SIDE} that measure")
    _check_disjoint(steering, proving)
    unreadable = steering.unreadable + proving.unreadable
    return PictureSplit(steering.chosen(sorted(steering.pixels)), proving.chosen(sorted(proving.pixels)), unreadable)


def read_texts(file: Path | None, pictures: PictureSplit | None) -> TextSplit:
    """Return two disjoint sets of at most 1,000 texts each, of a file's or of 512 built-in queries.

    A text that describes pictures goes to the side of the first that lies on one, so that captions keep their pictures.

    A file is UTF-8 with one query a line; blank lines are skipped. After a tab may stand the path of a picture that the
    query describes, relative to the folder of pictures; more lines with the same query name more pictures.

    Raises:
        FormatError: the file cannot be read, a line is not as described, or there are too few different texts.
    """
    if file is None:
        return _split_texts({query: set() for query in sample_queries(BUILT_IN_TEXTS)}, {})
    described: dict[str, set[str]] = {}
    for number, line in enumerate(_read_text(file).split("\n"), start=1):
        if line.strip():
            text, picture = _parse_line(line, f"{file}, line {number}")
            described.setdefault(text, set()).update([picture] if picture else [])
    if len(described) < 2 * MIN_A_SIDE:
        raise FormatError(
            f"{file}: found {len(described)} different texts, expected at least {2 * MIN_A_SIDE}: "
            f"{MIN_A_SIDE} that calibrate and {MIN_A_SIDE} that measure"
        )
    sides = {} if pictures is None else dict.fromkeys(pictures.calibration.names, 0)
    sides |= {} if pictures is None else dict.fromkeys(pictures.measuring.names, 1)
    labels = set().union(*described.values())
    if pictures is not None and labels and not labels & set(sides):
        example = min(labels)
        raise FormatError(
            f"{file}: none of its pictures is among those read, for example {example!r}; paths are relative"
        )
    return _split_texts(described, sides)


@dataclass(frozen=True, slots=True)
class _Found:
    """A folder's different pictures by the hash of their pixels: the names of all, the pixels of the first by hash."""

    folder: Path
    names: dict[bytes, str]
    pixels: dict[bytes, Uint8s]
    unreadable: int

    def chosen(self, hashes: Sequence[bytes]) -> PictureSet:
        pixels = np.stack([self.pixels[key] for key in hashes])  # n times (side, side, 3) -> (n, side, side, 3)
        return PictureSet(tuple(self.names[key] for key in hashes), pixels)


def _read_folder(folder: Path, spec: PictureSpec, most: int, progress: Callable[[str], None]) -> _Found:
    names: dict[bytes, str] = {}
    pixels: dict[bytes, Uint8s] = {}
    unreadable = 0
    for path in _picture_files(folder):
        try:
            picture = _load(path, spec)
        except BadImage as error:
            progress(str(error).encode(errors="replace").decode())  # its name may be no text
            unreadable += 1
            continue
        key = _hash_of(picture)
        if key not in names:
            names[key] = path.relative_to(folder).as_posix()
            pixels[key] = picture
            if len(pixels) > most:  # a folder may be larger than memory
                del pixels[max(pixels)]
    return _Found(folder, names, pixels, unreadable)


def _picture_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FormatError(f"{folder} is not a folder; expected a folder of pictures")
    found = []
    for root, folders, names in os.walk(folder):  # links to folders are not followed
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    pictures = [path for path in found if path.suffix.lower() in SUFFIXES]
    if not pictures:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise FormatError(f"{folder} holds no pictures: found {len(found)} other files, expected {suffixes}")
    return sorted(pictures, key=lambda path: path.relative_to(folder).as_posix())


def _load(path: Path, spec: PictureSpec) -> Uint8s:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise BadImage(str(path), "unreadable", "its name is not valid UTF-8") from error
    if not path.is_file():
        raise BadImage(str(path), "unreadable", "not a regular file")  # reading a pipe would wait forever
    return load_pixels(path, spec, limits=SERVER)


def _hash_of(pixels: Uint8s) -> bytes:
    return hashlib.sha256(pixels.tobytes()).digest()


def _check_count(found: _Found, least: int, wanted: str) -> None:
    if len(found.names) < least:
        raise FormatError(
            f"{found.folder}: found {len(found.names)} different readable pictures ({found.unreadable} unreadable), "
            f"expected at least {wanted}"
        )


def _check_disjoint(steering: _Found, proving: _Found) -> None:
    shared = sorted(steering.names.keys() & proving.names.keys())
    if shared:
        one, other = (found.folder / found.names[shared[0]] for found in (steering, proving))
        raise FormatError(
            "calibration and measuring pictures must be disjoint: "
            f"found {len(shared)} with the same pixels in both folders, such as {one} and {other}"
        )


def _halves(hashes: Iterable[bytes], most: int) -> tuple[list[bytes], list[bytes]]:
    """Return the first 2 * `most` hashes in order, cut in the middle."""
    chosen = sorted(hashes)[: 2 * most]
    middle = len(chosen) // 2
    return chosen[:middle], chosen[middle:]


def _read_text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise FormatError(f"{file} cannot be read: {error.strerror}; expected a file of one query a line") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise FormatError(f"{file}, line {number}: {content[error.start]:#04x} is not UTF-8") from error


def _parse_line(line: str, place: str) -> tuple[str, str]:
    text, *pictures = line.split("\t")
    if len(pictures) > 1:
        raise FormatError(f"{place}: found {len(pictures)} tabs, expected a query, or a query, a tab and a picture")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise FormatError(f"{place}: found {len(text)} characters, expected at most {MAX_TEXT_CHARACTERS}")
    text = " ".join(text.split())
    if not text:
        raise FormatError(f"{place}: found nothing before the tab, expected a query")
    return text, "".join(pictures).strip()


def _split_texts(described: Mapping[str, Iterable[str]], sides: Mapping[str, int]) -> TextSplit:
    """Split texts by their hash, but keep those that describe pictures on the pictures' side; `sides` is by picture."""
    free: dict[bytes, str] = {}
    halves: list[dict[bytes, str]] = [{}, {}]
    for text, pictures in described.items():
        key = hashlib.sha256(text.encode()).digest()
        placed = next((sides[picture] for picture in sorted(pictures) if picture in sides), None)
        (free if placed is None else halves[placed])[key] = text
    for half, keys in zip(halves, _halves(free, MAX_TEXTS), strict=True):
        half |= {key: free[key] for key in keys}
    calibration, measuring = (
        TextSet(
            tuple(half[key] for key in sorted(half)[:MAX_TEXTS]),
            tuple(tuple(sorted(described[half[key]])) for key in sorted(half)[:MAX_TEXTS]),
        )
        for half in halves
    )
    return TextSplit(calibration, measuring)
