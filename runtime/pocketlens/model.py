"""The model folder: model.json beside ONNX towers, a tokenizer and golden values. See docs/formats.md.

Opening reads the manifest only. A file is hashed when it is first asked for, before any native code sees it.
"""

from __future__ import annotations

from pathlib import Path

from pocketlens.errors import CorruptFile, FormatError
from pocketlens.files import sha256_of
from pocketlens.manifest import read_manifest
from pocketlens.spec import GOLDEN as GOLDEN
from pocketlens.spec import MAX_PSEUDO_TOKENS as MAX_PSEUDO_TOKENS
from pocketlens.spec import PLACEHOLDER_ID as PLACEHOLDER_ID
from pocketlens.spec import Features as Features
from pocketlens.spec import FileRecord as FileRecord
from pocketlens.spec import Inversion as Inversion
from pocketlens.spec import ModelManifest as ModelManifest
from pocketlens.spec import PictureSpec as PictureSpec
from pocketlens.spec import Quantization as Quantization
from pocketlens.spec import Source as Source
from pocketlens.spec import Space as Space
from pocketlens.spec import TextSpec as TextSpec
from pocketlens.spec import Vocabulary as Vocabulary
from pocketlens.spec import check_manifest
from pocketlens.stamps import check_file_once

FORMAT = "pocketlens-model"
VERSION = 1
MANIFEST = "model.json"


class Model:
    """An opened model folder.

    Attributes:
        path: the folder.
        manifest: its parsed model.json.
    """

    def __init__(self, path: Path, manifest: ModelManifest) -> None:
        self.path = path
        self.manifest = manifest
        self._checked: set[str] = set()

    @classmethod
    def open(cls, path: str | Path, *, manifest_sha256: str | None = None) -> Model:
        """Open a folder and parse its manifest.

        Args:
            path: the model folder.
            manifest_sha256: what model.json must hash to, when a bundle vouches for it.

        Raises:
            FormatError: not a model folder of a known version, or a field is wrong.
            CorruptFile: model.json is not the one the bundle recorded.
        """
        path = Path(path)
        manifest_path = path / MANIFEST
        if manifest_sha256 is not None and manifest_path.is_file():
            found = sha256_of(manifest_path)
            if found != manifest_sha256:
                raise CorruptFile(manifest_path, found=f"sha256 {found[:16]}…", expected=f"{manifest_sha256[:16]}…")
        manifest = read_manifest(manifest_path, ModelManifest, format=FORMAT, version=VERSION)
        check_manifest(manifest, manifest_path)
        return cls(path, manifest)

    def file(self, name: str) -> Path:
        """Return the path of a file listed in the manifest, after its size and sha256 have been checked."""
        path = self.path / name
        if name not in self._checked:
            record = self.manifest.files[name]
            check_file_once(path, sha256=record.sha256, size_bytes=record.size_bytes)
            self._checked.add(name)
        return path


def find_model(name_or_path: str) -> Path:
    """Return the folder of a model given by path or by the name of one that ships with pocketlens.

    Raises:
        FormatError: neither a folder nor the name of a shipped model.
    """
    path = Path(name_or_path)
    shipped = shipped_models()
    if name_or_path in shipped and not (path / MANIFEST).is_file():  # a folder may happen to have that name
        return shipped[name_or_path]
    if path.is_dir():
        return path
    names = ", ".join(sorted(shipped)) or "none found"
    raise FormatError(f"{name_or_path}: neither a model folder nor a model that ships with pocketlens ({names})")


def shipped_models() -> dict[str, Path]:
    """Return the models that ship, by name: package data in a wheel, models/<name>/model in a checkout."""
    here = Path(__file__).resolve().parent
    folders = [*here.glob("models/*"), *here.parents[1].glob("models/*/model")]
    found = [folder for folder in folders if (folder / MANIFEST).is_file()]
    return {(folder.parent.name if folder.name == "model" else folder.name): folder for folder in found}
