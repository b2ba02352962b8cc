"""A model folder's frozen text tower as a differentiable torch function, from its ONNX file alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from pocketlens._types import Float32s, Int64s
from pocketlens.encoder import TextGraph
from pocketlens.errors import FormatError, MissingPart, Refused
from pocketlens.files import read_arrays
from pocketlens.model import GOLDEN, PLACEHOLDER_ID, Model, TextSpec
from pocketlens_export.fit.interpreter import Interpreter

MIN_COSINE = 0.99999  # of the tower in torch to onnxruntime's, over golden texts and random pseudo-tokens
_PLACES = 3
_DOMAINS = ("", "ai.onnx")
_INTEGER = {
    "MatMulNBits", "MatMulInteger", "DynamicQuantizeLinear", "QuantizeLinear", "DynamicQuantizeMatMul", "QLinearMatMul"
}  # fmt: skip


class TextTower:
    """Ids and pseudo-tokens to unit embeddings; gradients reach the pseudo-tokens.

    Args:
        model: an opened model folder with a float text tower.
        device: where it computes.

    Raises:
        MissingPart: there is no text tower.
        FormatError: it computes in integers, or holds an operator that is unknown here.
    """

    def __init__(self, model: Model, *, device: torch.device) -> None:
        if model.manifest.text is None:
            raise MissingPart(f"{model.path}: model {model.manifest.name} has no text tower to fit anything to")
        self.spec: TextSpec = model.manifest.text
        self.dim = model.manifest.space.dim
        self.device = device
        self._model = model
        path = model.file(self.spec.file)
        graph = _load(path)
        try:
            self._graph = Interpreter(graph, device=device)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error

    def __call__(self, ids: Tensor, pseudo_tokens: Tensor) -> Tensor:
        """Return unit embeddings, float32 (n, dim).

        Args:
            ids: int64 (n, l), padded; -1 marks the place of the next pseudo-token.
            pseudo_tokens: float32 (n, p, token_dim).
        """
        return self._graph.run({"input_ids": ids, "pseudo_tokens": pseudo_tokens})

    def token_table(self) -> Float32s:
        """Return its token embeddings, float32 (tokens, token_dim): the largest constant that rows are gathered from.

        Raises:
            FormatError: there is none.
        """
        path = self._model.file(self.spec.file)
        graph = _load(path).graph
        gathered = {node.input[0] for node in graph.node if node.op_type == "Gather"}
        tables = [
            tensor
            for tensor in graph.initializer
            if tensor.name in gathered and len(tensor.dims) == 2 and tensor.dims[1] == self.spec.token_dim
        ]
        if not tables:
            raise FormatError(f"{path} gathers rows of no table of {self.spec.token_dim} columns, expected its words")
        return np.asarray(numpy_helper.to_array(max(tables, key=lambda table: table.dims[0])), dtype=np.float32)

    def prove(self) -> float:
        """Return the least cosine to onnxruntime on the golden texts, plain and with random pseudo-tokens.

        Raises:
            Refused: it is below 0.99999.
        """
        ids: Int64s = read_arrays(self._model.file(GOLDEN), ["text_ids"])["text_ids"]
        reference = TextGraph(self._model)
        nothing = np.zeros((len(ids), 0, self.spec.token_dim), dtype=np.float32)
        rng = np.random.default_rng(0)
        random = rng.standard_normal((len(ids), _PLACES, self.spec.token_dim)).astype(np.float32)
        least = 1.0
        for given, pseudo_tokens in ((ids, nothing), (_with_places(ids, self.spec), 0.05 * random)):
            expected = reference.encode_ids(given, pseudo_tokens)
            with torch.no_grad():
                found = self(self._put(given), self._put(pseudo_tokens)).cpu().numpy()
            least = min(least, _least_cosine(found, expected))
        if not least >= MIN_COSINE:
            raise Refused(
                f"{self._model.path}: the text tower in torch has cosine {least:.6f} to onnxruntime's, expected at "
                f"least {MIN_COSINE}"
            )
        return least

    def _put(self, array: Int64s | Float32s) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _load(path: Path) -> onnx.ModelProto:
    try:
        graph = onnx.load(str(path))
    except Exception as error:  # protobuf's own
        raise FormatError(f"{path} is no ONNX graph: {error}; fit on the float32 folder it was made from") from error
    kinds = {node.op_type for node in graph.graph.node}
    foreign = {node.op_type for node in graph.graph.node if node.domain not in _DOMAINS}
    integer = sorted(kinds & _INTEGER | foreign)
    if integer:
        raise FormatError(
            f"{path} computes in integers ({', '.join(integer)}), which gives no gradients; fit on the float32 folder "
            "it was made from (`make lens-base` leaves lens-base's in build/lens-base/float) and attach the result to "
            "this one with --into"
        )
    return graph


def _with_places(ids: Int64s, spec: TextSpec) -> Int64s:
    """Return ids with up to three tokens after the first replaced by the placeholder."""
    changed = ids.copy()
    places = changed[:, 1 : 1 + _PLACES]
    places[(places != spec.pad_id) & (places != spec.end_id)] = PLACEHOLDER_ID
    return changed


def _least_cosine(found: Float32s, expected: Float32s) -> float:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (found.astype(np.float64) * expected).sum(axis=1) / norms
    return float(cosines.min())
