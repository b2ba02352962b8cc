"""Rows as Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pocketlens_bench.measure import Row


def markdown_table(rows: Iterable[Row]) -> str:
    """Return rows as a Markdown table, or nothing for no rows; numbers are right-aligned."""
    rows = list(rows)
    if not rows:
        return ""
    names = list(rows[0])
    numeric = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
    lines = [names, ["---:" if right else "---" for right in numeric]]
    lines += [[cell(row[name]) for name in names] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(value: object) -> str:
    """Return a value as a cell shows it: empty for None, numbers to eight digits, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return re.sub(r"\|", r"\\|", str(value))
