from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from pocketlens._types import Uint8s
from pocketlens.errors import FormatError
from pocketlens.model import find_model
from pocketlens_export.align.fold import fold_map, load_tower
from pocketlens_export.align.maps import Hidden, Map
from pocketlens_export.graph import check_graph

LIGHT, HEAVY = 4, 7


def random_map(light: int, heavy: int, *, hidden: bool) -> Map:
    rng = np.random.default_rng(0)
    beside = Hidden(rng.standard_normal((light, 5)), rng.standard_normal(5), rng.standard_normal((5, heavy)))
    return Map(rng.standard_normal((light, heavy)), rng.standard_normal(heavy), beside if hidden else None)


def random_pixels(count: int, side: int) -> Uint8s:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def run(path: Path, pixels: Uint8s, output: str = "embedding") -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run([output], {"pixels": pixels})[0]
    return found


@pytest.mark.parametrize("hidden", [False, True])
def test_a_folded_graph_computes_what_the_map_does(colours: Path, tmp_path: Path, hidden: bool) -> None:
    path, map, pixels = colours / "image.onnx", random_map(LIGHT, HEAVY, hidden=hidden), random_pixels(5, 8)
    model = load_tower(path)
    before = onnx.load(str(path))
    fold_map(model, map)
    onnx.save(model, str(tmp_path / "folded.onnx"))
    check_graph(model, tmp_path / "folded.onnx")
    found = run(tmp_path / "folded.onnx", pixels)
    assert found.dtype == np.float32 and found.shape == (5, HEAVY)
    np.testing.assert_allclose(found, map.apply(run(path, pixels)), atol=1e-6)
    assert model.opset_import == before.opset_import
    assert {node.op_type for node in model.graph.node} - {node.op_type for node in before.graph.node} <= {"Relu"}
    output = model.graph.output[0]
    assert (output.name, output.type.tensor_type.shape.dim[1].dim_value) == ("embedding", HEAVY)


def test_a_second_output_stays(colours: Path, tmp_path: Path) -> None:
    path, pixels = colours / "image.onnx", random_pixels(3, 8)
    model = load_tower(path)
    fold_map(model, random_map(LIGHT, HEAVY, hidden=False))
    onnx.save(model, str(tmp_path / "folded.onnx"))
    np.testing.assert_array_equal(run(tmp_path / "folded.onnx", pixels, "features"), run(path, pixels, "features"))
    assert [output.name for output in model.graph.output] == ["embedding", "features"]


def test_an_aligned_tower_can_be_aligned_again(colours: Path, tmp_path: Path) -> None:
    model, pixels = load_tower(colours / "image.onnx"), random_pixels(3, 8)
    first, second = random_map(LIGHT, HEAVY, hidden=True), random_map(HEAVY, 5, hidden=True)
    fold_map(model, first)
    fold_map(model, second)
    check_graph(model, tmp_path / "folded.onnx")
    onnx.save(model, str(tmp_path / "folded.onnx"))
    expected = second.apply(first.apply(run(colours / "image.onnx", pixels)))
    np.testing.assert_allclose(run(tmp_path / "folded.onnx", pixels), expected, atol=1e-6)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_quantized_tower(tmp_path: Path, tower: str) -> None:
    """lens-base's towers compute in int8, with operators of onnxruntime's own domain."""
    path, map = find_model("lens-base") / f"{tower}.onnx", random_map(384, 16, hidden=True)
    model = load_tower(path)
    fold_map(model, map)
    check_graph(model, path)
    onnx.save(model, str(tmp_path / "folded.onnx"))
    feeds = {
        "image": {"pixels": random_pixels(2, 224)},
        "text": {"input_ids": np.array([[101, 2417, 102]]), "pseudo_tokens": np.zeros((1, 0, 384), dtype=np.float32)},
    }[tower]
    before, after = (
        ort.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(["embedding"], feeds)[0]
        for file in (path, tmp_path / "folded.onnx")
    )
    np.testing.assert_allclose(after, map.apply(before), atol=1e-5)


def test_no_onnx_file(colours: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(colours / "tokenizer.json", tmp_path / "image.ort"))
    with pytest.raises(FormatError, match=r"image\.ort is no ONNX graph .*give the folder with \.onnx files"):
        load_tower(path)
