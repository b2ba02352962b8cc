"""What became of every entry, and whether too many were lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pocketlens.gallery import Counts
from pocketlens.listing import Skipped

SHOWN = 100  # skipped entries of each reason that are kept for showing
MOST_LOST = 0.01  # of the pictures, by default; few files are no reason to call a run failed
FEW = 20
_NO_PICTURES = frozenset({"not a picture"})  # nobody expects these to be indexed


@dataclass(slots=True)
class Account:
    """Counts while shards are gone through.

    Attributes:
        examples: the first skipped entries of each reason.
    """

    items: int = 0
    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Skipped]] = field(default_factory=dict)

    def skip(self, entries: Sequence[Skipped]) -> None:
        """Count entries that were skipped."""
        for entry in entries:
            self.skipped[entry.reason] += 1
            shown = self.examples.setdefault(entry.reason, [])
            if len(shown) < SHOWN:
                shown.append(entry)

    def counts(self) -> Counts:
        """Return what became of every entry."""
        seen = self.items + self.skipped.total()
        return Counts(seen, self.rows, duplicates=self.items - self.rows, skipped=dict(sorted(self.skipped.items())))


def lost_of(counts: Counts, *, unchanged: int = 0) -> tuple[int, int]:
    """Return how many pictures were skipped, and of how many; files that are none by their names count for neither."""
    lost = sum(count for reason, count in counts.skipped.items() if reason not in _NO_PICTURES)
    return lost, counts.indexed + counts.duplicates + lost + unchanged


def too_many_lost(counts: Counts, most: float | None, *, unchanged: int = 0) -> bool:
    """Tell whether more pictures were skipped than a share of all.

    Args:
        counts: what became of what was looked at.
        most: the share; None is 1 %, of 20 skipped pictures or fewer half.
        unchanged: pictures that were not looked at, because they are there already.
    """
    lost, of = lost_of(counts, unchanged=unchanged)
    if most is None:
        return lost > MOST_LOST * of and (lost > FEW or 2 * lost > of)
    return lost > most * of


def share(counts: Mapping[str, float]) -> dict[str, float]:
    """Return each value's share of their sum."""
    total = sum(counts.values())
    return {name: value / total if total else 0.0 for name, value in counts.items()}
