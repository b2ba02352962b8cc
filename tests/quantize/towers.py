"""Towers small enough to quantize in a second, written out node by node with seeded weights, and what goes through.

The text tower is a transformer of two layers over three projections, with a channel that is tens of times larger than
the others. The image tower is a stem, a depthwise convolution, and two 1x1 convolutions around a sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import tokenizers
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pocketlens.files import sha256_of
from pocketlens.graph import open_exactly
from pocketlens.manifest import write_manifest
from pocketlens.model import FORMAT, VERSION, Features, FileRecord, ModelManifest, PictureSpec, Source, Space, TextSpec
from pocketlens_quantize.queries import sample_queries

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float32]
Uint8s: TypeAlias = NDArray[np.uint8]
Feed: TypeAlias = Mapping[str, Array]

TOKENS, WIDTH, HEADS, DIM = 1_200, 64, 4, 24
CONTEXT = 16
SIDE, CHANNELS = 32, 16
FEATURES = Features("towers@" + "0" * 64, 4 * CHANNELS, SIDE // 8, SIDE // 8)


class Graph:
    """An ONNX graph in the making; every method adds a node and returns the name of its value."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, Array] = {}

    def constant(self, name: str, value: Array) -> str:
        self.tensors[name] = value
        return name

    def add(self, op_type: str, out: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [out], name=f"{out}.{op_type}", **attributes))
        return out

    def linear(self, out: str, value: str, weight: Floats, bias: Floats) -> str:
        product = self.add("MatMul", f"{out}.product", value, self.constant(f"{out}.weight", weight))
        return self.add("Add", out, product, self.constant(f"{out}.offset", bias))

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], out: str = "embedding", dims: Sequence[str | int] | None = None
    ) -> onnx.ModelProto:
        output = helper.make_tensor_value_info(out, TensorProto.FLOAT, dims)
        tensors = [numpy_helper.from_array(value, name) for name, value in self.tensors.items()]
        graph = helper.make_graph(self.nodes, "tower", inputs, [output], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, feed: Feed, *, optimized: bool = True) -> Floats:
    """Return a graph's one output: what it computes as it is opened by default, or as it is written."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_exactly(model.SerializeToString(), options)
    found: Floats = session.run(None, dict(feed))[0]
    return found


def run_all(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Floats:
    """Return the one output of all feeds, each run alone."""
    session = open_exactly(model.SerializeToString(), ort.SessionOptions())
    return np.concatenate([session.run(None, dict(feed))[0] for feed in feeds])


def cosine(found: Floats, expected: Floats) -> Floats:
    """Return the cosine of each pair of rows."""
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    return np.asarray((found * expected).sum(axis=-1) / norms, dtype=np.float32)


def operators(model: onnx.ModelProto) -> set[str]:
    """Return the kinds of nodes that a graph holds."""
    return {node.op_type for node in model.graph.node}


def attention(
    graph: Graph, out: str, value: str, weights: Sequence[tuple[Floats, Floats]], mask: str | None, scale: float
) -> str:
    """Add attention over three projections as exporters write it, (n, l, width) to (n, l, width)."""
    shape = graph.add("Shape", f"{out}.shape", value)
    n = graph.add("Gather", f"{out}.n", shape, graph.constant(f"{out}.first", np.array([0])))
    length = graph.add("Gather", f"{out}.l", shape, graph.constant(f"{out}.second", np.array([1])))
    width = weights[0][0].shape[1]
    heads = [graph.constant(f"{out}.heads", np.array([HEADS])), graph.constant(f"{out}.d", np.array([width // HEADS]))]
    cut = graph.add("Concat", f"{out}.cut", n, length, *heads, axis=0)
    turned = []
    for name, (weight, bias), perm in zip("qkv", weights, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
        projected = graph.linear(f"{out}.{name}", value, weight, bias)
        split = graph.add("Reshape", f"{out}.{name}.split", projected, cut)
        turned.append(graph.add("Transpose", f"{out}.{name}.heads", split, perm=perm))
    factor = graph.constant(f"{out}.scale", np.array(scale, np.float32))
    query = graph.add("Mul", f"{out}.q.scaled", turned[0], factor)
    scores = graph.add("MatMul", f"{out}.scores", query, turned[1])
    if mask is not None:
        scores = graph.add("Add", f"{out}.masked", scores, mask)
    shares = graph.add("Softmax", f"{out}.shares", scores, axis=-1)
    mixed = graph.add("MatMul", f"{out}.mixed", shares, turned[2])
    back = graph.add("Transpose", f"{out}.back", mixed, perm=[0, 2, 1, 3])
    whole = graph.add("Concat", f"{out}.whole", n, length, graph.constant(f"{out}.width", np.array([width])), axis=0)
    return graph.add("Reshape", out, back, whole)


def text_tower(*, outlier: float = 30.0, seed: int = 0) -> onnx.ModelProto:
    """Return a text tower by the contract: input_ids and pseudo_tokens to embedding; 0 is padding."""
    rng = np.random.default_rng(seed)

    def linear(inputs: int, outputs: int) -> tuple[Floats, Floats]:
        weight = rng.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        return weight.astype(np.float32), (rng.standard_normal(outputs) / 10).astype(np.float32)

    graph = Graph()
    graph.constant("zero", np.array(0, np.int64))
    table = graph.constant("tokens", rng.standard_normal((TOKENS, WIDTH)).astype(np.float32))
    rows = graph.add("Gather", "rows", table, graph.add("Max", "ids", "input_ids", "zero"), axis=0)
    graph.constant("one", np.array([1]))
    value = graph.add("Add", "embedded", rows, graph.add("ReduceSum", "pseudo", "pseudo_tokens", "one", keepdims=1))
    mask = _padding_mask(graph)
    for layer in range(2):
        name = f"layer{layer}"
        normed = _norm(graph, f"{name}.norm1", value, outlier)
        mixed = attention(graph, f"{name}.attention", normed, [linear(WIDTH, WIDTH) for _ in range(3)], mask, 0.25)
        value = graph.add("Add", f"{name}.sum1", value, graph.linear(f"{name}.out", mixed, *linear(WIDTH, WIDTH)))
        hidden = graph.linear(f"{name}.up", _norm(graph, f"{name}.norm2", value, outlier), *linear(WIDTH, 2 * WIDTH))
        hidden = graph.add("Gelu", f"{name}.gelu", hidden)
        value = graph.add("Add", f"{name}.sum2", value, graph.linear(f"{name}.down", hidden, *linear(2 * WIDTH, WIDTH)))
    weighted = graph.add("Mul", "weighted", value, graph.add("Unsqueeze", "real.column", "real", "last"))
    total = graph.add("ReduceSum", "total", weighted, "one", keepdims=0)
    pooled = graph.add("Div", "pooled", total, graph.add("ReduceSum", "count", "real", "one", keepdims=1))
    weight, bias = linear(WIDTH, DIM)
    graph.constant("head.weight", np.ascontiguousarray(weight.T))
    sums = graph.add("Gemm", "head", pooled, "head.weight", graph.constant("head.bias", bias), transB=1)
    graph.add("LpNormalization", "embedding", sums, axis=-1, p=2)
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "l"]),
        helper.make_tensor_value_info("pseudo_tokens", TensorProto.FLOAT, ["n", "p", WIDTH]),
    ]
    _centre(graph, inputs, text_batches(text_feeds(64)))
    return graph.model(inputs, dims=["n", DIM])


def _padding_mask(graph: Graph) -> str:
    """Return the additive mask (n, 1, l, l), -inf where a column is padding; "real" is 1 where a token is none."""
    padding = graph.add("Equal", "padding", "input_ids", "zero")
    graph.constant("last", np.array([2]))
    graph.add("Cast", "real", graph.add("Not", "present", padding), to=TensorProto.FLOAT)
    row = graph.add("Unsqueeze", "padding.row", padding, graph.constant("rows.axes", np.array([1, 2])))
    for name, value in (("blocked", -np.inf), ("open", 0.0)):
        graph.constant(name, np.array(value, np.float32))
    each = graph.add("Where", "mask.row", row, "blocked", "open")
    length = graph.add("Gather", "length", graph.add("Shape", "shape", "input_ids"), "one")
    ones = graph.constant("ones", np.array([1]))
    return graph.add("Expand", "mask", each, graph.add("Concat", "mask.shape", ones, ones, length, ones, axis=0))


def _norm(graph: Graph, out: str, value: str, outlier: float) -> str:
    gain = np.ones(WIDTH, np.float32)
    gain[5] = outlier
    graph.constant(f"{out}.gain", gain)
    return graph.add("LayerNormalization", out, value, f"{out}.gain", axis=-1)


def text_feeds(count: int, *, seed: int = 1) -> list[dict[str, Array]]:
    """Return texts of 3 to 12 tokens, one a feed."""
    rng = np.random.default_rng(seed)
    return [text_feed(rng.integers(1, TOKENS, (1, rng.integers(3, 13)))) for _ in range(count)]


def text_feed(ids: Array) -> dict[str, Array]:
    return {"input_ids": ids, "pseudo_tokens": np.zeros((len(ids), 0, WIDTH), np.float32)}


def text_batches(feeds: Sequence[Feed], *, size: int = 8) -> list[dict[str, Array]]:
    """Return the same texts in batches, padded by two tokens more than any needs."""
    ids = [feed["input_ids"][0] for feed in feeds]
    batches = []
    for start in range(0, len(ids), size):
        alike = ids[start : start + size]
        longest = max(map(len, alike)) + 2
        batches.append(text_feed(np.stack([np.pad(row, (0, longest - len(row))) for row in alike])))
    return batches


def image_tower(
    *, seed: int = 0, outlier: float = 1.0, std: Sequence[float] = (0.5, 0.5, 0.5), features: bool = False
) -> onnx.ModelProto:
    """Return an image tower by the contract: pixels to embedding.

    Args:
        seed: of the weights.
        outlier: what one channel between the convolutions "wide" and "narrow" is multiplied by, and divided by again:
            the tower computes the same, but one scale for all channels rounds the others to nothing.
        std: of the three channels; the mean is 0.5 of all.
        features: whether the map before the mean is a second output, `FEATURES`.
    """
    rng = np.random.default_rng(seed)
    graph = Graph()
    moved = graph.add("Transpose", "moved", "pixels", perm=[0, 3, 1, 2])
    value = graph.add("Cast", "float", moved, to=TensorProto.FLOAT)
    deviation = np.asarray(std, np.float32).reshape(1, 3, 1, 1)
    value = graph.add("Mul", "scaled", value, graph.constant("scale", 1 / (255 * deviation)))
    value = graph.add("Add", "normal", value, graph.constant("shift", -127.0 / (255 * deviation)))
    graph.constant("low", np.array(0, np.float32))
    graph.constant("high", np.array(6, np.float32))
    value = _conv(graph, rng, "stem", value, 3, CHANNELS, kernel=3, strides=[2, 2], clip=True)
    value = _conv(graph, rng, "deep", value, CHANNELS, CHANNELS, kernel=3, group=CHANNELS, strides=[1, 1], clip=True)
    wide = _conv(graph, rng, "wide", value, CHANNELS, 2 * CHANNELS, kernel=1, strides=[1, 1])
    narrow = _conv(graph, rng, "narrow", wide, 2 * CHANNELS, CHANNELS, kernel=1, strides=[1, 1])
    graph.tensors["wide.weight"][3] *= outlier
    graph.tensors["wide.bias"][3] *= outlier
    graph.tensors["narrow.weight"][:, 3] /= outlier
    value = graph.add("Add", "sum", value, narrow)
    value = _conv(graph, rng, "down", value, CHANNELS, 2 * CHANNELS, kernel=3, strides=[2, 2], clip=True)
    end = "features" if features else "end"
    value = _conv(graph, rng, end, value, 2 * CHANNELS, 4 * CHANNELS, kernel=1, strides=[2, 2])
    value = graph.add("ReduceMean", "mean", value, graph.constant("sides", np.array([2, 3])), keepdims=0)
    projection = (rng.standard_normal((DIM, 4 * CHANNELS)) / 8).astype(np.float32)
    graph.constant("head.weight", projection)
    graph.constant("head.bias", np.zeros(DIM, np.float32))
    value = graph.add("Gemm", "head", value, "head.weight", "head.bias", transB=1)
    graph.add("LpNormalization", "embedding", value, axis=-1, p=2)
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])]
    _centre(graph, inputs, picture_batches(picture_feeds(64)))
    model = graph.model(inputs, dims=["n", DIM])
    if features:
        shape: list[str | int | None] = ["n", FEATURES.channels, FEATURES.height, FEATURES.width]
        model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, shape))
    return model


def _conv(
    graph: Graph,
    rng: np.random.Generator,
    out: str,
    value: str,
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    strides: Sequence[int],
    group: int = 1,
    clip: bool = False,
) -> str:
    """Add a convolution whose output channels differ in size, as a folded batch norm makes them."""
    shape = (outputs, inputs // group, kernel, kernel)
    spread = np.exp(rng.uniform(-1, 1, (outputs, 1, 1, 1)))
    weight = rng.standard_normal(shape) * spread / np.sqrt(np.prod(shape[1:]))
    graph.constant(f"{out}.weight", weight.astype(np.float32))
    graph.constant(f"{out}.bias", (rng.standard_normal(outputs) / 10).astype(np.float32))
    result = graph.add("Conv", f"{out}.sums" if clip else out, value, f"{out}.weight", f"{out}.bias",
                       strides=list(strides), group=group, pads=[kernel // 2] * 4)  # fmt: skip
    return graph.add("Clip", out, result, "low", "high") if clip else result


def _centre(graph: Graph, inputs: Sequence[onnx.ValueInfoProto], feeds: Sequence[Feed]) -> None:
    """Move the head's bias so that embeddings of different inputs point in different directions."""
    graph.tensors["head.bias"] = graph.tensors["head.bias"] - run_all(graph.model(inputs, out="head"), feeds).mean(
        axis=0
    )


def picture_feeds(count: int, *, seed: int = 2) -> list[dict[str, Array]]:
    """Return pictures of coloured patches, one a feed."""
    return [{"pixels": picture[np.newaxis]} for picture in pictures(count, seed=seed)]


def pictures(count: int, *, seed: int = 2) -> Uint8s:
    """Return pictures of coloured patches with some noise, uint8 (count, SIDE, SIDE, 3)."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (count, 4, 4, 3))
    fine = np.repeat(np.repeat(patches, SIDE // 4, axis=1), SIDE // 4, axis=2) + rng.integers(
        -20, 21, (count, SIDE, SIDE, 3)
    )
    pixels: Uint8s = np.clip(fine, 0, 255).astype(np.uint8)
    return pixels


def picture_batches(feeds: Sequence[Feed], *, size: int = 8) -> list[dict[str, Array]]:
    pixels = np.concatenate([feed["pixels"] for feed in feeds])
    return [{"pixels": pixels[start : start + size]} for start in range(0, len(pixels), size)]


def write_model(folder: Path, *, image: onnx.ModelProto | None = None, tokenizer: bool = True) -> Path:
    """Write a model folder of both towers, with a tokenizer of words, and return it."""
    folder.mkdir(parents=True)
    graphs = {"text": text_tower(outlier=3), "image": image_tower() if image is None else image}
    for tower, graph in graphs.items():
        onnx.save(graph, str(folder / f"{tower}.onnx"))
    if tokenizer:
        _tokenizer().save(str(folder / "tokenizer.json"))
    _write_golden(folder / "golden.npz", graphs)
    names = sorted(path.name for path in folder.iterdir())
    manifest = ModelManifest(
        name="towers",
        licence="Apache-2.0",
        source=Source("towers", "seed 0"),
        space=Space("towers@" + "0" * 64, DIM),
        text=TextSpec(
            file="text.onnx", precision="float32", opset=20, clean="lower", context_length=CONTEXT, pad_id=0, end_id=3,
            pooling="mean", trim=True, placeholder_id=-1, token_dim=WIDTH,
            tokenizer="tokenizer.json" if tokenizer else None,
        ),
        image=PictureSpec(
            file="image.onnx", precision="float32", opset=20, side=SIDE, mode="shortest", interpolation="bilinear",
            features=FEATURES if len(graphs["image"].graph.output) > 1 else None,
        ),
        inversion={},
        concepts=None,
        quantization=None,
        quality={"parity_text_min_cosine": 0.999},
        made_with={"onnx": onnx.__version__},
        files={name: FileRecord(sha256_of(folder / name), (folder / name).stat().st_size) for name in names},
    )  # fmt: skip
    write_manifest(folder / "model.json", manifest, format=FORMAT, version=VERSION)
    return folder


def _tokenizer() -> tokenizers.Tokenizer:
    words = sorted({word for query in sample_queries(800) for word in query.lower().split()})[: TOKENS - 4]
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    return tokenizer


def _write_golden(path: Path, graphs: Mapping[str, onnx.ModelProto]) -> None:
    texts = ["red", "a dog on the beach", ""]
    tokenizer = _tokenizer()
    ids = np.zeros((len(texts), CONTEXT), dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        found = tokenizer.encode(text).ids
        row[: len(found)] = found
    pixels = pictures(4, seed=5)
    arrays = {
        "text_utf8": np.frombuffer("".join(texts).encode(), dtype=np.uint8),
        "text_offsets": np.cumsum([0, *(len(text.encode()) for text in texts)]),
        "text_ids": ids,
        "text_embedding": run(graphs["text"], text_feed(ids)),
        "pixels": pixels,
        "image_embedding": run(graphs["image"], {"pixels": pixels}),
    }
    bars = {f"{tower}_{bar}": np.float32(value) for tower in graphs for bar, value in
            (("min_cosine", 0.99999), ("max_abs", 1e-4))}  # fmt: skip
    np.savez(path, allow_pickle=False, **arrays, **bars)


def write_pictures(folder: Path, count: int, *, seed: int = 7) -> Path:
    """Write pictures 000.png and so on, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(pictures(count, seed=seed)):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder
