"""tokenizer.json and the rules around it: cleaning, padding, cutting. The reference is open_clip's own tokenizer.

open_clip's byte-pair tokenizer is rebuilt from the live object in Hugging Face `tokenizers` format; a Hugging Face
tokenizer is taken over with its padding and truncation stripped, because the runtime does both.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import open_clip.tokenizer
import tokenizers

from pocketlens._types import Int64s
from pocketlens.errors import FormatError, Refused
from pocketlens.model import TextSpec
from pocketlens.text import Tokenizer, clean_text
from pocketlens_export.byte_pairs import tokenizer_json
from pocketlens_export.clip import Clip
from pocketlens_export.hub import hub_reachable
from pocketlens_export.towers import TextTower

Clean: TypeAlias = Literal["lower", "whitespace", "canonicalize"]
Reference: TypeAlias = Callable[[Sequence[str]], Int64s]


@dataclass(frozen=True, slots=True)
class TextRules:
    """How texts become rows of ids.

    Attributes:
        tokenizer_json: content of tokenizer.json, or None when the tokenizer cannot be had.
        missing: why there is none; empty when there is one.
        reference: texts to int64 (n, context_length) by the reference tokenizer, cleaning and padding included.
        clean: the cleaning rule, by open_clip's name.
        pad_id: fills a row up to the context length.
        end_id: stands last in every row.
    """

    tokenizer_json: str | None
    missing: str
    reference: Reference | None
    clean: Clean
    pad_id: int
    end_id: int


def text_rules(clip: Clip, tower: TextTower, file: Path | None) -> TextRules:
    """Return a model's text rules, from `file` or from the tokenizer that open_clip would use.

    Raises:
        FormatError: `file` is not a tokenizer.
        Refused: the tokenizer does not go with the model, or its padding would have to be guessed.
    """
    text_cfg = clip.architecture.model_cfg["text_cfg"]
    name, options = text_cfg.get("hf_tokenizer_name"), dict(text_cfg.get("tokenizer_kwargs") or {})
    kind = open_clip.tokenizer.HFTokenizer if name else open_clip.tokenizer.SimpleTokenizer
    clean = cast(Clean, options.get("clean", inspect.signature(kind).parameters["clean"].default))
    if file is not None:
        return _rules_of_file(clip, tower, file, clean)
    if name:
        return _rules_of_hub(clip, tower, name, options, clean)
    if text_cfg.get("hf_model_name"):
        raise Refused(
            f"{clip.architecture.name}: text_cfg names the model {text_cfg['hf_model_name']} but no hf_tokenizer_name; "
            "add one, or give --tokenizer FILE"
        )
    if "reduction_mask" in options:
        return _no_tokenizer(clip, tower, clean, "its tokenizer drops tokens at random (reduction_mask)")
    return _rules_of_open_clip(clip, tower, options, clean)


def prove_tokenizer(path: Path, spec: TextSpec, reference: Reference, texts: Sequence[str]) -> None:
    """Raise unless the runtime's tokenizer gives the reference's ids for every text.

    Raises:
        Refused: it does not; the message names the text.
    """
    for text, found, expected in zip(texts, Tokenizer(path, spec).ids(texts), reference(texts), strict=True):
        padded = [*found, *[spec.pad_id] * (spec.context_length - len(found))]
        if padded != expected.tolist():
            raise Refused(
                f"tokenizer.json gives ids {padded[:12]}… for {text[:40]!r}, expected {expected.tolist()[:12]}…"
            )


def made_up_ids(rules: TextRules, tower: TextTower, context_length: int, *, count: int) -> Int64s:
    """Return rows of ids, int64 (count, context_length), for a model whose tokenizer cannot be had.

    Rows have different lengths, end with `end_id` and are padded; a tower that pools at the largest id gets the
    vocabulary's last id as its end.
    """
    random = np.random.default_rng(0)
    vocabulary = tower.embedding.num_embeddings
    end_id = vocabulary - 1 if tower.pooling == "end" else rules.end_id
    rows = np.full((count, context_length), rules.pad_id, dtype=np.int64)
    ordinary = np.setdiff1d(np.arange(vocabulary - 1), [rules.pad_id, end_id])
    for i, row in enumerate(rows):
        length = context_length - 1 if i == 0 else int(random.integers(1, context_length))
        row[:length] = random.choice(ordinary, size=length)
        row[length] = end_id
    return rows


def _rules_of_open_clip(clip: Clip, tower: TextTower, options: dict[str, Any], clean: Clean) -> TextRules:
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=clip.text_cfg.context_length, **options)

    def reference(texts: Sequence[str]) -> Int64s:
        return np.asarray(tokenizer(list(texts)), dtype=np.int64)

    _check_vocabulary(tokenizer.vocab_size, tower, "open_clip's tokenizer")
    pad_id = int(reference([""])[0, -1])
    return TextRules(tokenizer_json(tokenizer), "", reference, clean, pad_id, tokenizer.eot_token_id)


def _rules_of_hub(clip: Clip, tower: TextTower, name: str, options: dict[str, Any], clean: Clean) -> TextRules:
    """Take over a Hugging Face tokenizer from a local folder, the hub's cache, or the hub."""
    if clip.text_cfg.tokenizer_mode or options.get("strip_sep_token"):
        return _no_tokenizer(clip, tower, clean, "its tokenizer rearranges ids in a way that a runtime cannot express")
    local = Path(name).is_dir() or not hub_reachable()
    try:
        tokenizer = open_clip.tokenizer.HFTokenizer(
            name, context_length=clip.text_cfg.context_length, local_files_only=local, **options
        )
        backend = tokenizers.Tokenizer.from_str(tokenizer.tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # transformers, the hub's client and slow tokenizers each raise their own
        if Path(name).is_dir():
            raise FormatError(f"{name} holds no tokenizer that transformers can load: {error}") from error
        return _no_tokenizer(clip, tower, clean, f"its tokenizer is on the hub ({name}) and cannot be had from here")

    def reference(texts: Sequence[str]) -> Int64s:
        return np.asarray(tokenizer(list(texts)), dtype=np.int64)

    _check_vocabulary(max(backend.get_vocab().values()) + 1, tower, name)
    pad_id = tokenizer.tokenizer.pad_token_id
    if pad_id is None or tower.pad_id not in (None, pad_id):
        raise Refused(f"tokenizer {name} pads with id {pad_id}, but the text tower's mask hides {tower.pad_id}")
    return TextRules(_stripped(backend), "", reference, clean, pad_id, _end_id(backend, name))


def _rules_of_file(clip: Clip, tower: TextTower, file: Path, clean: Clean) -> TextRules:
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise FormatError(f"{file} is not a tokenizer in `tokenizers` format: {error}") from error
    _check_vocabulary(max(backend.get_vocab().values()) + 1, tower, str(file))
    pad_id = _pad_id(clip, tower, backend, file)
    length = clip.text_cfg.context_length
    ordinary = tokenizers.Tokenizer.from_str(backend.to_str())
    ordinary.enable_padding(length=length, pad_id=pad_id)
    ordinary.enable_truncation(length)

    def reference(texts: Sequence[str]) -> Int64s:
        rows = ordinary.encode_batch([clean_text(text, clean) for text in texts])
        return np.asarray([row.ids for row in rows], dtype=np.int64)

    return TextRules(_stripped(backend), "", reference, clean, pad_id, _end_id(backend, str(file)))


def _no_tokenizer(clip: Clip, tower: TextTower, clean: Clean, reason: str) -> TextRules:
    pad_id = tower.pad_id
    siglip = _siglip_ids(clip)
    if pad_id is None:
        pad_id = siglip[0] if siglip else clip.text_cfg.pad_id
    return TextRules(None, reason, None, clean, pad_id, siglip[1] if siglip else clip.text_cfg.eos_id)


def _pad_id(clip: Clip, tower: TextTower, backend: tokenizers.Tokenizer, file: Path) -> int:
    """Return what pads a row: what the tower's mask hides, else what the tokenizer says, else what SigLIP does."""
    padding = backend.padding
    if tower.pad_id is not None:
        return tower.pad_id
    if padding is not None:
        return int(padding["pad_id"])
    beside = file.parent / "tokenizer_config.json"
    if beside.is_file():
        token = json.loads(beside.read_bytes()).get("pad_token")
        found = backend.token_to_id(token["content"] if isinstance(token, dict) else str(token))
        if found is not None:
            return int(found)
    siglip = _siglip_ids(clip)
    if siglip is not None:
        return siglip[0]
    raise Refused(f"{file} does not say what pads a text; put the model's tokenizer_config.json beside it")


def _siglip_ids(clip: Clip) -> tuple[int, int] | None:
    """Return SigLIP's pad and end ids, which no config states: open_clip/tokenizer.py SigLipTokenizer, release 3.3."""
    names = f"{clip.architecture.name} {clip.text_cfg.hf_tokenizer_name}".lower()
    if "siglip" not in names:
        return None
    return (0, 1) if "siglip2" in names or "gemma" in names else (1, 1)


def _end_id(backend: tokenizers.Tokenizer, where: str) -> int:
    markers = tokenizers.Tokenizer.from_str(_stripped(backend)).encode("").ids
    if not markers:
        raise Refused(
            f"{where} puts no marker at the end of a text, so an over-long text cannot be cut as it was in training"
        )
    return int(markers[-1])


def _stripped(backend: tokenizers.Tokenizer) -> str:
    copy = tokenizers.Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    return str(copy.to_str())


def _check_vocabulary(size: int, tower: TextTower, where: str) -> None:
    """Raise unless the tower has an embedding for every id below `size` (a vocabulary may have holes)."""
    rows = tower.embedding.num_embeddings
    if size > rows:
        raise Refused(f"{where} has ids up to {size - 1}, but the text tower has embeddings for {rows}")
