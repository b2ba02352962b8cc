"""The bundle: a gallery and the query towers that fit it, under one root of trust.

bundle/
  bundle.json     format, space, hashes of the three manifests and of itself
  gallery/        a gallery folder
  text/           a model folder with a text tower alone      optional
  image/          a model folder with an image tower alone    optional

Towers stand apart because they may come from two models of one space: a light image tower, the heavy model's text.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pocketlens.errors import CorruptFile, EncoderMismatch, MissingPart
from pocketlens.files import check_file, sha256_of, share_file
from pocketlens.gallery import MANIFEST as GALLERY_MANIFEST
from pocketlens.gallery import open_manifest
from pocketlens.manifest import manifest_bytes, read_manifest, write_manifest
from pocketlens.model import FORMAT as MODEL_FORMAT
from pocketlens.model import MANIFEST as MODEL_MANIFEST
from pocketlens.model import VERSION as MODEL_VERSION
from pocketlens.model import Model, Space

FORMAT = "pocketlens-bundle"
VERSION = 1
MANIFEST = "bundle.json"
Tower = Literal["text", "image"]


@dataclass(frozen=True, slots=True)
class BundleManifest:
    """bundle.json.

    Attributes:
        space: the embedding space that gallery and towers share.
        gallery: sha256 of gallery/gallery.json.
        text: sha256 of text/model.json, or None without a text tower.
        image: sha256 of image/model.json, or None without an image tower.
        self_sha256: over this file's bytes with this value empty.
    """

    space: Space
    gallery: str
    text: str | None
    image: str | None
    self_sha256: str


def read_bundle(path: Path) -> BundleManifest:
    """Return the parsed bundle.json of a folder.

    Raises:
        FormatError: not a bundle of a known version, or a field is wrong.
        CorruptFile: a byte of bundle.json was changed.
    """
    manifest_path = path / MANIFEST
    manifest = read_manifest(manifest_path, BundleManifest, format=FORMAT, version=VERSION)
    written = manifest_bytes(manifest, format=FORMAT, version=VERSION)  # also tells whitespace from the canonical form
    if written != manifest_path.read_bytes() or _self_sha256(manifest) != manifest.self_sha256:
        raise CorruptFile(manifest_path, found="other bytes", expected=f"sha256 {manifest.self_sha256[:16]}…")
    return manifest


def add_tower(bundle: Path, tower: Tower, model: Model) -> None:
    """Copy one tower of a model, with what it needs, into the folder of a bundle that is being made.

    Raises:
        FormatError: the model has no such tower.
        CorruptFile: a file of the model differs from its record.
    """
    manifest = model.manifest.only(tower)
    folder = bundle / tower
    folder.mkdir()
    for name, record in manifest.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(model.file(name), folder / name)
        check_file(folder / name, sha256=record.sha256, size_bytes=record.size_bytes)
    write_manifest(folder / MODEL_MANIFEST, manifest, format=MODEL_FORMAT, version=MODEL_VERSION)


def share_towers(old: Path, bundle: Path) -> None:
    """Give the folder of a bundle that is being made the towers of another on the same disk, as they are.

    Raises:
        FormatError: they are not what the other one's bundle.json says (CorruptFile: a model.json differs).
    """
    manifest = read_bundle(old)
    for tower, sha256 in (("text", manifest.text), ("image", manifest.image)):
        if sha256 is not None:
            model = Model.open(old / tower, manifest_sha256=sha256)
            for name in (MODEL_MANIFEST, *model.manifest.files):
                share_file(old / tower / name, bundle / tower / name)


def seal_bundle(bundle: Path) -> None:
    """Write bundle.json over the gallery and towers that stand in the folder.

    Raises:
        EncoderMismatch: a tower is not of the gallery's space.
        MissingPart: there is no tower at all.
    """
    space = open_manifest(bundle / "gallery").space
    hashes: dict[str, str | None] = {"text": None, "image": None}
    for tower in hashes:
        if (bundle / tower).is_dir():
            model = Model.open(bundle / tower)
            check_space(model, space)
            hashes[tower] = sha256_of(bundle / tower / MODEL_MANIFEST)
    if not any(hashes.values()):
        raise MissingPart(f"{bundle}: a bundle needs a text tower, an image tower or both, found none")
    gallery = sha256_of(bundle / "gallery" / GALLERY_MANIFEST)
    manifest = BundleManifest(space, gallery, hashes["text"], hashes["image"], self_sha256="")
    sealed = replace(manifest, self_sha256=_self_sha256(manifest))
    write_manifest(bundle / MANIFEST, sealed, format=FORMAT, version=VERSION)


def check_space(model: Model, space: Space) -> None:
    """Raise `EncoderMismatch`, naming both spaces, unless the model encodes into `space`."""
    found = model.manifest.space
    if found != space:
        raise EncoderMismatch(
            f"{model.path}: model {model.manifest.name} encodes into space {found.id} ({found.dim}-d), "
            f"but the gallery is in space {space.id} ({space.dim}-d)"
        )


def _self_sha256(manifest: BundleManifest) -> str:
    blank = replace(manifest, self_sha256="")
    return hashlib.sha256(manifest_bytes(blank, format=FORMAT, version=VERSION)).hexdigest()
