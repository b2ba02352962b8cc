"""EmojiCIR's split: train, validation or test by a target's base concept, whatever the encoder was trained on."""

from __future__ import annotations

import hashlib

from emojicir.lens_base import concept_of

SALT = "emojicir/1"
TRAIN, VALIDATION, TEST = "train", "validation", "test"


def part_of(base_label: str) -> str:
    """Return train (55 %), validation (15 %) or test (30 %) for the emoji that has this untoned label.

    It is a hash of the concept that lens-base's recipe reads from the label, so genders and basic colours share it.
    """
    digest = hashlib.sha256(f"{SALT}:{concept_of(base_label)}".encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % 20
    return TRAIN if bucket < 11 else VALIDATION if bucket < 14 else TEST
