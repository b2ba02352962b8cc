"""Model folders made from other ones: their files copied, their manifest written over what is there now."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from pocketlens.files import sha256_of
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, MANIFEST, VERSION, FileRecord, Inversion, Model, ModelManifest


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


def seal_inversion(
    folder: Path, source: ModelManifest, recipe: str, made: Inversion, quality: Mapping[str, float]
) -> ModelManifest:
    """Write the manifest of a folder that has got an inversion network, and return it.

    Args:
        folder: with every file.
        source: its manifest before.
        recipe: name of the network.
        made: its entry.
        quality: its figures, without the prefix `inversion_<recipe>_` that they get; earlier ones go.
    """
    prefix = f"inversion_{recipe}_"
    kept = {key: value for key, value in source.quality.items() if not key.startswith(prefix)}
    return seal(folder, dataclasses.replace(
        source,
        inversion={**source.inversion, recipe: made},
        quality=kept | {f"{prefix}{key}": value for key, value in quality.items()},
        made_with=source.made_with | {"torch": version("torch"), "onnx": version("onnx")},
    ))  # fmt: skip
