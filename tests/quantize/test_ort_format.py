from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pocketlens.encoder import ImageEncoder, TextEncoder
from pocketlens.errors import Refused
from pocketlens.files import sha256_of
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, VERSION, FileRecord, Model
from pocketlens_quantize.ort_format import convert_to_ort, write_operators
from tests.colours import SIDE, expected_features, expected_picture, expected_text

Array = NDArray[np.float32]
CHANNELS = 32  # a multiple of every block size, so that a full build would block them


def save(
    path: Path, nodes: list[onnx.NodeProto], constants: Mapping[str, NDArray[np.generic]], shape: list[int | str]
) -> Path:
    """Write a graph from float32 `x` of `shape` to float32 `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tower", [x], [y], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


@pytest.fixture
def convolution(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Array]:
    """A 1x1 convolution with a relu, and its weights, float32 (CHANNELS, CHANNELS, 1, 1)."""
    weights = rng.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["sums"]), helper.make_node("Relu", ["sums"], ["y"])]
    return save(tmp_path / "image.onnx", nodes, {"w": weights}, ["n", CHANNELS, 6, 6]), weights


@pytest.fixture
def int8_product(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Array]:
    """A product with int8 activations in steps of 1/32 and int8 weights in steps of 1/64, and its weights."""
    codes = rng.integers(-127, 128, (64, 16)).astype(np.int8)
    constants: dict[str, NDArray[np.generic]] = {"codes": codes, "zero": np.array(0, np.int8)}
    constants |= {"step": np.array(1 / 64, np.float32), "x_step": np.array(1 / 32, np.float32)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_step", "zero"], ["x_codes"]),
        helper.make_node("DequantizeLinear", ["x_codes", "x_step", "zero"], ["x_rounded"]),
        helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["w"]),
        helper.make_node("MatMul", ["x_rounded", "w"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "x_step", "zero"], ["y_codes"]),
        helper.make_node("DequantizeLinear", ["y_codes", "x_step", "zero"], ["y"]),
    ]
    return save(tmp_path / "int8.onnx", nodes, constants, ["n", 64]), codes.astype(np.float32) / np.float32(64)


def run(path: Path, x: Array) -> Array:
    result: Array = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]
    return result


def operators(*files: Path) -> str:
    out = files[0].with_name("required_operators.config")
    write_operators(files, out=out)
    return out.read_text()


def test_a_convolution_computes_the_same_in_a_layout_of_no_cpu(
    convolution: tuple[Path, Array], tmp_path: Path, rng: np.random.Generator
) -> None:
    source, weights = convolution
    out = tmp_path / "image.ort"
    convert_to_ort(source, out=out, target="arm64")
    x = rng.standard_normal((2, CHANNELS, 6, 6)).astype(np.float32)
    expected = np.maximum(np.einsum("oi,nihw->nohw", weights[:, :, 0, 0], x), 0)
    np.testing.assert_allclose(run(out, x), expected, atol=1e-5)
    assert "nchwc" not in operators(out)  # the domain of the blocked operators
    assert "com.microsoft;1;FusedConv" in operators(out)  # fused here, since nothing is fused at opening


@pytest.mark.parametrize(("target", "kept"), [("arm64", "int8_t"), ("x86-64", "uint8_t")])
def test_the_target_decides_the_type_of_int8_activations(
    int8_product: tuple[Path, Array],
    tmp_path: Path,
    rng: np.random.Generator,
    target: Literal["arm64", "x86-64"],
    kept: str,
) -> None:
    source, weights = int8_product
    out = tmp_path / "int8.ort"
    convert_to_ort(source, out=out, target=target)
    x = rng.uniform(-0.2, 0.2, (3, 64)).astype(np.float32)
    rounded = np.rint(x * 32) / 32
    expected = np.clip(np.rint(rounded @ weights * 32), -128, 127) / 32
    np.testing.assert_allclose(run(out, x), expected, atol=1e-6)
    quantize = next(entry for entry in operators(out).split(",") if "QuantizeLinear" in entry)
    assert f'["{kept}"]' in operators(out)[operators(out).index(quantize) :]


def test_encoders_open_an_ort_file_by_its_path(colours: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    model = Model.open(colours)
    assert model.manifest.text is not None and model.manifest.image is not None
    for name in ("tokenizer.json", "golden.npz"):
        (tmp_path / name).write_bytes((colours / name).read_bytes())
    for name in ("text", "image"):
        convert_to_ort(colours / f"{name}.onnx", out=tmp_path / f"{name}.ort", target="x86-64")
    names = ["text.ort", "image.ort", "tokenizer.json", "golden.npz"]
    manifest = replace(
        model.manifest,
        text=replace(model.manifest.text, file="text.ort"),
        image=replace(model.manifest.image, file="image.ort"),
        files={name: FileRecord(sha256_of(tmp_path / name), (tmp_path / name).stat().st_size) for name in names},
    )
    write_manifest(tmp_path / "model.json", manifest, format=FORMAT, version=VERSION)
    pixels = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    ids = np.array([[2, 4, 3], [2, 6, 3]])
    converted = Model.open(tmp_path)
    np.testing.assert_allclose(ImageEncoder(converted).encode_pixels(pixels), expected_picture(pixels), atol=1e-6)
    _, features = ImageEncoder(converted).encode_features(pixels)
    np.testing.assert_allclose(features, expected_features(pixels), atol=1e-6)
    np.testing.assert_allclose(TextEncoder(converted).encode_ids(ids), expected_text(ids), atol=1e-6)


def test_one_list_names_the_operators_and_types_of_all_files(colours: Path, tmp_path: Path) -> None:
    files = [tmp_path / "text.ort", tmp_path / "image.ort"]
    for file in files:
        convert_to_ort(colours / f"{file.stem}.onnx", out=file, target="arm64")
    text, image, both = operators(files[0]), operators(files[1]), operators(*files)
    assert both.splitlines()[0] == f"# Operators of image.ort, text.ort, onnxruntime {ort.__version__}"
    assert 'ReduceSum{"inputs": {"0": ["float"]}}' in text and "ReduceSum" not in image
    assert "ReduceMean" in image and "ReduceMean" not in text
    assert "ReduceSum" in both and "ReduceMean" in both
    assert str(tmp_path) not in both


def test_nothing_is_left_beside_the_files(convolution: tuple[Path, Array], tmp_path: Path) -> None:
    source, _ = convolution
    out = tmp_path / "out" / "image.ort"
    out.parent.mkdir()
    convert_to_ort(source, out=out, target="x86-64")
    write_operators([out], out=out.with_name("required_operators.config"))
    assert [path.name for path in tmp_path.iterdir() if path != out.parent] == ["image.onnx"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["image.ort", "required_operators.config"]


def test_the_tool_is_silent_and_leaves_the_root_logger_alone(convolution: tuple[Path, Array], tmp_path: Path) -> None:
    source, _ = convolution
    out = tmp_path / "image.ort"
    program = (  # a process of its own: the tool sets logging up once, when it is first imported
        "import logging, pathlib, sys\n"
        "from pocketlens_quantize.ort_format import convert_to_ort, write_operators\n"
        "source, out = map(pathlib.Path, sys.argv[1:])\n"
        "convert_to_ort(source, out=out, target='x86-64')\n"
        "write_operators([out], out=out.with_suffix('.config'))\n"
        "raise SystemExit(len(logging.getLogger().handlers))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(source), str(out)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "image.onnx"
    source.write_bytes(b"not a graph")
    with pytest.raises(Refused, match=r"image\.onnx cannot be converted to ORT format: .*Protobuf") as caught:
        convert_to_ort(source, out=tmp_path / "image.ort", target="arm64")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "image.ort").exists()


def test_a_graph_that_nothing_can_run_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Bogus", ["x"], ["y"], domain="com.microsoft")]
    with pytest.raises(Refused, match="Bogus"):
        convert_to_ort(save(tmp_path / "image.onnx", nodes, {}, [1]), out=tmp_path / "image.ort", target="arm64")


def test_a_name_that_onnxruntime_would_not_take_for_ort_is_an_error(convolution: tuple[Path, Array]) -> None:
    with pytest.raises(ValueError, match=r"expected a name that ends in \.ort"):
        convert_to_ort(convolution[0], out=convolution[0].with_name("copy.onnx"), target="arm64")


def test_operators_of_what_is_no_ort_file_are_refused(convolution: tuple[Path, Array], tmp_path: Path) -> None:
    out = tmp_path / "required_operators.config"
    with pytest.raises(Refused, match=r"the operators of .*image\.onnx cannot be listed: File does not appear"):
        write_operators([convolution[0]], out=out)
    with pytest.raises(Refused, match=r"absent\.ort is missing"):
        write_operators([tmp_path / "absent.ort"], out=out)
    with pytest.raises(ValueError, match="at least one file"):
        write_operators([], out=out)
    assert not out.exists() and logging.getLogger("ort_format_model.utils").level == logging.WARNING
