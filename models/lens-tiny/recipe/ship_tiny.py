"""From the quantized query model to the folder that ships: small, quick, of lens-base's space, with its figures.

    pocketlens eval asymmetric --heavy lens-base --query small --emojicir DIR --out measured.json
    python models/lens-tiny/recipe/ship_tiny.py --quantized small --measured measured.json --out models/lens-tiny/model

`make lens-tiny` runs all the steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from pocketlens.bundle import check_space
from pocketlens.errors import FormatError, MissingPart, Refused
from pocketlens.files import new_folder
from pocketlens.inspect import verify
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, MANIFEST, VERSION, Model, find_model

MAX_BYTES = 4_000_000
MAX_LATENCY = 1 / 3
"""Of lens-base's: the time of one picture on one thread, in the run that measured both."""


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantized", type=Path, required=True, help="the folder that pocketlens quantize made")
    parser.add_argument("--measured", type=Path, required=True, help="JSON of `pocketlens eval asymmetric`")
    parser.add_argument("--heavy", default="lens-base", help="the gallery model (default lens-base)")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    arguments = parser.parse_args()
    ship(arguments.quantized, arguments.measured, arguments.out, heavy=Model.open(find_model(arguments.heavy)))


def ship(quantized: Path, measured: Path, out: Path, *, heavy: Model) -> None:
    """Write the folder that ships.

    Raises:
        EncoderMismatch: the model is of another space than `heavy`.
        FormatError: `measured` is not about this model, or of another split than test.
        MissingPart: the model has no image tower.
        Refused: it has a text tower too, or its image tower is over 4 MB or takes over a third of `heavy`'s time.
    """
    model = Model.open(quantized)
    manifest = model.manifest
    check_space(model, heavy.manifest.space)
    if manifest.image is None:
        raise MissingPart(f"{quantized}: model {manifest.name} has no image tower, expected one")
    if manifest.text is not None:
        raise Refused(f"{quantized}: it has a text tower, expected the image tower alone: texts go through lens-base's")
    record = manifest.files[manifest.image.file]
    if record.size_bytes > MAX_BYTES:
        raise Refused(f"{quantized}: the image tower has {record.size_bytes} bytes, expected at most {MAX_BYTES}")
    quality = figures(measured, record.sha256)
    if quality["asymmetric_latency_of_heavy"] > MAX_LATENCY:
        took = quality["asymmetric_latency_of_heavy"]
        raise Refused(f"{measured}: a picture takes {took:.3f} of the heavy model's time, expected at most a third")
    manifest = dataclasses.replace(manifest, quality=quality | manifest.quality)
    with new_folder(out, replace=True) as folder:
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(model.file(name).read_bytes())
        write_manifest(folder / MANIFEST, manifest, format=FORMAT, version=VERSION)
        verify(folder)


def figures(measured: Path, image_sha256: str) -> dict[str, float]:
    """Return what was measured of the query model with this image tower, 0 to 1, as names of model.json's quality.

    Raises:
        FormatError: no query model of the results has this image tower, or they are of another split than test.
    """
    results: dict[str, Any] = json.loads(measured.read_text(encoding="utf-8"))
    if results["split"] != "test":
        raise FormatError(f"{measured}: split is {results['split']!r}, expected 'test'")
    asked = [model for model in results["models"] if model["image_sha256"] == image_sha256 and model["role"] == "query"]
    if not asked:
        raise FormatError(f"{measured}: no query model has the image tower {image_sha256[:16]}…, expected one")
    label, found = asked[0]["label"], {"asymmetric_latency_of_heavy": round(asked[0]["latency_of_heavy"], 4)}
    for each in results["sets"]:
        for row in each["rows"]:
            if each["asked"] == "picture" and row["query"] == label and row["kind"] == "light-heavy":
                found |= _named("test", row["parts"]["all"])
    for row in results["composed"]:
        if row["query"] == label and row["parts"]:
            found |= _named(f"test_composed_{row['method']}", row["parts"]["all"])
    return found


def _named(what: str, part: dict[str, Any]) -> dict[str, float]:
    """Return a part's figures, and their shares of the heavy model's."""
    return {
        f"asymmetric_{what}{of}_{_metric(name)}".replace("-", "_"): round(figure["value"] / 100, 4)
        for of, kind in (("", "figures"), ("_of_heavy", "of_heavy"))
        for name, figure in part[kind].items()
    }


def _metric(name: str) -> str:
    """Return "recall_at_10" for "R@10"."""
    kind, _, k = name.partition("@")
    return f"{re.sub('^R$', 'recall', kind).lower()}_at_{k}"


if __name__ == "__main__":
    main()
