"""Model folders made from other ones: their files copied, their manifest written over what is there now."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pocketlens.files import sha256_of
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, MANIFEST, VERSION, FileRecord, Model, ModelManifest


def copy_files(source: Model, folder: Path) -> None:
    """Copy every file of a model folder but its manifest, each after a check of its hash."""
    for name in source.manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.file(name).read_bytes())


def seal(folder: Path, manifest: ModelManifest) -> ModelManifest:
    """Write a manifest that records every file of the folder, and return it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in names}
    manifest = dataclasses.replace(manifest, files=files)
    write_manifest(folder / MANIFEST, manifest, format=FORMAT, version=VERSION)
    return manifest
