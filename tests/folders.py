"""Ways to spoil a folder, and to sign it again so that only deeper checks can find the harm."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pocketlens._types import Float32s
from pocketlens.bundle import seal_bundle
from pocketlens.files import sha256_of
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, VERSION, Features, FileRecord, Model, ModelManifest


def edit_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file; underscores lead into objects and lists (`segments__0__index__rows`)."""
    data = json.loads(path.read_text())
    for key, value in changes.items():
        *outer, last = key.split("__")
        place = data
        for name in outer:
            place = place[int(name) if isinstance(place, list) else name]
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


def add_inversion(folder: Path, recipe: str, *, tokens: int = 1, seed: int = 0) -> Float32s:
    """Give a model folder a linear inversion network and return its matrix, float32 (dim, tokens * token_dim).

    Its pseudo-tokens are the vector times the matrix, cut into `tokens` rows. A report and a plot stand beside it.
    """
    manifest = Model.open(folder).manifest
    assert manifest.text is not None
    dim, token_dim = manifest.space.dim, manifest.text.token_dim
    matrix = np.random.default_rng(seed).normal(0, 0.05, (dim, tokens * token_dim)).astype(np.float32)
    (folder / "inversion").mkdir(exist_ok=True)
    name = f"inversion/{recipe}"
    onnx.save(_inversion_graph(matrix, tokens, token_dim), str(folder / f"{name}.onnx"))
    (folder / f"{name}.md").write_text("# a report\n")
    (folder / f"{name}.svg").write_text("<svg/>\n")
    about: dict[str, Any] = {
        "file": f"{name}.onnx", "precision": "float32", "input": "embedding", "features_id": None, "tokens": tokens,
        "seed": seed, "steps": 0, "data_sha256": {},
    }  # fmt: skip
    _list(folder, [f"{name}.onnx", f"{name}.md", f"{name}.svg"], {f"inversion__{recipe}": about})
    return matrix


def add_isa(folder: Path, *, features: Features, tokens: int = 2, seed: int = 0) -> Float32s:
    """Give a model folder a linear network of features and return its matrix, float32 (c * h * w, tokens * token_dim).

    Its pseudo-tokens are the flattened features times the matrix, cut into `tokens` rows.
    """
    manifest = Model.open(folder).manifest
    assert manifest.text is not None
    token_dim = manifest.text.token_dim
    shape = [features.channels, features.height, features.width]
    matrix = np.random.default_rng(seed).normal(0, 0.5, (math.prod(shape), tokens * token_dim)).astype(np.float32)
    (folder / "inversion").mkdir(exist_ok=True)
    name = "inversion/isa.onnx"
    onnx.save(_inversion_graph(matrix, tokens, token_dim, features=shape), str(folder / name))
    about: dict[str, Any] = {
        "file": name, "precision": "float32", "input": "features", "features_id": features.id, "tokens": tokens,
        "seed": seed, "steps": 0, "data_sha256": {},
    }  # fmt: skip
    _list(folder, [name], {"inversion__isa": about})
    return matrix


def add_concepts(folder: Path, names: Sequence[str], vectors: Float32s) -> None:
    """Give a model folder a vocabulary of unit vectors, float32 (names, dim); the first two span its subspace."""
    blobs = [name.encode() for name in names]
    scales = np.abs(vectors).max(axis=1) / 127
    np.savez(
        folder / "concepts.npz",
        names_utf8=np.frombuffer(b"".join(blobs), dtype=np.uint8),
        offsets=np.cumsum([0, *map(len, blobs)], dtype=np.int64),
        codes=np.rint(vectors / scales[:, np.newaxis]).astype(np.int8),
        scales=scales.astype(np.float32),
        subspace=np.linalg.qr(vectors[:2].T.astype(np.float64))[0].T.astype(np.float32),
    )
    about = {"file": "concepts.npz", "count": len(names), "source": "by hand"}
    _list(folder, ["concepts.npz"], {"concepts": about})


def rewrite(folder: Path, manifest: ModelManifest) -> Model:
    """Write model.json anew, with the hashes that the files have now."""
    files = {name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in manifest.files}
    write_manifest(folder / "model.json", replace(manifest, files=files), format=FORMAT, version=VERSION)
    return Model.open(folder)


def reshape(path: Path, name: str, shape: list[str | int]) -> None:
    """Declare another shape of a graph's input or output."""
    graph = onnx.load(str(path))
    for value in [*graph.graph.input, *graph.graph.output]:
        if value.name == name:
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(name, kind, shape))
    onnx.save(graph, str(path))


def _list(folder: Path, names: Sequence[str], changes: dict[str, Any]) -> None:
    """List new files in a model folder's manifest, sign it and set fields of it."""
    manifest = folder / "model.json"
    data = json.loads(manifest.read_text())
    data["files"] |= {name: {"sha256": "", "size_bytes": 0} for name in names}
    manifest.write_text(json.dumps(data))
    edit_json(manifest, **changes)
    sign(manifest)


def _inversion_graph(
    matrix: Float32s, tokens: int, token_dim: int, features: Sequence[int] | None = None
) -> onnx.ModelProto:
    name, shape = ("embedding", [len(matrix)]) if features is None else ("features", list(features))
    nodes = [
        helper.make_node("Flatten", [name], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["pseudo_tokens"]),
    ]
    graph = helper.make_graph(
        nodes,
        "inversion",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("pseudo_tokens", TensorProto.FLOAT, ["n", tokens, token_dim])],
        [
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(np.array([-1, tokens, token_dim], dtype=np.int64), "shape"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


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
