"""What a network is trained on: texts from files, pictures as unit vectors, each split by the hash of its content."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlens._types import Float32s, Int64s
from pocketlens.encoder import ImageEncoder
from pocketlens.errors import EncoderMismatch, FormatError
from pocketlens.files import sha256_of
from pocketlens.gallery import MANIFEST as GALLERY_MANIFEST
from pocketlens.gallery import Gallery
from pocketlens.model import Model
from pocketlens_export.fit.keywords import clean_caption
from pocketlens_export.gallery.scan import Loaded, list_files, load_all

HELD_OUT_ONE_IN = 20
MAX_TEXT_CHARACTERS = 4_096  # what the runtime reads of a text
_BATCH = 32
_BYTE_ORDER_MARK = "\ufeff"  # also between files that were put together
_SUFFIXES = (".txt", ".tsv", ".txt.gz", ".tsv.gz")

Progress = Callable[[str, int, int], None]
"""Told of a stage: its name, how much is done, and of how much."""


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Different texts and pictures; the held-out twentieth of each is never trained on.

    Attributes:
        texts, held_texts: cleaned captions, in the order of the files.
        pictures, held_pictures: unit vectors, float32 (n, dim).
        sha256: of every file or folder, by name.
    """

    texts: tuple[str, ...]
    held_texts: tuple[str, ...]
    pictures: Float32s
    held_pictures: Float32s
    sha256: dict[str, str]


def read_data(paths: Sequence[Path], model: Model, *, progress: Progress, threads: int | None = None) -> Data:
    """Return what lies at `paths`: text files, folders of pictures, galleries and bundles of the model's space.

    Texts are cleaned before they are compared and split: two that are trained on as one must not be on both sides.

    Raises:
        FormatError: a path is none of these, or holds nothing; the message names file and line.
        EncoderMismatch: a gallery is of another space.
    """
    texts: dict[str, None] = {}
    vectors: list[Float32s] = [np.zeros((0, model.manifest.space.dim), dtype=np.float32)]
    sha256: dict[str, str] = {}
    for path in paths:
        if path.is_dir():
            found, digest = _read_folder(path, model, progress, threads)
            vectors.append(found)
        else:
            texts.update(dict.fromkeys(filter(None, map(clean_caption, read_texts(path)))))
            digest = sha256_of(path)
        sha256[_free_name(path.name or str(path), sha256)] = digest
    held = held_out([text.encode() for text in texts])
    pictures = _different(np.concatenate(vectors))
    held_pictures = held_out([_key(vector) for vector in pictures])
    return Data(
        texts=tuple(text for text, out in zip(texts, held, strict=True) if not out),
        held_texts=tuple(text for text, out in zip(texts, held, strict=True) if out),
        pictures=pictures[~held_pictures],
        held_pictures=pictures[held_pictures],
        sha256=sha256,
    )


def read_texts(path: Path) -> list[str]:
    """Return the texts of a file, one a line; see `read_lines`."""
    return [text for _, text in read_lines(path)]


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return line number and text of a file's texts, white space collapsed; of a .tsv the first column.

    Lines that are empty or start with `#` are passed over; a byte order mark is dropped wherever it stands.

    Raises:
        FormatError: it is no such file, is not UTF-8, a line is too long or holds NUL, or there is no text.
    """
    name = path.name.lower()
    if not name.endswith(_SUFFIXES):
        raise FormatError(f"{path} is neither a folder nor a file of texts; expected {', '.join(_SUFFIXES)}")
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if name.endswith(".gz") else content).splitlines()
    except (OSError, EOFError) as error:  # gzip raises both
        raise FormatError(f"{path} cannot be read: {error}") from error
    texts = []
    for number, line in enumerate(lines, start=1):
        text = _line(path, number, line, is_table=".tsv" in name)
        if text and not text.startswith("#"):
            texts.append((number, text))
    if not texts:
        raise FormatError(f"{path} holds no text; expected one a line")
    return texts


def _line(path: Path, number: int, line: bytes, *, is_table: bool) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: line {number} is not UTF-8: {error}") from error
    text = " ".join((text.split("\t")[0] if is_table else text).replace(_BYTE_ORDER_MARK, "").split())
    if "\0" in text:
        raise FormatError(f"{path}: line {number} holds NUL, which no text does; expected UTF-8")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise FormatError(f"{path}: line {number} has {len(text)} characters, expected at most {MAX_TEXT_CHARACTERS}")
    return text


def held_out(contents: Sequence[bytes]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which of n contents are held out, bool (n,): those whose sha256 falls into one part of twenty.

    So a text stays on its side whatever else is in the file. Of two or more contents one at least is held out.
    """
    keys = np.array([int.from_bytes(hashlib.sha256(content).digest()[:8]) for content in contents], dtype=np.uint64)
    out = keys % np.uint64(HELD_OUT_ONE_IN) == 0
    if len(keys) > 1 and not out.any():
        out[np.argmin(keys)] = True
    if len(keys) > 1 and out.all():
        out[np.argmin(keys)] = False
    return np.asarray(out, dtype=np.bool_)


def _read_folder(path: Path, model: Model, progress: Progress, threads: int | None) -> tuple[Float32s, str]:
    for folder in (path, path / "gallery"):
        if (folder / GALLERY_MANIFEST).is_file():
            return _read_gallery(folder, model), sha256_of(folder / GALLERY_MANIFEST)
    return _encode_folder(path, model, progress, threads)


def _read_gallery(path: Path, model: Model) -> Float32s:
    with closing(Gallery.open(path)) as gallery:
        space, expected = gallery.manifest.space, model.manifest.space
        if space != expected:
            raise EncoderMismatch(f"{path} is a gallery of space {space.id}, expected the model's, {expected.id}")
        return gallery.index.vectors(gallery.index.rows)


def _encode_folder(path: Path, model: Model, progress: Progress, threads: int | None) -> tuple[Float32s, str]:
    encoder = ImageEncoder(model, threads=threads)
    paths = list_files(path)
    digest = hashlib.sha256()
    vectors: list[Float32s] = []
    waiting: list[Loaded] = []
    for done, loaded in enumerate(load_all(path, paths, encoder.spec), start=1):
        if isinstance(loaded, Loaded):
            waiting.append(loaded)
            digest.update(bytes.fromhex(loaded.sha256))
        if waiting and (len(waiting) == _BATCH or done == len(paths)):
            vectors.append(encoder.encode_pixels(np.stack([each.pixels for each in waiting])))
            waiting = []
        progress(f"encoding {path.name}", done, len(paths))
    if not vectors:
        raise FormatError(f"{path} holds no picture that can be read, and is no gallery or bundle")
    return np.concatenate(vectors), digest.hexdigest()


def _different(vectors: Float32s) -> Float32s:
    keys = [_key(vector) for vector in vectors]
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    rows: Int64s = np.array(sorted(first.values()), dtype=np.int64)
    return vectors[rows]


def _key(vector: Float32s) -> bytes:
    return vector.astype("<f2").tobytes()  # the last bits of a float32 vector depend on the number of threads


def _free_name(name: str, taken: dict[str, str]) -> str:
    count = 1
    free = name
    while free in taken:
        count += 1
        free = f"{name} ({count})"
    return free
