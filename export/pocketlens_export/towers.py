"""The towers as torch modules with exactly the inputs and outputs of the exported graphs.

Normalisation of pixels and of embeddings is inside. The text towers take pseudo-tokens: where an id is -1, which no
tokenizer emits, the next pseudo-token stands in for the token's embedding before positions are added, while pooling and
masks keep looking at the ids.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from open_clip.transformer import text_global_pool
from torch import nn
from torch.nn import functional

from pocketlens._types import Float32s, Uint8s
from pocketlens.errors import Refused
from pocketlens.model import PLACEHOLDER_ID
from pocketlens_export.architecture import Preprocessing
from pocketlens_export.clip import Clip

Pooling: TypeAlias = Literal["end", "last", "mean", "first"]
_BLOCKED = -1e4  # instead of -inf: exp gives exactly 0 all the same, and a range that a quantizer can calibrate on
_CLIP_POOLING: dict[str, Pooling] = {"argmax": "end", "eos": "end", "last": "last", "first": "first"}
_HF_POOLING: dict[str, Pooling] = {"MeanPooler": "mean", "ClsPooler": "first", "ClsLastHiddenStatePooler": "first"}


class TextTower(Protocol):
    """A text tower: input_ids int64 (n, l), pseudo_tokens float32 (n, p, token_dim) -> embedding float32 (n, dim).

    Attributes:
        embedding: the token embedding, (vocabulary, token_dim).
        pooling: which token the embedding is read from.
        trim: whether the architecture says that padding cannot change the embedding.
    """

    embedding: nn.Embedding
    pooling: Pooling
    trim: bool

    @property
    def pad_id(self) -> int | None:
        """The id that its attention mask hides; None when it has no such mask."""
        ...

    def __call__(self, input_ids: torch.Tensor, pseudo_tokens: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings."""
        ...


class ImageTower(nn.Module):
    """Image tower: uint8 (n, side, side, 3) RGB -> unit embedding float32 (n, dim)."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, visual: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.visual = visual
        std = torch.tensor(preprocessing.std, dtype=torch.float64)
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
        self.register_buffer("scale", (1.0 / (255.0 * std)).float().view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).float().view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings."""
        return functional.normalize(self.visual(self.normalised(pixels)), dim=-1)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the visual tower takes, float32 (n, 3, side, side)."""
        x = pixels.permute(0, 3, 1, 2).float()  # (n, s, s, 3) -> (n, 3, s, s)
        return x * self.scale + self.shift


class SeeingTower(nn.Module):
    """An image tower over a timm trunk that has a last feature map, and gives it beside the embedding.

    uint8 (n, side, side, 3) RGB -> unit embedding float32 (n, dim), features float32 (n, channels, height, width).
    """

    def __init__(self, tower: ImageTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return unit embeddings and features. The embeddings are those of the tower, by the very same operations."""
        visual: Any = self.tower.visual
        maps = visual.trunk.forward_features(self.tower.normalised(pixels))
        embedding = functional.normalize(visual.head(visual.trunk.forward_head(maps)), dim=-1)
        in_rows = maps.shape[1] != visual.trunk.num_features
        return embedding, maps.permute(0, 3, 1, 2) if in_rows else maps  # (n, h, w, c) -> (n, c, h, w)


class ClipTextTower(nn.Module):
    """open_clip's own text transformer, at any length up to its context when it is causal.

    open_clip's forward adds the whole table of positions and the whole mask, so it cannot run below its context length;
    this one cuts both to the input's length.
    """

    causal: torch.Tensor | None

    def __init__(self, text: Any) -> None:
        super().__init__()
        if text.cls_emb is not None or text.use_pad_mask or text.pool_type not in _CLIP_POOLING:
            raise Refused(
                f"this text tower cannot be exported: pooling {text.pool_type!r}, class token "
                f"{text.cls_emb is not None}, padding mask {text.use_pad_mask}"
            )
        self.text = text
        self.embedding: nn.Embedding = text.token_embedding
        self.pooling = _CLIP_POOLING[text.pool_type]
        self.trim = text.attn_mask is not None and self.pooling != "last"
        self.pad_id = None
        causal = None if text.attn_mask is None else text.attn_mask.clamp(min=_BLOCKED)
        self.register_buffer("causal", causal)

    def forward(self, input_ids: torch.Tensor, pseudo_tokens: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings."""
        length = input_ids.shape[1]
        x = splice(self.embedding, input_ids, pseudo_tokens) + self.text.positional_embedding[:length]
        mask = None if self.causal is None else self.causal[:length, :length]
        x = self.text.ln_final(self.text.transformer(x, attn_mask=mask))
        x = text_global_pool(x, input_ids, self.text.pool_type, eos_token_id=self.text.eos_id)  # (n, l, w) -> (n, w)
        projection = self.text.text_projection
        if isinstance(projection, nn.Linear):
            x = projection(x)
        elif projection is not None:
            x = x @ projection
        return functional.normalize(x, dim=-1)


class HuggingFaceTextTower(nn.Module):
    """A transformers encoder with open_clip's pooler and projection. Its attention mask hides padding."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        pooler = type(text.pooler).__name__
        if pooler not in _HF_POOLING:
            raise Refused(f"this text tower cannot be exported: pooler {pooler}, expected {', '.join(_HF_POOLING)}")
        self.text = text
        self.embedding: nn.Embedding = text.transformer.get_input_embeddings()
        self.pooling = _HF_POOLING[pooler]
        self.trim = True
        self.pad_id: int = text.config.pad_token_id

    def forward(self, input_ids: torch.Tensor, pseudo_tokens: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings."""
        mask = torch.ne(input_ids, self.pad_id).long()  # a placeholder is a token like any other
        x = splice(self.embedding, input_ids, pseudo_tokens)
        out = self.text.transformer(inputs_embeds=x, attention_mask=mask)
        return functional.normalize(self.text.proj(self.text.pooler(out, mask)), dim=-1)


def splice(embedding: nn.Embedding, input_ids: torch.Tensor, pseudo_tokens: torch.Tensor) -> torch.Tensor:
    """Return token embeddings, float32 (n, l, d), where the i-th placeholder of a row is its i-th pseudo-token.

    Args:
        embedding: the token embedding, (vocabulary, d).
        input_ids: int64 (n, l); -1 is a placeholder.
        pseudo_tokens: float32 (n, p, d); p may be 0.
    """
    is_placeholder = input_ids == PLACEHOLDER_ID
    rows = embedding(input_ids.clamp(min=0))
    # One zero row more, so that there is something to gather from when p = 0.
    table = torch.cat([pseudo_tokens, torch.zeros_like(rows[:, :1])], dim=1)  # (n, p + 1, d)
    index = (is_placeholder.long().cumsum(dim=1) - 1).clamp(min=0)
    index = torch.minimum(index, torch.full_like(index, 1) * pseudo_tokens.shape[1])
    taken = torch.gather(table, 1, index.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))
    return torch.where(is_placeholder.unsqueeze(-1), taken, rows)


def text_tower(clip: Clip) -> ClipTextTower | HuggingFaceTextTower:
    """Return the model's text tower in the form of the exported graph.

    Raises:
        Refused: its pooling or mask is of a kind that the graph's contract cannot express.
    """
    text = clip.model.text
    tower = HuggingFaceTextTower(text) if hasattr(text, "pooler") else ClipTextTower(text)
    return tower.eval()


def image_tower(clip: Clip) -> ImageTower:
    """Return the model's image tower in the form of the exported graph, re-parameterized where timm knows how.

    Training-time branches (MobileOne, RepMixer) are folded into single convolutions; the model itself stays as it was.
    """
    from timm.utils.model import reparameterize_model

    visual = clip.model.visual
    if hasattr(visual, "trunk"):
        visual = reparameterize_model(visual)  # copies
    return ImageTower(visual, clip.preprocessing).eval()


def trained_features(clip: Clip, pixels: Uint8s) -> Float32s:
    """Return the features, float32 (n, channels, height, width), of the tower as it was trained, for comparison."""
    tower = SeeingTower(ImageTower(clip.model.visual, clip.preprocessing)).eval()
    with torch.no_grad():
        found = [tower(batch)[1] for batch in torch.split(torch.from_numpy(pixels), 8)]  # bounds the memory
    return np.ascontiguousarray(torch.cat(found).numpy(), dtype=np.float32)


def features_shape(tower: ImageTower, side: int) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of a tower's last feature map before pooling, or None where it has none.

    A timm trunk has one when what it makes of a picture lies on a grid, and its own forward pools exactly that. The
    tokens of a vision transformer are no grid: a class token stands among them.
    """
    trunk: Any = getattr(tower.visual, "trunk", None)
    if trunk is None:
        return None
    x = tower.normalised(torch.zeros((1, side, side, 3), dtype=torch.uint8))
    with torch.no_grad():
        maps = trunk.forward_features(x)
        if not isinstance(maps, torch.Tensor) or maps.dim() != 4 or trunk.num_features not in (*maps.shape[1::2],):
            return None
        if not torch.equal(trunk.forward_head(maps), trunk(x)):
            return None
        _, features = SeeingTower(tower)(torch.zeros((1, side, side, 3), dtype=torch.uint8))
    channels, height, width = features.shape[1:]
    return int(channels), int(height), int(width)


@contextlib.contextmanager
def slow_attention() -> Iterator[None]:
    """Keep torch's fused multi-head attention away while tracing: it has no ONNX form and fixes the batch size."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
