"""What model.json says: the records that it is parsed into, and what no type tells of them. See docs/formats.md."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pocketlens.errors import FormatError

GOLDEN = "golden.npz"
PLACEHOLDER_ID = -1
MAX_PSEUDO_TOKENS = 16  # of one picture; more would leave a prompt of 64 tokens no room

_RECIPE = re.compile("[a-z0-9]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)?")


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space. `id` is "<name>@<sha256>" over the float image tower's weights and its preprocessing."""

    id: str
    dim: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a manifest knows of one file beside it."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights come from: open_clip's architecture, and a tag, "random:SEED" or a checkpoint's "sha256:…"."""

    architecture: str
    weights: str


@dataclass(frozen=True, slots=True)
class TextSpec:
    """The text tower and everything a runtime needs to feed it.

    Attributes:
        file: text graph; input_ids int64 (n, l), pseudo_tokens float32 (n, p, token_dim) -> embedding float32 (n, dim).
        precision: what the weights are stored as, for people.
        opset: ONNX opset of the graph.
        clean: text cleaning, by open_clip's names; every rule repairs mojibake and HTML entities first.
        context_length: the most tokens the tower takes, markers included.
        pad_id: fills a row of ids up to its length.
        end_id: the id that must stand last when an over-long text is cut.
        pooling: which token the embedding is read from.
        trim: whether a row may be cut to its real length without changing the embedding. False: pad to context_length.
        placeholder_id: where an id equals it, the next pseudo-token stands in for the token's embedding.
        token_dim: width of a token embedding.
        tokenizer: file in Hugging Face `tokenizers` format, or None when the checkpoint came without one.
    """

    file: str
    precision: str
    opset: int
    clean: Literal["lower", "whitespace", "canonicalize"]
    context_length: int
    pad_id: int
    end_id: int
    pooling: Literal["end", "last", "mean", "first"]
    trim: bool
    placeholder_id: int
    token_dim: int
    tokenizer: str | None


@dataclass(frozen=True, slots=True)
class Features:
    """The image graph's second output: float32 (n, channels, height, width), the last feature map before pooling.

    Attributes:
        id: whose features they are, "<name>@<sha256>" as of a space, but of the tower that was exported. A light tower
            that answers in a heavy one's space keeps its own.
        channels: of the map.
        height, width: of the map, in places.
    """

    id: str
    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """The image tower and its preprocessing outside the graph (mean, std and 1/255 are inside).

    Attributes:
        file: image graph; pixels uint8 (n, side, side, 3) RGB -> embedding float32 (n, dim).
        precision: what the weights are stored as, for people.
        opset: ONNX opset of the graph.
        side: height and width of the input, in pixels.
        mode: "shortest" scales the short side to `side` and crops the centre; "squash" ignores the aspect ratio.
        interpolation: Pillow's antialiased filter.
        features: the graph's second output, or None where it has none.
    """

    file: str
    precision: str
    opset: int
    side: int
    mode: Literal["shortest", "squash"]
    interpolation: Literal["bilinear", "bicubic"]
    features: Features | None


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights of a folder were made smaller, and what its `quality` was measured on.

    Attributes:
        target: the processor that it was made for.
        timed_on: processor, threads and onnxruntime of the latencies; None: none was measured.
        gate: what each tower had to reach, by name.
        calibration_sha256: hash of the inputs that ranges and the search were steered by.
        measuring_sha256: hash of the inputs that the figures come from; the two share none.
    """

    target: str
    timed_on: str | None
    gate: dict[str, float]
    calibration_sha256: str
    measuring_sha256: str


@dataclass(frozen=True, slots=True)
class Inversion:
    """A network that turns a picture into pseudo-tokens of the text tower.

    Attributes:
        file: graph; embedding float32 (n, dim), of unit length, or features float32 (n, channels, height, width) ->
            pseudo_tokens float32 (n, tokens, token_dim).
        precision: what the weights are stored as, for people.
        input: which of the two it takes.
        features_id: whose features it was trained on, `Features.id`; None exactly where it takes embeddings.
        tokens: pseudo-tokens of one picture.
        seed, steps: of the training.
        data_sha256: hash of each file that it was trained on, by name.
    """

    file: str
    precision: str
    input: Literal["embedding", "features"]
    features_id: str | None
    tokens: int
    seed: int
    steps: int
    data_sha256: dict[str, str]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Names that pictures may be taken for; see concepts.py.

    Attributes:
        file: the .npz.
        count: how many names.
        source: where they come from, for people.
    """

    file: str
    count: int
    source: str


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """model.json. `quality` holds measured figures by name; `made_with` the versions of what made the folder.

    `inversion` holds networks by recipe (lincir, pic2word, searle, isa). `quantization` is None for a float32 folder.
    """

    name: str
    licence: str
    source: Source
    space: Space
    text: TextSpec | None
    image: PictureSpec | None
    inversion: dict[str, Inversion]
    concepts: Vocabulary | None
    quality: dict[str, float]
    quantization: Quantization | None
    made_with: dict[str, str]
    files: dict[str, FileRecord]

    @property
    def can_read(self) -> bool:
        """Whether texts can be encoded: there is a text tower, and a tokenizer for it."""
        return self.text is not None and self.text.tokenizer is not None

    def only(self, tower: Literal["text", "image"]) -> ModelManifest:
        """Return the manifest of a folder that holds this one tower; golden.npz keeps its record.

        A text tower keeps its inversion networks and names, whose reports and plots stay behind.
        """
        if tower == "text" and self.text is not None:
            kept = {self.text.file, self.text.tokenizer, GOLDEN, *(network.file for network in self.inversion.values())}
            kept |= set() if self.concepts is None else {self.concepts.file}
            return replace(self, image=None, files={name: r for name, r in self.files.items() if name in kept})
        if tower == "image" and self.image is not None:
            kept = {self.image.file, GOLDEN}
            files = {name: r for name, r in self.files.items() if name in kept}
            return replace(self, text=None, inversion={}, concepts=None, files=files)
        raise FormatError(f"model {self.name} has no {tower} tower")


def check_manifest(manifest: ModelManifest, path: Path) -> None:
    """Raise `FormatError`, which names the path, unless names, needed files and numbers are what they may be."""
    _check_names(manifest, path)
    _check_ranges(manifest, path)


def _check_names(manifest: ModelManifest, path: Path) -> None:
    for name in manifest.files:
        if not _PLAIN_NAME.fullmatch(name):
            raise FormatError(f"{path}: files: {name!r} is not a plain relative file name")
    towers = [tower for tower in (manifest.text, manifest.image) if tower is not None]
    needed = [tower.file for tower in towers]
    if manifest.text is not None and manifest.text.tokenizer is not None:
        needed.append(manifest.text.tokenizer)
    needed += [network.file for network in manifest.inversion.values()]
    needed += [] if manifest.concepts is None else [manifest.concepts.file]
    if not towers:
        raise FormatError(f"{path}: text and image are both null, expected at least one tower")
    for name in [*needed, GOLDEN]:
        if name not in manifest.files:
            raise FormatError(f"{path}: files: {name!r} is missing, but the folder needs it")
    if manifest.text is not None and manifest.text.placeholder_id != PLACEHOLDER_ID:
        raise FormatError(f"{path}: text.placeholder_id is {manifest.text.placeholder_id}, expected {PLACEHOLDER_ID}")
    for recipe in manifest.inversion:
        if not _RECIPE.fullmatch(recipe):
            raise FormatError(
                f"{path}: inversion: {recipe!r} is no recipe's name, expected lower-case letters and digits"
            )
    for recipe, network in manifest.inversion.items():
        if (network.features_id is None) != (network.input == "embedding"):
            expected = "null" if network.input == "embedding" else "whose features they are"
            raise FormatError(
                f"{path}: inversion.{recipe}.features_id is {json.dumps(network.features_id)}, expected {expected}: "
                f"input is {network.input!r}"
            )
    if manifest.text is None and (manifest.inversion or manifest.concepts is not None):
        found = "inversion" if manifest.inversion else "concepts"
        raise FormatError(f"{path}: {found} is given, but text is null; both belong to a text tower")


def _check_ranges(manifest: ModelManifest, path: Path) -> None:
    ranges = [("space.dim", manifest.space.dim, 1, 65_536)]
    if manifest.text is not None:
        ranges.append(("text.context_length", manifest.text.context_length, 2, 65_536))
        ranges.append(("text.token_dim", manifest.text.token_dim, 1, 65_536))
    if manifest.image is not None:
        ranges.append(("image.side", manifest.image.side, 1, 4_096))
        if (features := manifest.image.features) is not None:
            ranges.append(("image.features.channels", features.channels, 1, 65_536))
            ranges.append(("image.features.height", features.height, 1, 4_096))
            ranges.append(("image.features.width", features.width, 1, 4_096))
    ranges += [
        (f"inversion.{name}.tokens", each.tokens, 1, MAX_PSEUDO_TOKENS) for name, each in manifest.inversion.items()
    ]
    if manifest.concepts is not None:
        ranges.append(("concepts.count", manifest.concepts.count, 1, 1 << 24))
    for name, found, least, most in ranges:
        if not least <= found <= most:
            raise FormatError(f"{path}: {name} is {found}, expected {least} to {most}")
