"""A model folder small enough to work out by hand: pictures are their mean colour, texts the colours they name.

Built with onnx alone. An embedding is (red, green, blue, 0.2) scaled to length 1; features are the mean colours of a
picture's quarters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import tokenizers
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pocketlens.files import sha256_of
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, VERSION, Features, FileRecord, ModelManifest, PictureSpec, Source, Space, TextSpec

Array: TypeAlias = NDArray[Any]

SIDE = 8
WORDS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "red": 4, "green": 5, "blue": 6, "white": 7, "a": 8}
TOKENS = np.array(
    [[0, 0, 0, 0]] * 4 + [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=np.float32
)
BIAS = np.array([0, 0, 0, 0.2], dtype=np.float32)
SPACE = Space("colours@" + "0" * 64, 4)


def unit(vector: Array) -> Array:
    """Return rows of length 1, float32."""
    return np.asarray(vector / np.linalg.norm(vector, axis=-1, keepdims=True), dtype=np.float32)


def expected_text(ids: Array) -> Array:
    """Return what the text graph computes, by numpy: the sum of the tokens' rows plus the bias, at length 1."""
    return unit(TOKENS[np.maximum(ids, 0)].sum(axis=1) + BIAS)


def expected_picture(pixels: Array) -> Array:
    """Return what the image graph computes, by numpy: the mean colour plus the bias, at length 1."""
    colours = pixels.astype(np.float64).mean(axis=(1, 2)) / 255
    return unit(np.pad(colours, ((0, 0), (0, 1))) + BIAS)


def expected_features(pixels: Array) -> Array:
    """Return the image graph's features, by numpy: the mean colour of each quarter, 0 to 1, float32 (n, 3, 2, 2)."""
    half = SIDE // 2
    quarters = pixels.astype(np.float64).reshape(-1, 2, half, 2, half, 3).mean(axis=(2, 4)) / 255  # (n, 2, 2, 3)
    return np.asarray(quarters.transpose(0, 3, 1, 2), dtype=np.float32)


def write_colours(folder: Path, *, name: str = "colours", space: Space = SPACE) -> Path:
    """Write the model folder and return it."""
    folder.mkdir(parents=True)
    onnx.save(_text_graph(), str(folder / "text.onnx"))
    onnx.save(_image_graph(), str(folder / "image.onnx"))
    _tokenizer().save(str(folder / "tokenizer.json"))
    _write_golden(folder / "golden.npz")
    names = ["text.onnx", "image.onnx", "tokenizer.json", "golden.npz"]
    manifest = ModelManifest(
        name=name,
        licence="Apache-2.0",
        source=Source("colours", "by hand"),
        space=space,
        text=TextSpec(
            file="text.onnx", precision="float32", opset=18, clean="lower", context_length=6, pad_id=0, end_id=3,
            pooling="mean", trim=True, placeholder_id=-1, token_dim=4, tokenizer="tokenizer.json",
        ),
        image=PictureSpec(
            file="image.onnx", precision="float32", opset=18, side=SIDE, mode="shortest", interpolation="bilinear",
            features=Features(space.id, 3, 2, 2),
        ),
        inversion={},
        concepts=None,
        quantization=None,
        quality={},
        made_with={"onnx": onnx.__version__},
        files={name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in names},
    )  # fmt: skip
    write_manifest(folder / "model.json", manifest, format=FORMAT, version=VERSION)
    return folder


def _text_graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Clip", ["input_ids", "zero"], ["real"]),
        helper.make_node("Gather", ["tokens", "real"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "one"], ["plain"], keepdims=0),
        helper.make_node("ReduceSum", ["pseudo_tokens", "one"], ["pseudo"], keepdims=0),
        helper.make_node("Sum", ["plain", "pseudo", "bias"], ["sum"]),
    ]
    constants: dict[str, Array] = {
        "tokens": TOKENS,
        "bias": BIAS,
        "zero": np.array(0, dtype=np.int64),
        "one": np.array([1]),
    }
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "l"]),
        helper.make_tensor_value_info("pseudo_tokens", TensorProto.FLOAT, ["n", "p", 4]),
    ]
    return _model(nodes, constants, inputs)


def _image_graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "sides"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["sum"]),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["quarters"], kernel_shape=[SIDE // 2] * 2, strides=[SIDE // 2] * 2
        ),
        helper.make_node("Mul", ["quarters", "scale"], ["features"]),
    ]
    weights = np.eye(3, 4, dtype=np.float32) / 255
    constants = {"sides": np.array([1, 2]), "weights": weights, "bias": BIAS, "scale": np.array([1 / 255], np.float32)}
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])]
    model = _model(nodes, constants, inputs)
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3, 2, 2]))
    return model


def _model(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], inputs: list[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    nodes = [*nodes, helper.make_node("LpNormalization", ["sum"], ["embedding"], axis=-1, p=2)]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 4])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "colours", inputs, [output], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    return tokenizer


def _write_golden(path: Path) -> None:
    texts = ["red", "a green", "blue red", ""]
    blob = "".join(texts).encode()
    ids = np.zeros((4, 6), dtype=np.int64)
    for row, values in zip(ids, ([2, 4, 3], [2, 8, 5, 3], [2, 6, 4, 3], [2, 3]), strict=True):
        row[: len(values)] = values
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(
        path,
        text_utf8=np.frombuffer(blob, dtype=np.uint8),
        text_offsets=np.cumsum([0, *(len(text.encode()) for text in texts)]),
        text_ids=ids,
        text_embedding=expected_text(ids),
        pixels=pixels,
        image_embedding=expected_picture(pixels),
        text_min_cosine=np.float32(0.99999),
        text_max_abs=np.float32(1e-4),
        image_min_cosine=np.float32(0.99999),
        image_max_abs=np.float32(1e-4),
    )
