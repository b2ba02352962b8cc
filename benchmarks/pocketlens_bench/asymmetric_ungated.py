"""`pocketlens`, which writes a tower even if it tells generated pictures hardly apart: to measure what is refused.

`pocketlens fit distill` refuses such a tower, as it would be of little use, and would prove little of its graph.
"""

from __future__ import annotations

from pocketlens.cli import main
from pocketlens_export import folder


def _take(what: str, spread: float) -> None:
    """Take embeddings as they are."""


if __name__ == "__main__":
    vars(folder)["refuse_flat"] = _take  # the command has no switch for it
    main()
