"""Update files: what a later generation of a gallery has that an earlier one lacks, in one file.

A line with the length of the manifest, the manifest, then the contents of the files that it lists, one after the other.
Every byte is covered: the manifest is canonical and has its own hash, and so has each file. See docs/formats.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from pocketlens.errors import BadQuery, CorruptFile, FormatError
from pocketlens.files import check_file, new_file
from pocketlens.gallery import MANIFEST as GALLERY_MANIFEST
from pocketlens.gallery import GalleryManifest, open_manifest
from pocketlens.manifest import MAX_MANIFEST_BYTES, manifest_bytes, parse_manifest
from pocketlens.model import FileRecord
from pocketlens.segment_files import segment_file_names

FORMAT = "pocketlens-update"
VERSION = 1
_HEAD = re.compile(rb"pocketlens-update ([1-9][0-9]{0,7})\n")
_HEAD_BYTES = 32
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Generation:
    """One state of a gallery: its number, and the sha256 of its gallery.json."""

    number: int
    sha256: str


@dataclass(frozen=True, slots=True)
class UpdateManifest:
    """What an update file says of itself.

    Attributes:
        base: the generation that it leads on from.
        next: the one that it leads to.
        files: what follows the manifest, in this order: gallery.json, then the files of the segments since.
        self_sha256: over the manifest's bytes with this value empty.
    """

    base: Generation
    next: Generation
    files: dict[str, FileRecord]
    self_sha256: str


def write_update(gallery: Path, out: Path, *, since: int, manifest_sha256: str | None = None) -> UpdateManifest:
    """Write what leads from an earlier generation of a gallery to the one that lies in its folder.

    Args:
        gallery: the folder.
        out: the file; one that stands there goes.
        since: number of the earlier generation.
        manifest_sha256: what gallery.json must hash to, when a bundle vouches for it.

    Raises:
        BadQuery: the gallery does not continue such a generation.
        FormatError: it is no gallery (CorruptFile: a file differs from its record; NotWritten: the disk is full, …).
    """
    manifest = open_manifest(gallery, manifest_sha256=manifest_sha256)
    if str(since) not in manifest.previous:
        known = ", ".join(manifest.previous) or "none: it was made as a whole"
        raise BadQuery(
            f"{gallery}: generation {manifest.generation} does not continue generation {since}, only {known}; a device "
            "that holds another needs the whole bundle"
        )
    content = (gallery / GALLERY_MANIFEST).read_bytes()
    files = {GALLERY_MANIFEST: FileRecord(hashlib.sha256(content).hexdigest(), len(content))}
    files |= {name: manifest.files[name] for name in _files_since(manifest, since)}
    base = Generation(since, manifest.previous[str(since)])
    update = UpdateManifest(base, Generation(manifest.generation, files[GALLERY_MANIFEST].sha256), files, "")
    update = replace(update, self_sha256=_self_sha256(update))
    written = manifest_bytes(update, format=FORMAT, version=VERSION)
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_file(out) as file:
        file.write(b"%s %d\n" % (FORMAT.encode(), len(written)) + written)
        for name, record in files.items():
            check_file(gallery / name, sha256=record.sha256, size_bytes=record.size_bytes)
            with (gallery / name).open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    file.write(chunk)
    return update


class UpdateFile:
    """An update file whose every byte was checked. A context manager.

    Attributes:
        path: where it lies.
        manifest: what it says of itself.

    Raises:
        FormatError: it is no such file, or of an unknown version (CorruptFile: some of it was changed or is missing).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise FormatError(f"{path} cannot be read: {error.strerror}; expected an update file") from error
        try:
            self.manifest, self._start = self._read_manifest()
            for name in self.manifest.files:
                for _ in self.read(name):
                    pass
            if self._file.read(1):
                raise CorruptFile(path, found="more bytes than it lists", expected="its end")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> UpdateFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file that the update lists, in chunks.

        Raises:
            CorruptFile: at its end, when it differs from its record.
        """
        before = list(self.manifest.files.items())[: list(self.manifest.files).index(name)]
        self._file.seek(self._start + sum(record.size_bytes for _, record in before))
        record, digest = self.manifest.files[name], hashlib.sha256()
        left = record.size_bytes
        while chunk := self._file.read(min(left, _CHUNK_BYTES)):
            digest.update(chunk)
            left -= len(chunk)
            yield chunk
        if left or digest.hexdigest() != record.sha256:
            found = f"{left} bytes less" if left else f"sha256 {digest.hexdigest()[:16]}…"
            raise CorruptFile(self.path, found=f"{name} with {found}", expected=f"sha256 {record.sha256[:16]}…")

    def _read_manifest(self) -> tuple[UpdateManifest, int]:
        """Return the manifest and where the contents begin."""
        head = _HEAD.match(self._file.read(_HEAD_BYTES))
        if head is None:
            raise FormatError(f"{self.path} is no update file: it does not begin with {FORMAT} and a length")
        size_bytes = int(head[1])
        if size_bytes > MAX_MANIFEST_BYTES:
            raise CorruptFile(self.path, found=f"a manifest of {size_bytes} bytes", expected="a shorter one")
        self._file.seek(head.end())
        content = self._file.read(size_bytes)
        if len(content) < size_bytes:
            raise CorruptFile(self.path, found=f"{len(content)} bytes of its manifest", expected=f"{size_bytes}")
        manifest = parse_manifest(content, self.path, UpdateManifest, format=FORMAT, version=VERSION)
        written = manifest_bytes(manifest, format=FORMAT, version=VERSION)
        if written != content or _self_sha256(manifest) != manifest.self_sha256:
            raise CorruptFile(self.path, found="other bytes", expected=f"sha256 {manifest.self_sha256[:16]}…")
        if any(record.size_bytes < 0 for record in manifest.files.values()):
            raise FormatError(f"{self.path}: a file has a negative size")
        if next(iter(manifest.files), "") != GALLERY_MANIFEST:
            raise FormatError(f"{self.path}: its first file is not {GALLERY_MANIFEST}")
        return manifest, head.end() + size_bytes


def _files_since(manifest: GalleryManifest, since: int) -> list[str]:
    return [
        name
        for number, segment in enumerate(manifest.segments)
        if segment.generation > since
        for name in segment_file_names(number, segment, manifest.rescore, manifest.attributes)
    ]


def _self_sha256(manifest: UpdateManifest) -> str:
    blank = replace(manifest, self_sha256="")
    return hashlib.sha256(manifest_bytes(blank, format=FORMAT, version=VERSION)).hexdigest()
