"""Puts what composed queries need into the folder that ships: networks, vocabulary and what each method was worth.

    pocketlens fit inversion --model float --recipe lincir --data texts.txt.gz --out lincir   (and so on)
    pocketlens fit concepts --model small --names names.txt --out concepts
    python models/lens-base/recipe/compose.py --model small --fitted lincir --fitted concepts --out model
    pocketlens eval emojicir --split validation --out validation.json ...
    python models/lens-base/recipe/compose.py --model model --measured validation.json --out model

`auto` chooses by the validation figures; the test split has no say in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketlens.bundle import check_space
from pocketlens.errors import FormatError
from pocketlens.files import new_folder
from pocketlens.inspect import verify
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, MANIFEST, VERSION, Model, ModelManifest


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the model folder to start from")
    parser.add_argument("--fitted", type=Path, action="append", default=[], help="a folder that `pocketlens fit` made")
    parser.add_argument("--measured", type=Path, help="JSON of `pocketlens eval emojicir --split validation`")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write; it may be --model itself")
    arguments = parser.parse_args()
    compose(arguments.model, arguments.fitted, arguments.measured, arguments.out)


def compose(start: Path, fitted: Sequence[Path], measured: Path | None, out: Path) -> None:
    """Write `start` with the networks and the vocabulary of `fitted` and the figures of `measured`.

    Raises:
        EncoderMismatch: a fitted folder is of another space.
        FormatError: `measured` is of another split than validation.
    """
    model = Model.open(start)
    manifest, sources = model.manifest, dict.fromkeys(model.manifest.files, model)
    for folder in fitted:
        added = Model.open(folder)
        check_space(added, manifest.space)
        manifest = _with_parts(manifest, added.manifest)
        sources |= {name: added for name in manifest.files if name in added.manifest.files and name not in sources}
        sources |= {name: added for name in added.manifest.files if _is_fitted(name)}
    if measured is not None:
        kept = {name: value for name, value in manifest.quality.items() if not name.startswith("composed_")}
        manifest = dataclasses.replace(manifest, quality=kept | figures(measured))
    contents = {name: source.file(name).read_bytes() for name, source in sources.items()}
    with new_folder(out, replace=True) as folder:
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(contents[name])
        write_manifest(folder / MANIFEST, manifest, format=FORMAT, version=VERSION)
        verify(folder)


def figures(measured: Path) -> dict[str, float]:
    """Return mAP@10 (0 to 1) of every method, under the names that `auto` reads."""
    results: dict[str, Any] = json.loads(measured.read_text(encoding="utf-8"))
    if results["split"] != "validation":
        raise FormatError(f"{measured}: split is {results['split']!r}, expected 'validation'")
    return {
        f"composed_{run['method'].replace('-', '_')}_map_at_10": round(run["figures"]["mAP@10"]["value"] / 100, 4)
        for run in results["methods"]
        if run["method"] not in ("image", "text")  # one part alone is no composition
    }


def _is_fitted(name: str) -> bool:
    return name.startswith("inversion/") or name == "concepts.npz"


def _with_parts(manifest: ModelManifest, added: ModelManifest) -> ModelManifest:
    quality = {name: value for name, value in added.quality.items() if name.startswith("inversion_")}
    return dataclasses.replace(
        manifest,
        inversion=dict(sorted((manifest.inversion | added.inversion).items())),
        concepts=added.concepts or manifest.concepts,
        quality=manifest.quality | quality,
        files=dict(sorted((manifest.files | {n: r for n, r in added.files.items() if _is_fitted(n)}).items())),
    )


if __name__ == "__main__":
    main()
