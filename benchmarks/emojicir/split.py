"""EmojiCIR's split: train, validation or test by a target's base, whatever the encoder was trained on."""

from __future__ import annotations

import hashlib

from emojicir.lens_base import concept_of

SALT = "emojicir/120"
"""The first "emojicir/N" that gives every family enough targets; README.md says the rule."""

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def part_of(base: str) -> str:
    """Return train (55 %), validation (15 %) or test (30 %) for a base, a name without tone, gender and hair.

    It is a hash of the concept that lens-base's recipe reads from the base, so that basic colours, and a cat and a cat
    face, share it. The base of a label is `emojicir.names.base_of`.
    """
    digest = hashlib.sha256(f"{SALT}:{concept_of(base)}".encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % 20
    return TRAIN if bucket < 11 else VALIDATION if bucket < 14 else TEST
