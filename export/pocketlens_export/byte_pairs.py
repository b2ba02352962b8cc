"""open_clip's byte-pair tokenizer in Hugging Face `tokenizers` format: the same ids for cleaned text.

open_clip splits text by Unicode's letters and numbers as the `regex` package knows them; the device's `tokenizers` has
tables of another Unicode version. The classes are therefore written out as ranges, so that ids depend on neither.
"""

from __future__ import annotations

import itertools
import sys
from functools import cache
from typing import Any

import regex
import tokenizers

_SURROGATES = range(0xD800, 0xE000)


def tokenizer_json(tokenizer: Any) -> str:
    """Return an open_clip SimpleTokenizer as the content of a tokenizer.json.

    Left out on purpose: the markers in its splitting pattern. There a literal "<end_of_text>" becomes the end marker,
    and the embedding is then read from the middle of the text; here it is text.
    """
    start, end = (tokenizer.decoder[i] for i in (tokenizer.sot_token_id, tokenizer.eot_token_id))
    model = tokenizers.models.BPE(vocab=tokenizer.encoder, merges=list(tokenizer.bpe_ranks), end_of_word_suffix="</w>")
    built = tokenizers.Tokenizer(model)
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(_pattern()), behavior="removed", invert=True)
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    built.add_special_tokens([tokenizers.AddedToken(name, normalized=False, special=True) for name in (start, end)])
    built.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, tokenizer.sot_token_id), (end, tokenizer.eot_token_id)],
    )
    return str(built.to_str())


@cache
def _pattern() -> str:
    """Return open_clip/tokenizer.py's SimpleTokenizer.pat (release 3.3) without markers, classes written out."""
    letter, number, other = (_ranges(kind) for kind in (r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]"))
    return f"'(?i:s|t|re|ve|m|ll|d)|[{letter}]+|[{number}]|[{other}]+"


def _ranges(kind: str) -> str:
    r"""Return the code points that a class matches when case is ignored, as `\x{41}-\x{5A}…`."""
    characters = "".join(chr(point) for point in range(sys.maxunicode + 1) if point not in _SURROGATES)
    points = [ord(found) for found in regex.findall(kind, characters, flags=regex.IGNORECASE)]
    runs = []
    for _, group in itertools.groupby(enumerate(points), key=lambda pair: pair[1] - pair[0]):
        run = [point for _, point in group]
        runs.append(rf"\x{{{run[0]:X}}}-\x{{{run[-1]:X}}}")
    return "".join(runs)
