"""The inversion networks of a model folder: from a picture to pseudo-tokens of the text tower."""

from __future__ import annotations

import numpy as np

from pocketlens._types import Float32s
from pocketlens.compose.inversion import fit_command
from pocketlens.errors import EncoderMismatch, MissingPart
from pocketlens.graph import FIXED, Graph
from pocketlens.model import Inversion, Model


class InversionNetwork:
    """Turns pictures into pseudo-tokens of a model folder's text tower.

    Args:
        model: an opened model folder with a network of this recipe.
        recipe: how it was trained: lincir, pic2word, searle, isa.
        image: the model folder of the image tower whose features a network of features will get; None: no check.
        threads: threads inside one graph run; by default the usable cores, at most 4.

    Attributes:
        spec: what model.json says of the network.
        input_shape: (channels, height, width) of one picture's features, or (dim,) of its embedding.

    Raises:
        MissingPart: the model has no such network, or the image tower gives no features.
        EncoderMismatch: the network was trained on the features of another image tower.
        FormatError: the graph is none, or its shapes are not the manifest's (CorruptFile: it differs from its record).
    """

    def __init__(self, model: Model, recipe: str, *, image: Model | None = None, threads: int | None = None) -> None:
        spec = model.manifest.inversion.get(recipe)
        if spec is None:
            raise MissingPart(
                f"{model.path}: model {model.manifest.name} has no inversion network {recipe!r}; make one with "
                f"{fit_command(recipe)}"
            )
        text = model.manifest.text
        assert text is not None  # where it is, opening refuses networks
        self.spec = spec
        shape = _input_shape(model, spec, image)
        inputs: dict[str, tuple[int | None, ...]] = {spec.input: (None, *shape)}
        self._shape = (spec.tokens, text.token_dim)
        self._graph = Graph(model.file(spec.file), threads, inputs, {"pseudo_tokens": (None, *self._shape)})
        declared = self._graph.input_shapes[spec.input][1:]
        self.input_shape = tuple(map(int, declared)) if FIXED in shape else shape

    def invert(self, pictures: Float32s) -> Float32s:
        """Return pseudo-tokens, float32 (n, tokens, token_dim), of what the network takes.

        Args:
            pictures: unit embeddings, float32 (n, dim), or features, float32 (n, channels, height, width); see
                `spec.input`.

        Raises:
            FormatError: the graph cannot be run on them.
        """
        if len(pictures) == 0:
            return np.zeros((0, *self._shape), dtype=np.float32)
        return self._graph.run({self.spec.input: pictures}, ["pseudo_tokens"])[0]


def _input_shape(model: Model, spec: Inversion, image: Model | None) -> tuple[int, ...]:
    if spec.input == "embedding":
        return (model.manifest.space.dim,)
    if image is None:
        return (FIXED, FIXED, FIXED)
    features = None if image.manifest.image is None else image.manifest.image.features
    where = f"{model.path / spec.file} was trained on the features of {spec.features_id}"
    if features is None:
        raise MissingPart(f"{where}, and {image.path}: model {image.manifest.name} gives no features")
    if features.id != spec.features_id:
        raise EncoderMismatch(f"{where}, and {image.path}: model {image.manifest.name} gives those of {features.id}")
    return (features.channels, features.height, features.width)
