"""Ways to spoil a folder, and to sign it again so that only deeper checks can find the harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pocketlens.bundle import seal_bundle
from pocketlens.files import sha256_of


def edit_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file; dots lead into objects (`index__rows` for index.rows)."""
    data = json.loads(path.read_text())
    for key, value in changes.items():
        *outer, last = key.split("__")
        place = data
        for name in outer:
            place = place[name]
        place[last] = value
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def sign(manifest: Path) -> None:
    """Write the sizes and hashes that the files beside a manifest have now into it."""
    data = json.loads(manifest.read_text())
    for name, record in data["files"].items():
        path = manifest.parent / name
        record.update(sha256=sha256_of(path), size_bytes=path.stat().st_size)
    manifest.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def sign_bundle(bundle: Path) -> None:
    """Sign every part of a bundle and the bundle itself."""
    for part in ("gallery/gallery.json", "text/model.json", "image/model.json"):
        if (bundle / part).is_file():
            sign(bundle / part)
    seal_bundle(bundle)


def positions(size: int, rng: np.random.Generator) -> list[int]:
    """Return places in a file of `size` bytes: the first, the last and eight random ones."""
    return sorted({0, size - 1, *rng.integers(0, size, size=8).tolist()})


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Change one bit of a file in place."""
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))


def files_below(folder: Path) -> list[str]:
    """Return every file's path relative to `folder`, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
