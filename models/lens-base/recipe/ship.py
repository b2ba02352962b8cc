"""From the exported float32 folder to the one that ships: fewer bits, measured against float, never larger than 32 MB.

    pocketlens export --config lens-base.json --pretrained lens-base.pt --name lens-base --out float
    python models/lens-base/recipe/ship.py --float float --pictures demo/pictures --out models/lens-base/model

The token table becomes int8 with a scale per token and the text tower's MatMuls 8-bit MatMulNBits, which depends on
neither batch nor padding. The image tower stays float32 in compute; its file holds the trunk as float16 and the
projector as int8. `make lens-base` runs all the steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import BadImage, Refused
from pocketlens.files import new_folder, sha256_of
from pocketlens.inspect import verify
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, GOLDEN, MANIFEST, VERSION, FileRecord, Model
from pocketlens_quantize.storage import large_weights, quantize_matmuls, quantize_table, store_float16, store_int8

MAX_BYTES = 32_000_000
MIN_MEAN_COSINE = {"text": 0.998, "image": 0.9999}
GOLDEN_MIN_COSINE, GOLDEN_MAX_ABS = 0.99, 0.05  # 8-bit kernels differ between processors in the last places
OURS = "lens-base: student blended with its start"
TOKEN_TABLE = "embedding.weight"
PROJECTOR = "visual.head.mlp."

Vectors = NDArray[np.float32]


def main() -> None:
    """Read the command line, write the folder, print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--float", type=Path, required=True, help="the exported float32 model folder")
    parser.add_argument("--pictures", type=Path, required=True, help="pictures to measure on")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    arguments = parser.parse_args()
    print(json.dumps(ship(arguments.float, arguments.pictures, arguments.results, arguments.out), indent=2))


def ship(source: Path, pictures: Path, results: Path, out: Path) -> dict[str, float]:
    """Write the folder that ships and return its measured quality.

    Raises:
        Refused: the towers together are over 32 MB, or a mean cosine to float is under its bar.
    """
    model = Model.open(source)
    with new_folder(out, replace=True) as folder:
        write_smaller_towers(model, folder)
        (folder / "tokenizer.json").write_bytes(model.file("tokenizer.json").read_bytes())
        _write_golden(model, folder / GOLDEN)
        _write_manifest(model, folder, quality={})
        quality = _retrieval(results) | _against_float(model, Model.open(folder), pictures)
        size = sum((folder / name).stat().st_size for name in ("text.onnx", "image.onnx"))
        if size > MAX_BYTES:
            raise Refused(f"{out}: the towers have {size} bytes, expected at most {MAX_BYTES}")
        for tower, bar in MIN_MEAN_COSINE.items():
            if quality[f"{tower}_mean_cosine_to_float"] < bar:
                raise Refused(f"{out}: mean cosine of the {tower} tower is under {bar}: {quality}")
        _write_manifest(model, folder, quality)
        verify(folder)
    return quality | {"towers_bytes": size}


def write_smaller_towers(model: Model, folder: Path) -> None:
    """Write text.onnx and image.onnx with weights in fewer bits."""
    text = onnx.load(model.file("text.onnx"))
    quantize_table(text, TOKEN_TABLE)
    text = quantize_matmuls(text)
    store_float16(text, [name for name in large_weights(text) if not name.endswith((".scale", "_scales"))])
    onnx.save(text, folder / "text.onnx")
    image = onnx.load(model.file("image.onnx"))
    store_int8(image, [name for name in large_weights(image) if name.startswith(PROJECTOR)], axis=0)
    store_float16(image, [name for name in large_weights(image) if not name.endswith(".scale")])
    onnx.save(image, folder / "image.onnx")


def _against_float(model: Model, smaller: Model, pictures: Path) -> dict[str, float]:
    """Return mean and least cosine to float per tower, and the share of float's top 10 that the smaller towers find."""
    texts = _texts()
    seen = [path for path in sorted(pictures.rglob("*")) if path.is_file() and _readable(path, ImageEncoder(smaller))]
    float_texts, small_texts = TextEncoder(model).encode(texts), _one_by_one(TextEncoder(smaller), texts)
    float_images, small_images = ImageEncoder(model).encode(seen), ImageEncoder(smaller).encode(seen)
    return {
        **_cosines("text", float_texts, small_texts),
        **_cosines("image", float_images, small_images),
        "agreement_at_10_with_float": _agreement(float_texts, small_texts, float_images, small_images),
    }


def _one_by_one(encoder: TextEncoder, texts: list[str]) -> Vectors:
    return np.concatenate([encoder.encode([text]) for text in texts])


def _cosines(tower: str, expected: Vectors, found: Vectors) -> dict[str, float]:
    cosines = (expected * found).sum(axis=1)
    mean, least = round(float(cosines.mean()), 6), round(float(cosines.min()), 6)
    return {f"{tower}_mean_cosine_to_float": mean, f"{tower}_least_cosine_to_float": least}


def _agreement(float_texts: Vectors, small_texts: Vectors, float_images: Vectors, small_images: Vectors) -> float:
    expected = np.argsort(-float_texts @ float_images.T, axis=1)[:, :10]
    found = np.argsort(-small_texts @ small_images.T, axis=1)[:, :10]
    return round(float(np.mean([np.isin(a, b).mean() for a, b in zip(expected, found, strict=True)])), 4)


def _texts() -> list[str]:
    import open_clip

    return [f"a photo of a {name}" for name in open_clip.IMAGENET_CLASSNAMES]


def _readable(path: Path, encoder: ImageEncoder) -> bool:
    try:
        encoder.encode([path])
    except BadImage:
        return False
    return True


def _retrieval(results: Path) -> dict[str, float]:
    """Return the float model's recall (0 to 1) on the held-out test split, as build.py measured it."""
    measured: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    groups = measured["recall"]["test"][OURS]
    return {
        f"test_{_plain(group)}_recall_at_{k}": round(recalls[f"recall@{k}"] / 100, 4)
        for group, recalls in groups.items()
        for k in (1, 5, 10)
    }


def _plain(group: str) -> str:
    return group.replace(": ", "_").replace(" ", "_")


def _write_golden(model: Model, path: Path) -> None:
    with np.load(model.file(GOLDEN), allow_pickle=False) as golden:
        arrays = dict(golden)
    bar = {"min_cosine": np.float32(GOLDEN_MIN_COSINE), "max_abs": np.float32(GOLDEN_MAX_ABS)}
    np.savez_compressed(path, **(arrays | bar))


def _write_manifest(model: Model, folder: Path, quality: dict[str, float]) -> None:
    source = model.manifest
    assert source.text is not None
    assert source.image is not None
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    manifest = dataclasses.replace(
        source,
        text=dataclasses.replace(source.text, precision="8-bit weights (MatMulNBits), int8 token table"),
        image=dataclasses.replace(source.image, precision="float32 (stored as float16, projector as int8)"),
        quality=quality,
        files={name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in names},
    )
    write_manifest(folder / MANIFEST, manifest, format=FORMAT, version=VERSION)


if __name__ == "__main__":
    main()
