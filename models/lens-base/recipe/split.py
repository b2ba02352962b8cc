"""Splits pictures by concept, so that no concept is both trained on and tested on, in any drawing style.

A concept is a normalised name; its split is a hash of that name, so that it is the same in every source, run and
machine. Captions of the stamps are split the same way into a validation and a test half.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

SALT = "lens-base/1"
TRAIN, VALIDATION, TEST = "train", "validation", "test"

_IGNORED = frozenset(
    "a an the of and with in on man woman men women person people boy girl male female face sign symbol button "  # noqa: SIM905
    "black white red green blue small large big simple cartoon clip art clipart icon logo".split()
)


def concept_of(name: str) -> str:
    """Return the concept behind a title: lower case, without digits, articles, genders, colours or plural s.

    Words are sorted, so that "face of cat" and "cat face" are one concept.
    """
    words = re.findall(r"[a-z]+", name.lower())
    kept = sorted({w[:-1] if len(w) > 3 and w.endswith("s") else w for w in words if w not in _IGNORED})
    return " ".join(kept) or " ".join(sorted(words)) or name.strip().lower()


def _bucket(concept: str, buckets: int) -> int:
    digest = hashlib.sha256(f"{SALT}:{concept}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % buckets


def split_of(concept: str) -> str:
    """Return train (80 %), validation (10 %) or test (10 %) for a concept."""
    bucket = _bucket(concept, 10)
    return TEST if bucket == 0 else VALIDATION if bucket == 1 else TRAIN


def half_of(caption: str) -> str:
    """Return validation or test (50 % each) for a stamp's caption."""
    return TEST if _bucket(concept_of(caption), 2) else VALIDATION


def fingerprint(members: Iterable[tuple[str, str]]) -> str:
    """Return the sha256 of a split: of its sorted (picture id, split) pairs."""
    lines = "\n".join(f"{name}\t{part}" for name, part in sorted(members))
    return hashlib.sha256(lines.encode()).hexdigest()
