"""What a model makes of pictures and texts, encoded once: every vector is kept under the hash of its content.

A vector depends on the graph, on what is done to its input before, and on onnxruntime. All of that is in the name of
the file that keeps it, and the content's hash is its key inside: whatever changes is encoded again, and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort

from pocketlens._types import Float32s
from pocketlens.decoders import SERVER
from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import FormatError
from pocketlens.files import read_arrays, sha256_of, write_file
from pocketlens.model import Model, PictureSpec
from pocketlens_export.gallery.scan import Loaded, Skipped, list_files, load_all

Progress = Callable[[str, int, int], None]
"""Told of a stage: its name, how much is done, and of how much."""

_CODE = 1  # to be raised with every change to what lies between a file and its vector
_FOLDER = "embeddings"
_BATCH = 32
_SAVE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The different pictures of some folders, in their order, and their vectors.

    Attributes:
        vectors: of length 1, float32 (n, dim).
        ids: path below the folder, with forward slashes; begins with the folder's name where there are several.
        sha256: hex, over the file's bytes.
        paths: the files.
        duplicates: files that were left out because an earlier one has the same bytes.
        skipped: files that no picture could be read from, counted by reason.
    """

    vectors: Float32s
    ids: tuple[str, ...]
    sha256: tuple[str, ...]
    paths: tuple[Path, ...]
    duplicates: int
    skipped: dict[str, int]


class VectorStore:
    """Vectors of one width by the sha256 of what they were made of, in one file below a cache.

    Args:
        cache: the cache's folder, made when first written to; it may be removed at any time.
        made_by: all that vectors depend on beside what they were made of.
        dim: their width.
    """

    def __init__(self, cache: Path, made_by: object, dim: int) -> None:
        described = json.dumps([_CODE, ort.__version__, dim, made_by], sort_keys=True)
        self._path = cache / _FOLDER / f"{hashlib.sha256(described.encode()).hexdigest()[:32]}.npz"
        self._rows: dict[str, Float32s] = {}
        self._read(dim)
        self._saved, self._written = time.monotonic(), len(self._rows)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._rows

    def vectors(self, sha256: Iterable[str]) -> Float32s:
        """Return the vectors of hashes that are there, float32 (n, dim)."""
        return np.stack([self._rows[key] for key in sha256])

    def add(self, sha256: Sequence[str], vectors: Float32s, names: Sequence[str]) -> None:
        """Keep n vectors; about once a minute they are written, for a run that is stopped to go on from.

        Args:
            sha256: what each goes by.
            vectors: float32 (n, dim).
            names: what each was made of, for people.

        Raises:
            FormatError: one is not finite.
        """
        for name, vector in zip(names, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise FormatError(f"the tower gives NaN or infinity for {name[:80]!r}, expected a vector of length 1")
        self._rows.update(zip(sha256, vectors, strict=True))
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is not written yet."""
        if self._written == len(self._rows):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        keys = np.frombuffer(bytes.fromhex("".join(self._rows)), dtype=np.uint8).reshape(-1, 32)  # (n, 32)
        buffer = io.BytesIO()
        np.savez(buffer, keys=keys, vectors=np.stack(list(self._rows.values())))
        write_file(self._path, buffer.getvalue())
        self._saved, self._written = time.monotonic(), len(self._rows)

    def _read(self, dim: int) -> None:
        if not self._path.is_file():
            return
        try:
            arrays = read_arrays(self._path, ["keys", "vectors"])
        except FormatError:  # not a whole file: it is made again
            self._path.unlink()
            return
        keys, vectors = arrays["keys"], arrays["vectors"]
        if keys.shape == (len(vectors), 32) and vectors.shape == (len(keys), dim):
            self._rows = {key.tobytes().hex(): vector for key, vector in zip(keys, vectors, strict=True)}


def encode_pictures(
    model: Model,
    pictures: Path | Sequence[Path],
    *,
    cache: Path,
    progress: Progress,
    threads: int | None = None,
) -> Embeddings:
    """Return the vectors of every different picture below one or more folders.

    Which pictures there are does not depend on the model: two models give the same rows.

    Args:
        model: an opened model folder with an image tower.
        pictures: a folder, or several.
        cache: folder that vectors are kept below.
        progress: told of reading and encoding.
        threads: of onnxruntime.

    Raises:
        FormatError: a path is no folder, no picture can be read, or the tower gives NaN or infinity for one.
        MissingPart: the model has no image tower.
    """
    folders = [pictures] if isinstance(pictures, Path) else list(pictures)
    encoder = ImageEncoder(model, threads=threads)
    store = open_picture_store(model, encoder.spec, cache)
    found = _Found()
    try:
        for folder, name in zip(folders, _prefixes(folders), strict=True):
            _encode_folder(folder, name, encoder, store, found, _Stage(model.manifest.name, progress))
    finally:
        store.save()
    if not found.paths:
        named = ", ".join(map(str, folders))
        raise FormatError(f"{named}: no picture could be read, of {sum(found.skipped.values())} files")
    sha256 = tuple(found.paths)
    ids, paths = zip(*found.paths.values(), strict=True)
    return Embeddings(store.vectors(sha256), ids, sha256, paths, found.duplicates, dict(sorted(found.skipped.items())))


def encode_texts(
    model: Model, texts: Sequence[str], *, cache: Path, progress: Progress, threads: int | None = None
) -> Float32s:
    """Return the vectors of texts, float32 (n, dim), of length 1.

    Raises:
        FormatError: the tower gives NaN or infinity for a text.
        MissingPart: the model has no text tower or no tokenizer.
    """
    encoder = TextEncoder(model, threads=threads)
    store = VectorStore(cache, _text_key(model), encoder.dim)
    by_key = {text_sha256(text): text for text in texts}
    missing = sorted((key for key in by_key if key not in store), key=lambda key: (len(by_key[key]), key))
    try:  # texts of like length need little padding
        for start in range(0, len(missing), _BATCH):
            keys = missing[start : start + _BATCH]
            vectors = encoder.encode([by_key[key] for key in keys])
            store.add(keys, vectors, [by_key[key] for key in keys])
            progress(f"{model.manifest.name}: encoding texts", start + len(keys), len(missing))
    finally:
        store.save()
    return store.vectors(map(text_sha256, texts))


def open_picture_store(model: Model, spec: PictureSpec, cache: Path) -> VectorStore:
    """Return the store of what a model's image tower, which `spec` is of, makes of pictures."""
    made_by = ["picture", model.manifest.files[spec.file].sha256, spec.side, spec.mode, spec.interpolation]
    return VectorStore(cache, made_by, model.manifest.space.dim)


def text_sha256(text: str) -> str:
    """Return the hash a text goes by, hex."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@dataclass(slots=True)
class _Found:
    """Pictures by hash, each with the id and the path of its first file, and what was left out."""

    paths: dict[str, tuple[str, Path]] = field(default_factory=dict)
    duplicates: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, sha256: str, name: str, path: Path) -> None:
        if sha256 in self.paths:
            self.duplicates += 1
        else:
            self.paths[sha256] = (name, path)


@dataclass(frozen=True, slots=True)
class _Stage:
    model: str
    progress: Progress

    def tell(self, what: str, done: int, total: int) -> None:
        self.progress(f"{self.model}: {what}", done, total)


def _encode_folder(
    folder: Path, prefix: str, encoder: ImageEncoder, store: VectorStore, found: _Found, stage: _Stage
) -> None:
    """Encode what is not in the store, and note every file of a folder, in order."""
    paths = list_files(folder)
    digests: list[str | None] = []
    for path in paths:
        digests.append(_digest(path))
        stage.tell(f"reading {folder.name}", len(digests), len(paths))
    new: dict[str | None, Path] = {}  # one file of each content
    strange = []  # files that cannot be hashed: `load_all` finds out why
    for path, digest in zip(paths, digests, strict=True):
        if digest is None:
            strange.append(path)
        elif digest not in store:
            new.setdefault(digest, path)
    todo = [*new.values(), *strange]
    outcomes = _told(load_all(folder, todo, encoder.spec), f"encoding {folder.name}", len(todo), stage)
    reasons = dict(zip(todo, _encode(outcomes, encoder, store), strict=True))
    unreadable = {digest: reasons[path] for digest, path in new.items()}
    for path, digest in zip(paths, digests, strict=True):
        reason = reasons[path] if digest is None else unreadable.get(digest)
        if reason is not None:
            found.skipped[reason] += 1
        elif digest is not None:
            found.add(digest, prefix + path.relative_to(folder).as_posix(), path)


def _encode(outcomes: Iterator[Loaded | Skipped], encoder: ImageEncoder, store: VectorStore) -> list[str | None]:
    """Put vectors into the store, and return for every outcome why there is none, or None."""
    reasons: list[str | None] = []
    waiting: list[Loaded] = []
    for outcome in outcomes:
        reasons.append(outcome.reason if isinstance(outcome, Skipped) else None)
        if isinstance(outcome, Loaded):
            waiting.append(outcome)
        if len(waiting) == _BATCH:
            _encode_batch(waiting, encoder, store)
            waiting = []
    if waiting:
        _encode_batch(waiting, encoder, store)
    return reasons


def _encode_batch(batch: Sequence[Loaded], encoder: ImageEncoder, store: VectorStore) -> None:
    vectors = encoder.encode_pixels(np.stack([each.pixels for each in batch]))
    store.add([each.sha256 for each in batch], vectors, [each.id for each in batch])


def _told(outcomes: Iterator[Loaded | Skipped], what: str, total: int, stage: _Stage) -> Iterator[Loaded | Skipped]:
    for done, outcome in enumerate(outcomes, start=1):
        yield outcome
        stage.tell(what, done, total)


def _digest(path: Path) -> str | None:
    """Return a file's hash; None where it is no file that could be a picture."""
    try:
        path.name.encode()
        usable = (
            path.suffix.lower() in SERVER.suffixes() and path.is_file() and path.stat().st_size <= SERVER.file_bytes
        )
        return sha256_of(path) if usable else None
    except (OSError, UnicodeEncodeError):
        return None


def _prefixes(folders: Sequence[Path]) -> list[str]:
    """Return what ids of each folder's files begin with: nothing, or different names."""
    if len(folders) == 1:
        return [""]
    names = [folder.name or str(folder) for folder in folders]
    seen: Counter[str] = Counter()
    prefixes = []
    for name in names:
        seen[name] += 1
        prefixes.append(f"{name}/" if seen[name] == 1 else f"{name} ({seen[name]})/")
    return prefixes


def _text_key(model: Model) -> list[object]:
    spec = model.manifest.text
    assert spec is not None and spec.tokenizer is not None  # TextEncoder has looked
    files = model.manifest.files
    about = [spec.clean, spec.context_length, spec.pad_id, spec.end_id, spec.trim]
    return ["text", files[spec.file].sha256, files[spec.tokenizer].sha256, *about]
