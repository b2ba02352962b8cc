"""The inversion networks of a model folder: from a picture's embedding to pseudo-tokens of the text tower."""

from __future__ import annotations

from pocketlens._types import Float32s
from pocketlens.errors import MissingPart
from pocketlens.graph import Graph
from pocketlens.model import Model


class InversionNetwork:
    """Turns pictures into pseudo-tokens of a model folder's text tower.

    Args:
        model: an opened model folder with a network of this recipe.
        recipe: how it was trained: lincir, pic2word or searle.
        threads: threads inside one graph run; by default the usable cores, at most 4.

    Raises:
        MissingPart: the model has no such network.
        FormatError: the graph is none, or its shapes are not the manifest's (CorruptFile: it differs from its record).
    """

    def __init__(self, model: Model, recipe: str, *, threads: int | None = None) -> None:
        spec = model.manifest.inversion.get(recipe)
        if spec is None:
            raise MissingPart(
                f"{model.path}: model {model.manifest.name} has no inversion network {recipe!r}; make one with "
                f"pocketlens fit inversion --recipe {recipe}"
            )
        text = model.manifest.text
        assert text is not None  # where it is, opening refuses networks
        self.spec = spec
        shapes = {"embedding": (None, model.manifest.space.dim)}
        output = (None, spec.tokens, text.token_dim)
        self._graph = Graph(model.file(spec.file), threads, shapes, "pseudo_tokens", output)

    def invert(self, vectors: Float32s) -> Float32s:
        """Return pseudo-tokens, float32 (n, tokens, token_dim), of pictures' unit embeddings, float32 (n, dim).

        Raises:
            FormatError: the graph cannot be run on them.
        """
        return self._graph.run({"embedding": vectors})
