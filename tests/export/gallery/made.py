"""Pictures by the hundred, good, equal, broken and poisonous, and what must become of them."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pocketlens.gallery import Counts

POISON = Path(__file__).parent / "poison"
REASONS = {"HANG": "took too long", "DIES": "killed its decoder", "EATS": "too large"}


def picture(colour: tuple[int, int, int], *, end: bytes = b"") -> bytes:
    """Return a small picture of one colour, with bytes after its end that no decoder minds."""
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue() + end


@dataclass(frozen=True, slots=True)
class Made:
    """A folder and what must become of its files."""

    folder: Path
    counts: Counts


def make_pictures(folder: Path, count: int, *, seed: int = 0, hanging: int = 2, dying: int = 2) -> Made:
    """Write files of which 5 % are broken, some are equal, and a few poisonous."""
    rng = random.Random(seed)
    kinds = ["HANG"] * hanging + ["DIES"] * dying + ["EATS"] + ["truncated"] * (count // 20 - hanging - dying - 1)
    kinds += ["again"] * (count // 50)
    kinds += ["good"] * (count - len(kinds))
    rng.shuffle(kinds)
    kinds[kinds.index("good")], kinds[0] = kinds[0], "good"  # the first has nothing to repeat
    folder.mkdir(parents=True)
    skipped: dict[str, int] = {}
    written: list[bytes] = []
    for number, kind in enumerate(kinds):
        place = folder / f"{number % 7}"
        place.mkdir(exist_ok=True)
        content = picture((number % 256, number // 256 % 256, rng.randrange(256)), end=number.to_bytes(4) + b"    ")
        if kind in REASONS:
            content += kind.encode()
        elif kind == "truncated":
            content = content[:200]
        elif kind == "again":
            content = rng.choice(written)
        if kind == "good":
            written.append(content)
        if kind not in ("good", "again"):
            reason = REASONS.get(kind, kind)
            skipped[reason] = skipped.get(reason, 0) + 1
        (place / f"{number:06}.jpg").write_bytes(content)
    counts = Counts(count, kinds.count("good"), kinds.count("again"), dict(sorted(skipped.items())))
    return Made(folder, counts)


def start_index(*arguments: object) -> subprocess.Popen[str]:
    """Start the command where poisonous pictures work."""
    script = Path(sys.executable).with_name("pocketlens")
    environment = {**os.environ, "PYTHONPATH": str(POISON)}
    return subprocess.Popen(
        [str(script), "index", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
