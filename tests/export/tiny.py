"""Models small enough to export in seconds: a two-layer CLIP, and one with a two-layer BERT and its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

WORDS = [
    "red",
    "green",
    "blue",
    "dog",
    "cat",
    "boat",
    "street",
    "a",
    "an",
    "the",
    "of",
    "on",
    "in",
    "with",
    "and",
    "##s",
]
LETTERS = [chr(point) for point in range(ord("a"), ord("z") + 1)]


def clip_config(**text_cfg: Any) -> dict[str, Any]:
    """Return an open_clip config of two layers; `text_cfg` overrides fields of the text tower."""
    return {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
            "text_cfg": {
                "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2, **text_cfg,
            },
        },
        "preprocess_cfg": {
            "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear", "resize_mode": "shortest",
        },
    }  # fmt: skip


def write_config(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(json.dumps(config))
    return path


def write_hugging_face_config(folder: Path) -> Path:
    """Write a config whose text tower is a two-layer BERT in the folder bert/ beside it, with its tokenizer."""
    letters = [*LETTERS, *(f"##{letter}" for letter in LETTERS), *"0123456789!?.,'&-"]
    vocabulary = {
        token: i for i, token in enumerate(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *letters]))
    }
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.enable_truncation(8)  # as shipped files do; both must be stripped
    backend.enable_padding(length=8)
    library: Any = transformers  # its constructors are not annotated
    library.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder / "bert")
    torch.manual_seed(0)
    library.BertModel(
        library.BertConfig(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64, pad_token_id=0,
        ),
        add_pooling_layer=False,
    ).save_pretrained(folder / "bert")  # fmt: skip
    config = clip_config()
    config["model_cfg"]["text_cfg"] = {
        "context_length": 24, "hf_model_name": "bert", "hf_tokenizer_name": "bert", "hf_proj_type": "linear",
        "hf_pooler_type": "mean_pooler",
    }  # fmt: skip
    return write_config(folder / "tiny-bert.json", config)
