"""From the quantized folder to the one that ships: its retrieval figures beside its proof, never larger than 32 MB.

    pocketlens export --config together/lens-base.json --pretrained together/lens-base.pt --name lens-base --out float
    pocketlens quantize float --target x86-64 --calibration demo/pictures --texts models/lens-base/recipe/texts.tsv \
      --out small
    python models/lens-base/recipe/ship.py --quantized small --out models/lens-base/model

The target is x86-64, the one that every processor computes alike: where there is no VNNI, weights of 8 bits overflow.
`make lens-base` runs all the steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from pocketlens.errors import Refused
from pocketlens.files import new_folder
from pocketlens.inspect import verify
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, MANIFEST, VERSION, Model

MAX_BYTES = 32_000_000


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantized", type=Path, required=True, help="the folder that pocketlens quantize made")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("together.json"))
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    arguments = parser.parse_args()
    ship(arguments.quantized, arguments.results, arguments.out)


def ship(quantized: Path, results: Path, out: Path) -> None:
    """Write the folder that ships.

    Raises:
        Refused: the towers together are over 32 MB.
    """
    model = Model.open(quantized)
    manifest = dataclasses.replace(model.manifest, quality=retrieval(results) | model.manifest.quality)
    size = sum(manifest.files[tower.file].size_bytes for tower in (manifest.text, manifest.image) if tower)
    if size > MAX_BYTES:
        raise Refused(f"{out}: the towers have {size} bytes, expected at most {MAX_BYTES}")
    with new_folder(out, replace=True) as folder:
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(model.file(name).read_bytes())
        write_manifest(folder / MANIFEST, manifest, format=FORMAT, version=VERSION)
        verify(folder)


def retrieval(results: Path) -> dict[str, float]:
    """Return the float model's recall (0 to 1) on the held-out test split, as together.py measured it."""
    measured: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    (groups,) = measured["recall"]["test"].values()  # of what ships alone
    return {
        f"float_test_{_plain(group)}_recall_at_{k}": round(recalls[f"recall@{k}"] / 100, 4)
        for group, recalls in groups.items()
        for k in (1, 5, 10)
    }


def _plain(group: str) -> str:
    return group.replace(": ", "_").replace(" ", "_")


if __name__ == "__main__":
    main()
