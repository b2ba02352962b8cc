"""Prints results.json and together.json as the Markdown tables of the model card: `python table.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLUMNS = ("stamps: photos", "stamps: drawings", "stamps: photos and drawings", "emoji", "openclipart")


def table(recall: dict[str, Any]) -> str:
    """Return recall@1 / @5 / @10 in percent, a row for each encoder and a column for each gallery."""
    first = next(iter(recall.values()))
    sizes = [
        f"{name} ({first[name]['queries']:.0f} captions, {first[name]['pictures']:.0f} pictures)" for name in COLUMNS
    ]
    lines = ["| encoder | " + " | ".join(sizes) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for encoder, groups in recall.items():
        cells = [" / ".join(f"{groups[name][f'recall@{k}']:.1f}" for k in (1, 5, 10)) for name in COLUMNS]
        lines.append(f"| {encoder} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured(name: str) -> dict[str, Any]:
    """Return the recall by split, encoder and gallery of a file of results."""
    recall: dict[str, Any] = json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))["recall"]
    return recall


if __name__ == "__main__":
    first, then = measured("results.json"), measured("together.json")
    for part in first:
        print(f"\n{part}\n\n{table(first[part] | then[part])}")
